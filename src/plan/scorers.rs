//! Threads that score parts of a partition's batches at once.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::engine::{CoreBudget, CoreLease, Cores};

/// How long a thread keeps its cores while there is work, before it lets others of the machine have them.
const SHIFT: Duration = Duration::from_millis(50);

/// Does jobs in the order in which they come, several at once, each on a thread where blocking is allowed and with cores of
/// the budget.
///
/// A thread that has done a job takes the next one itself: to wake another thread for each job takes a tenth of a
/// millisecond, in which a core would be idle. Nobody waits on a thread for cores.
pub(super) struct Scorers {
    cores: Arc<CoreBudget>,
    /// Cores for each job.
    for_each: usize,
    state: Mutex<State>,
}

/// It is given the cores of its thread.
type Job = Box<dyn FnOnce(&Arc<CoreLease>) + Send>;

#[derive(Default)]
struct State {
    waiting: VecDeque<Job>,
    /// Threads that do jobs, or that wait for cores to do them with.
    at_work: usize,
}

impl Scorers {
    pub(super) fn new(cores: Arc<CoreBudget>, for_each: usize) -> Arc<Self> {
        Arc::new(Self { cores, for_each, state: Mutex::default() })
    }

    /// Has `job`, which must not panic, done when its turn comes, by one of at most `most` threads. Needs a runtime of tokio.
    pub(super) fn submit(self: &Arc<Self>, most: usize, job: impl FnOnce(&Arc<CoreLease>) + Send + 'static) {
        let more = {
            let mut state = self.state();
            state.waiting.push_back(Box::new(job));
            let more = state.at_work < most.max(1);
            state.at_work += usize::from(more);
            more
        };
        if more {
            self.clone().begin();
        }
    }

    /// Starts one thread, which is counted already.
    fn begin(self: Arc<Self>) {
        match self.cores.try_take(self.for_each) {
            Some(cores) => drop(tokio::task::spawn_blocking(move || self.work(cores))),
            None => drop(tokio::spawn(async move {
                let cores = self.cores.take(self.for_each).await;
                tokio::task::spawn_blocking(move || self.work(cores));
            })),
        }
    }

    fn work(self: Arc<Self>, cores: Cores) {
        let start = Instant::now();
        let lease = Arc::new(CoreLease::new(self.cores.clone(), cores));
        while let Some(job) = self.next() {
            job(&lease);
            // After a run on a device there may be none.
            if start.elapsed() > SHIFT || !lease.is_held() {
                lease.release();
                return self.begin();
            }
        }
        lease.release(); // whoever has kept a part of the job has no cores for it
    }

    /// The next job; without one, this thread is at work no more.
    fn next(&self) -> Option<Job> {
        let mut state = self.state();
        let job = state.waiting.pop_front();
        state.at_work -= usize::from(job.is_none());
        job
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn all_jobs_are_done_by_no_more_threads_than_there_are_cores() {
        let cores = Arc::new(CoreBudget::new(2));
        let scorers = Scorers::new(cores.clone(), 1);
        let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (done, mut all) = tokio::sync::mpsc::unbounded_channel();
        for job in 0..50 {
            let (running, most, done) = (running.clone(), most.clone(), done.clone());
            scorers.submit(4, move |_| {
                most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                std::thread::sleep(Duration::from_millis(2));
                running.fetch_sub(1, Ordering::SeqCst);
                done.send(job).expect("somebody waits");
            });
        }
        let mut seen = vec![];
        while seen.len() < 50 {
            seen.extend(all.recv().await);
        }
        seen.sort_unstable();
        assert_eq!(seen, (0..50).collect::<Vec<_>>());
        assert_eq!(most.load(Ordering::SeqCst), 2);
        assert_eq!(cores.take(2).await.count(), 2, "the cores are free again");
    }
}
