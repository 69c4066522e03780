//! What EXPLAIN ANALYZE shows of a prediction.

use std::sync::OnceLock;

use datafusion::physical_plan::metrics::{BaselineMetrics, Count, ExecutionPlanMetricsSet, MetricBuilder, Time};

use crate::engine::TextCounts;
use crate::scoring::ScoreStats;

/// The metrics of one partition.
#[derive(Debug, Clone)]
pub(super) struct PredictMetrics {
    pub baseline: BaselineMetrics,
    rows_scored: Count,
    rows_failed: Option<Count>,
    batches: Count,
    wait_time: Time,
    encode_time: Time,
    run_time: Time,
    decode_time: Time,
    /// Of a model of texts: tokens, padding, texts that were cut, rows whose text occurs again. Not there before there are any.
    texts: OnceLock<[Count; 4]>,
    /// Of a model on a device: how long that had nothing to do. Not there before a run on it.
    device_idle_time: OnceLock<Time>,
    /// Not there before any row was remembered.
    remembered: OnceLock<Count>,
    set: ExecutionPlanMetricsSet,
    partition: usize,
}

impl PredictMetrics {
    /// Of a node that gives NULL for rows that fail, if `may_fail`.
    pub(super) fn new(set: &ExecutionPlanMetricsSet, partition: usize, may_fail: bool) -> Self {
        let time = |name: &'static str| MetricBuilder::new(set).subset_time(name, partition);
        Self {
            baseline: BaselineMetrics::new(set, partition),
            rows_scored: MetricBuilder::new(set).counter("rows_scored", partition),
            rows_failed: may_fail.then(|| MetricBuilder::new(set).counter("rows_failed", partition)),
            batches: MetricBuilder::new(set).counter("batches", partition),
            wait_time: time("wait_time"),
            encode_time: time("encode_time"),
            run_time: time("run_time"),
            decode_time: time("decode_time"),
            texts: OnceLock::new(),
            device_idle_time: OnceLock::new(),
            remembered: OnceLock::new(),
            set: set.clone(),
            partition,
        }
    }

    pub(super) fn record(&self, stats: &ScoreStats) {
        self.rows_scored.add(stats.rows);
        if let Some(rows_failed) = &self.rows_failed {
            rows_failed.add(stats.rows_failed);
        }
        self.batches.add(stats.batches);
        let counter = |name: &'static str| MetricBuilder::new(&self.set).counter(name, self.partition);
        if stats.remembered > 0 {
            self.remembered.get_or_init(|| counter("remembered")).add(stats.remembered);
        }
        if stats.texts != TextCounts::default() {
            let names = ["tokens", "padding", "truncated", "repeated"];
            let counts = self.texts.get_or_init(|| names.map(counter));
            let TextCounts { tokens, padding, truncated, repeated } = stats.texts;
            counts.iter().zip([tokens, padding, truncated, repeated]).for_each(|(count, more)| count.add(more));
        }
        if !stats.idle.is_zero() {
            let time = || MetricBuilder::new(&self.set).subset_time("device_idle_time", self.partition);
            self.device_idle_time.get_or_init(time).add_duration(stats.idle);
        }
        self.wait_time.add_duration(stats.wait);
        self.encode_time.add_duration(stats.encode);
        self.run_time.add_duration(stats.run);
        self.decode_time.add_duration(stats.decode);
        self.baseline.elapsed_compute().add_duration(stats.encode + stats.run + stats.decode);
    }
}
