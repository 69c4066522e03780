//! How the cores of a query are shared among its partitions.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// One partition's share, until it is dropped.
#[derive(Debug)]
pub(super) struct CoreShare {
    /// Of the query: its target partitions.
    cores: usize,
    /// Partitions among which they are shared.
    running: Arc<AtomicUsize>,
}

impl CoreShare {
    pub(super) fn new(cores: usize, running: &Arc<AtomicUsize>) -> Self {
        running.fetch_add(1, Ordering::Relaxed);
        Self { cores, running: running.clone() }
    }

    /// Cores for this partition now: more, when others are done.
    pub(super) fn cores(&self) -> usize {
        (self.cores / self.running.load(Ordering::Relaxed).max(1)).max(1)
    }
}

impl Drop for CoreShare {
    fn drop(&mut self) {
        self.running.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_partition_gets_all_cores() {
        let running = Arc::default();
        let shares: Vec<_> = (0..3).map(|_| CoreShare::new(4, &running)).collect();
        let mut shares = shares.into_iter();
        let last = shares.next_back().expect("there are three");
        assert_eq!(last.cores(), 1);
        drop(shares);
        assert_eq!(last.cores(), 4);
    }
}
