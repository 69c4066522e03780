//! The cores that all runs share.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::available_parallelism;
use std::time::Duration;

use super::CancelToken;

/// Keeps (threads of a run) × (runs at once) within the machine's cores, across models and queries.
///
/// First come, first served: a run that needs all cores is not passed by those that need one.
#[derive(Debug)]
pub struct CoreBudget {
    total: usize,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    free: usize,
    next_ticket: u64,
    waiting: VecDeque<u64>,
}

/// How often a run that waits looks whether its query is still there.
const PATIENCE: Duration = Duration::from_millis(50);

/// Cores that are in use until this is dropped.
#[derive(Debug)]
pub struct Cores<'a> {
    budget: &'a CoreBudget,
    count: usize,
}

impl Default for CoreBudget {
    fn default() -> Self {
        Self::new(available_parallelism().map_or(1, |cores| cores.get()))
    }
}

impl CoreBudget {
    /// A budget of `total` cores, at least one.
    pub fn new(total: usize) -> Self {
        let total = total.max(1);
        let state = State { free: total, next_ticket: 0, waiting: VecDeque::new() };
        Self { total, state: Mutex::new(state), changed: Condvar::new() }
    }

    /// All cores, free or not.
    pub fn total(&self) -> usize {
        self.total
    }

    /// Waits until `count` cores (at most all) are free, and takes them; `None` if `cancel` comes first.
    pub fn take(&self, count: usize, cancel: &CancelToken) -> Option<Cores<'_>> {
        let count = count.clamp(1, self.total);
        let mut state = self.state();
        let ticket = state.next_ticket;
        state.next_ticket += 1;
        state.waiting.push_back(ticket);
        let taken = loop {
            if cancel.is_cancelled() {
                break None;
            }
            if state.waiting.front() == Some(&ticket) && state.free >= count {
                state.free -= count;
                break Some(Cores { budget: self, count });
            }
            state = self.changed.wait_timeout(state, PATIENCE).unwrap_or_else(PoisonError::into_inner).0;
        };
        state.waiting.retain(|waiting| *waiting != ticket);
        drop(state);
        self.changed.notify_all(); // the next in line may find enough
        taken
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Cores<'_> {
    /// How many were taken.
    pub fn count(&self) -> usize {
        self.count
    }
}

impl Drop for Cores<'_> {
    fn drop(&mut self) {
        self.budget.state().free += self.count;
        self.budget.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_is_served_in_turn_or_leaves() {
        let budget = CoreBudget::new(2);
        let token = CancelToken::default();
        let one = budget.take(1, &token).expect("a free core");
        let cancelled = CancelToken::default();
        std::thread::scope(|scope| {
            let all = scope.spawn(|| budget.take(5, &token).expect("all cores in the end").count());
            let gone = scope.spawn(|| budget.take(2, &cancelled).is_none());
            cancelled.cancel();
            assert!(gone.join().expect("no panic"), "a cancelled wait ends");
            drop(one);
            assert_eq!(all.join().expect("no panic"), 2);
        });
        assert_eq!(budget.take(2, &token).expect("all are back").count(), 2);
    }
}
