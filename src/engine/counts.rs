//! What runs count beside their rows.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Counters that runs add to, beside their rows: tokens and texts for models of texts, the time that runs on a device have waited for
/// it, and the time that it had none. Other runs leave them at zero.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct RunCounts {
    /// Tokens that were given to the model.
    pub tokens: AtomicUsize,
    /// What filled up texts that were shorter than others of their batch.
    pub padding: AtomicUsize,
    /// Texts of which a part was left out, since they had more tokens than the model takes.
    pub truncated: AtomicUsize,
    /// Rows whose text had been scored for another row of the batch.
    pub repeated: AtomicUsize,
    /// Nanoseconds that runs have waited for their device.
    pub waited: AtomicU64,
    /// Nanoseconds that the device had nothing to do before it had a run.
    pub idle: AtomicU64,
    /// Since when a run waits.
    waiting_since: Mutex<Option<Instant>>,
}

/// Such counts of texts at one moment.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TextCounts {
    pub tokens: usize,
    pub padding: usize,
    pub truncated: usize,
    pub repeated: usize,
}

impl RunCounts {
    /// Does `wait`, and counts the time that it takes.
    pub(crate) fn while_waiting<T>(&self, wait: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        *self.since() = Some(start);
        let result = wait();
        let waited = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.waited.fetch_add(waited, Ordering::Relaxed);
        *self.since() = None;
        result
    }

    /// The time that runs have waited for their device, with that of a run that still waits.
    pub(crate) fn waited_until_now(&self) -> Duration {
        let now = self.since().map_or(Duration::ZERO, |since| since.elapsed());
        Duration::from_nanos(self.waited.load(Ordering::Relaxed)) + now
    }

    fn since(&self) -> MutexGuard<'_, Option<Instant>> {
        self.waiting_since.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The time that runs have waited for their device, which is zero again.
    pub(crate) fn take_waited(&self) -> Duration {
        Duration::from_nanos(self.waited.swap(0, Ordering::Relaxed))
    }

    /// Counts that the device had nothing to do for so long.
    pub(crate) fn add_idle(&self, idle: Duration) {
        self.idle.fetch_add(u64::try_from(idle.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// The time that the device had nothing to do, which is zero again.
    pub(crate) fn take_idle(&self) -> Duration {
        Duration::from_nanos(self.idle.swap(0, Ordering::Relaxed))
    }

    /// The counts of texts, which are zero again.
    pub(crate) fn take(&self) -> TextCounts {
        let take = |count: &AtomicUsize| count.swap(0, Ordering::Relaxed);
        TextCounts {
            tokens: take(&self.tokens),
            padding: take(&self.padding),
            truncated: take(&self.truncated),
            repeated: take(&self.repeated),
        }
    }
}

impl std::ops::AddAssign for TextCounts {
    fn add_assign(&mut self, other: Self) {
        self.tokens += other.tokens;
        self.padding += other.padding;
        self.truncated += other.truncated;
        self.repeated += other.repeated;
    }
}
