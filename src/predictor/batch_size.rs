//! How many rows one run takes.

use std::time::Duration;

use crate::model::Model;

/// A run that takes longer holds up a cancelled query, and the other partitions.
pub(crate) const LONGEST_RUN: Duration = Duration::from_millis(50);

/// DataFusion's own batch size: more rows than that never arrive at once.
const ARROW_BATCH: usize = 8192;

/// Where nothing is known of the layers between input and output.
const UNKNOWN_LAYERS: usize = 1024;

/// The rows for each run of `model`: as many as keep what passes between two layers within the second-level cache.
///
/// On a dense network of 28-256-128-1, 1,024 rows are 3 times as fast as 65,536. Trees have no such layers.
pub(super) fn choose(model: &Model, on_cpu: bool) -> usize {
    if !on_cpu || model.has_trees() {
        return ARROW_BATCH;
    }
    let wide_operators = ["Conv", "ConvTranspose", "Attention", "LSTM", "GRU"];
    if model.operators().any(|operator| wide_operators.contains(&operator)) {
        return UNKNOWN_LAYERS;
    }
    match model.widest_layer() {
        Some(width) => {
            let rows = (second_level_cache() / (width * size_of::<f32>()).max(1)).max(1);
            (1 << rows.ilog2()).clamp(64, ARROW_BATCH)
        }
        None => ARROW_BATCH,
    }
}

/// Bytes of the second-level cache of a core; 1 MiB where the system does not say.
fn second_level_cache() -> usize {
    let text = std::fs::read_to_string("/sys/devices/system/cpu/cpu0/cache/index2/size").unwrap_or_default();
    let kib = text.trim().strip_suffix('K').and_then(|kib| kib.parse::<usize>().ok());
    kib.map_or(1 << 20, |kib| kib << 10)
}

/// What is not worth a second thread.
const QUICK: Duration = Duration::from_millis(2);

/// Rows for the next run of a stream: the model's batch size, less where runs take too long.
#[derive(Debug)]
pub(crate) struct BatchSize {
    rows: usize,
    /// Of the last run, seconds.
    time_of_row: f64,
}

impl BatchSize {
    pub(crate) fn new(rows: usize) -> Self {
        Self { rows: rows.max(1), time_of_row: 0.0 }
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Whether `rows` rows take long enough to be shared among threads.
    pub(super) fn is_worth_sharing(&self, rows: usize) -> bool {
        self.time_of_row * rows as f64 > QUICK.as_secs_f64()
    }

    /// Learns that a run of `rows` rows took `duration`.
    pub(super) fn observe(&mut self, rows: usize, duration: Duration) {
        self.time_of_row = duration.as_secs_f64() / rows.max(1) as f64;
        if duration > LONGEST_RUN && rows >= self.rows {
            let fitting = rows as f64 * LONGEST_RUN.as_secs_f64() / duration.as_secs_f64();
            self.rows = (fitting as usize).max(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_runs_shrink_the_batch() {
        let mut size = BatchSize::new(1000);
        size.observe(1000, Duration::from_millis(10));
        assert_eq!(size.rows(), 1000);
        size.observe(1000, Duration::from_millis(500));
        assert_eq!(size.rows(), 100);
        size.observe(1, Duration::from_secs(9)); // a remainder tells nothing of a whole batch
        assert_eq!(size.rows(), 100);
        size.observe(100, Duration::from_secs(60));
        assert_eq!(size.rows(), 1);
    }
}
