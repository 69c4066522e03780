//! The cores that all runs share.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::available_parallelism;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Keeps (threads of a run) × (runs at once) within the machine's cores, across models and queries.
///
/// First come, first served: a run that needs all cores is not passed by those that need one. Who waits holds no thread,
/// and leaves the line by dropping the future.
#[derive(Debug)]
pub struct CoreBudget {
    total: usize,
    free: Arc<Semaphore>,
    waiting: AtomicUsize,
}

/// Cores that are in use until this is dropped. Move it to where the run is, so that they are free when that has ended.
#[derive(Debug)]
pub struct Cores {
    permit: Option<OwnedSemaphorePermit>,
}

impl Default for CoreBudget {
    fn default() -> Self {
        Self::new(available_parallelism().map_or(1, |cores| cores.get()))
    }
}

impl CoreBudget {
    /// A budget of `total` cores, at least one.
    pub fn new(total: usize) -> Self {
        let total = total.clamp(1, u32::MAX as usize);
        Self { total, free: Arc::new(Semaphore::new(total)), waiting: AtomicUsize::new(0) }
    }

    /// All cores, free or not.
    pub fn total(&self) -> usize {
        self.total
    }

    /// The cores that nobody uses at this moment.
    pub fn free(&self) -> usize {
        self.free.available_permits()
    }

    /// The runs that wait for cores at this moment.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Takes `count` cores (at most all) if they are free now, and nobody waits.
    pub fn try_take(&self, count: usize) -> Option<Cores> {
        let count = count.clamp(1, self.total) as u32; // no more than fit, see `new`
        self.free.clone().try_acquire_many_owned(count).ok().map(|permit| Cores { permit: Some(permit) })
    }

    /// Takes `count` cores (at most all) when they are free and those who came before have theirs.
    pub async fn take(&self, count: usize) -> Cores {
        let count = count.clamp(1, self.total) as u32; // no more than fit, see `new`
        let _waiting = Waiting::new(&self.waiting);
        // Nothing closes the semaphore, which is the only error.
        Cores { permit: self.free.clone().acquire_many_owned(count).await.ok() }
    }
}

/// One run in the line, counted until it has its cores or leaves.
struct Waiting<'b>(&'b AtomicUsize);

impl<'b> Waiting<'b> {
    fn new(waiting: &'b AtomicUsize) -> Self {
        waiting.fetch_add(1, Ordering::Relaxed);
        Self(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Cores {
    /// How many were taken.
    pub fn count(&self) -> usize {
        self.permit.as_ref().map_or(0, OwnedSemaphorePermit::num_permits)
    }
}

/// Cores that a thread works with, and gives up while it waits for something else.
///
/// Nobody waits for them afterwards: what a thread does after a run on a device is quick, and a thread that waits for cores, which are
/// with a job that waits for a thread, would wait for ever. So cores are taken again if they are free, and else what is left of the run is
/// done without.
#[derive(Debug)]
pub struct CoreLease {
    budget: Arc<CoreBudget>,
    cores: Mutex<Option<Cores>>,
}

impl CoreLease {
    /// A lease of `cores`, which are of `budget`.
    pub fn new(budget: Arc<CoreBudget>, cores: Cores) -> Self {
        Self { budget, cores: Mutex::new(Some(cores)) }
    }

    /// Does `wait` while others have the cores, and takes them again if they are free then.
    pub fn without<T>(&self, wait: impl FnOnce() -> T) -> T {
        let count = self.release();
        let result = wait();
        if count > 0 {
            *self.cores() = self.budget.try_take(count);
        }
        result
    }

    /// Gives the cores up, and says how many they were.
    pub(crate) fn release(&self) -> usize {
        self.cores().take().map_or(0, |cores| cores.count())
    }

    /// Whether the lease has its cores: not while they are given up, and not afterwards if others had taken them.
    pub(crate) fn is_held(&self) -> bool {
        self.cores().is_some()
    }

    fn cores(&self) -> MutexGuard<'_, Option<Cores>> {
        self.cores.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    #[tokio::test]
    async fn cores_are_given_in_the_order_of_asking_and_a_dropped_wait_leaves_the_line() {
        let budget = CoreBudget::new(2);
        let one = budget.take(1).await;
        let mut all = Box::pin(budget.take(5));
        assert!((&mut all).now_or_never().is_none(), "one core is in use");
        let mut next = Box::pin(budget.take(1));
        assert!((&mut next).now_or_never().is_none(), "a free core is kept for who came before");
        assert_eq!(budget.waiting(), 2);
        drop(all);
        assert_eq!((&mut next).now_or_never().expect("the line is empty").count(), 1);
        drop(one);
        assert_eq!(budget.take(5).await.count(), 2, "all cores are the most there is");
        assert_eq!(budget.waiting(), 0);
    }
}
