//! The cores that all runs share.

use std::sync::{Condvar, Mutex, PoisonError};
use std::thread::available_parallelism;

/// Keeps (threads of a run) × (runs at once) within the machine's cores, across models and queries.
#[derive(Debug)]
pub struct CoreBudget {
    total: usize,
    free: Mutex<usize>,
    freed: Condvar,
}

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
        Self { total, free: Mutex::new(total), freed: Condvar::new() }
    }

    /// All cores, free or not.
    pub fn total(&self) -> usize {
        self.total
    }

    /// Waits until `count` cores (at most all) are free, and takes them.
    pub fn take(&self, count: usize) -> Cores<'_> {
        let count = count.clamp(1, self.total);
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let mut free = self.freed.wait_while(free, |free| *free < count).unwrap_or_else(PoisonError::into_inner);
        *free -= count;
        Cores { budget: self, count }
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
        *self.budget.free.lock().unwrap_or_else(PoisonError::into_inner) += self.count;
        self.budget.freed.notify_all();
    }
}
