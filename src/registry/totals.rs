//! What the uses of each version in this process have taken, for who watches it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::catalog::ModelHandle;
use crate::scoring::ScoreStats;

/// What all uses of a version in this process have taken until now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ModelTotals {
    /// The model's name.
    pub model: String,
    /// The version; `None` for the model of a function.
    pub version: Option<u64>,
    /// How often it was loaded.
    pub loads: u64,
    /// Rows that were given to it.
    pub rows: u64,
    /// Runs of it.
    pub batches: u64,
    /// Rows that it could not score.
    pub rows_failed: u64,
    /// Tokens that were given to it, if it is a model of texts.
    pub tokens: u64,
    /// Texts of which a part was left out, since they had more tokens than it takes.
    pub texts_truncated: u64,
    /// Time that runs have waited for cores.
    pub wait: Duration,
    /// Time from Arrow to tensors.
    pub encode: Duration,
    /// Time in the engine.
    pub run: Duration,
    /// Time from tensors to Arrow.
    pub decode: Duration,
}

/// The counters of one version.
#[derive(Debug, Default)]
pub(crate) struct Totals {
    loads: AtomicU64,
    rows: AtomicU64,
    batches: AtomicU64,
    rows_failed: AtomicU64,
    tokens: AtomicU64,
    texts_truncated: AtomicU64,
    /// In nanoseconds: wait, encode, run, decode.
    times: [AtomicU64; 4],
}

impl Totals {
    pub(super) fn loaded(&self) {
        self.loads.fetch_add(1, Ordering::Relaxed);
    }

    /// Adds what a batch took.
    pub(crate) fn add(&self, stats: &ScoreStats) {
        let add = |counter: &AtomicU64, number: usize| counter.fetch_add(number as u64, Ordering::Relaxed);
        add(&self.rows, stats.rows);
        add(&self.batches, stats.batches);
        add(&self.rows_failed, stats.rows_failed);
        add(&self.tokens, stats.texts.tokens);
        add(&self.texts_truncated, stats.texts.truncated);
        for (counter, time) in self.times.iter().zip([stats.wait, stats.encode, stats.run, stats.decode]) {
            add(counter, time.as_nanos() as usize);
        }
    }
}

/// The counters of all versions that this process has met.
#[derive(Debug, Default)]
pub(super) struct AllTotals(Mutex<BTreeMap<Version, Arc<Totals>>>);

/// A model's name, and the version.
type Version = (String, Option<u64>);

impl AllTotals {
    pub(super) fn of(&self, handle: &ModelHandle) -> Arc<Totals> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.entry((handle.name().to_owned(), handle.version())).or_default().clone()
    }

    pub(super) fn read(&self) -> Vec<ModelTotals> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let totals = all.iter().map(|((model, version), totals)| {
            let [wait, encode, run, decode] = totals.times.each_ref().map(|time| Duration::from_nanos(read(time)));
            ModelTotals {
                model: model.clone(),
                version: *version,
                loads: read(&totals.loads),
                rows: read(&totals.rows),
                batches: read(&totals.batches),
                rows_failed: read(&totals.rows_failed),
                tokens: read(&totals.tokens),
                texts_truncated: read(&totals.texts_truncated),
                wait,
                encode,
                run,
                decode,
            }
        });
        totals.collect()
    }
}
