//! What runs count beside their rows.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

/// What runs count: those of models of texts, and those on devices. Others count nothing.
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
    /// The time that runs have waited for their device, which is zero again.
    pub(crate) fn take_waited(&self) -> Duration {
        Duration::from_nanos(self.waited.swap(0, Ordering::Relaxed))
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
