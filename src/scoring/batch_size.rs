//! How many rows one run takes.

use std::time::Duration;

use datafusion_predict_native::Model;

/// A run that takes longer holds up a cancelled query, and the other partitions.
const LONGEST_RUN: Duration = Duration::from_millis(50);

/// DataFusion's own batch size: more rows than that never arrive at once.
const ARROW_BATCH: usize = 8192;

/// Where little is known of what a row takes between input and output, the first run has this many rows.
const FIRST_RUN: usize = 8;

/// The same on a device, which computes many at once.
const FIRST_RUN_ON_DEVICE: usize = 64;

/// Elements of such a run's largest tensor, at most, unless one row has more: what lies between may be many times that.
const FIRST_RUN_ELEMENTS: usize = 1 << 18;

/// The size of the first run of `model`, and whether later ones grow from there. `row_elements` are those of a row in the largest
/// of its inputs and outputs, as far as that is known.
///
/// Dense networks start with as many rows as keep what passes between two layers within the second-level cache: on a network
/// of 28-256-128-1, 1,024 rows are 3 times as fast as 65,536. Trees have no such layers. What convolutions and their kin
/// keep between layers can't be told from the file, and a row may take megabytes of it: they start small, and grow while
/// that pays.
pub(super) fn choose(model: &Model, on_cpu: bool, row_elements: usize) -> BatchSize {
    if model.has_trees() {
        return BatchSize::new(ARROW_BATCH);
    }
    let wide_operators = ["Conv", "ConvTranspose", "Attention", "LSTM", "GRU", "RNN"];
    let is_wide = model.operators().any(|operator| wide_operators.contains(&operator));
    if !on_cpu {
        let first = if is_wide { FIRST_RUN_ON_DEVICE } else { ARROW_BATCH };
        return BatchSize::growing(first, ARROW_BATCH).on_device();
    }
    if is_wide {
        let first = FIRST_RUN_ELEMENTS / row_elements.max(1);
        return BatchSize::growing(first.clamp(1, FIRST_RUN), ARROW_BATCH);
    }
    match model.widest_layer() {
        Some(width) => {
            let rows = (second_level_cache() / (width * size_of::<f32>()).max(1)).max(1);
            BatchSize::new(power_of_two(rows).clamp(64, ARROW_BATCH))
        }
        None => BatchSize::new(ARROW_BATCH),
    }
}

/// The largest power of two that is no more than `rows`, which is 1 at least.
fn power_of_two(rows: usize) -> usize {
    1 << rows.max(1).ilog2()
}

/// Bytes of the second-level cache of a core; 1 MiB where the system does not say.
fn second_level_cache() -> usize {
    let text = std::fs::read_to_string("/sys/devices/system/cpu/cpu0/cache/index2/size").unwrap_or_default();
    let kib = text.trim().strip_suffix('K').and_then(|kib| kib.parse::<usize>().ok());
    kib.map_or(1 << 20, |kib| kib << 10)
}

/// What takes less is not worth a change of threads.
const QUICK: Duration = Duration::from_micros(300);

/// What one thread scores at once: others may want its core, and the query may be cancelled.
const UNIT: Duration = Duration::from_millis(10);

/// Rows of a window, at least, where there are more: of fewer, few are alike.
const SMALLEST_WINDOW: usize = 128;

/// A size must be this much worse than the one before it to be given up: times differ from run to run.
const WORSE: f64 = 1.15;

/// Rows for the next run of a stream: what the model starts with, less where runs take too long or rows too many bytes, more
/// where it may grow and larger runs are no slower for each row.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct BatchSize {
    rows: usize,
    /// Seconds for a row, in the last run.
    time_of_row: f64,
    growth: Option<Growth>,
    /// Whether it is a window of rows, of which the model makes runs of its own.
    is_window: bool,
    /// On a device, the rows of the last run. A provider plans anew for each number of rows, so that the first run of a number says nothing
    /// of the next ones, and numbers should be few: they are powers of two.
    planned: Option<usize>,
    /// What it was before rows took too many bytes.
    unbounded: Option<Box<BatchSize>>,
}

#[derive(Debug, Clone, PartialEq)]
struct Growth {
    most: usize,
    /// The size before this one, and the time of its rows.
    before: Option<(usize, f64)>,
}

impl BatchSize {
    /// Runs of `rows` rows.
    pub(crate) fn new(rows: usize) -> Self {
        Self { rows: rows.max(1), time_of_row: 0.0, growth: None, is_window: false, planned: None, unbounded: None }
    }

    /// Runs of `rows` rows at first, and of up to `most`.
    pub(crate) fn growing(rows: usize, most: usize) -> Self {
        let rows = rows.max(1);
        Self { growth: (most > rows).then_some(Growth { most, before: None }), ..Self::new(rows) }
    }

    /// Windows of at most `rows` rows, of which the model makes runs of its own.
    pub(crate) fn windows(rows: usize) -> Self {
        Self { is_window: true, ..Self::new(rows) }
    }

    /// The same on a device.
    pub(crate) fn on_device(self) -> Self {
        Self { planned: Some(0), ..self }
    }

    /// Runs of `rows` rows, as somebody asks for.
    pub(crate) fn asked(rows: usize, on_cpu: bool) -> Self {
        if on_cpu { Self::new(rows) } else { Self::new(rows).on_device() }
    }

    /// The same with runs of no more than `most` rows, whatever comes: the model makes more of each than can be seen here.
    pub(super) fn of_at_most(self, most: usize) -> Self {
        let most = most.max(1);
        let growth = self.growth.map(|growth| Growth { most: growth.most.min(most), ..growth });
        Self { rows: self.rows.min(most), growth, ..self }
    }

    /// Rows for the next run.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// The same with runs of no more than `most` rows, since more would take too many bytes; but of one.
    pub(crate) fn bounded(&self, most: usize) -> Self {
        let most = self.possible(most);
        if most < self.rows {
            Self { rows: most, growth: None, unbounded: Some(Box::new(self.clone())), ..*self }
        } else {
            self.clone()
        }
    }

    /// The size that was [bounded](Self::bounded): the next batch may have lighter rows.
    pub(crate) fn unbounded(self) -> Self {
        match self.unbounded {
            Some(before) => Self { time_of_row: self.time_of_row, planned: self.planned, ..*before },
            None => self,
        }
    }

    /// Of `most` rows, as many as a run may have.
    fn possible(&self, most: usize) -> usize {
        if self.planned.is_some() { power_of_two(most) } else { most.max(1) }
    }

    /// How long `rows` rows will take, about; unknown before the first run.
    pub(crate) fn estimate(&self, rows: usize) -> Option<Duration> {
        (self.time_of_row > 0.0).then(|| Duration::from_secs_f64(self.time_of_row * rows as f64))
    }

    /// Whether `rows` rows take long enough to be given to another thread.
    pub(crate) fn is_worth_sharing(&self, rows: usize) -> bool {
        self.estimate(rows).is_none_or(|time| time > QUICK)
    }

    /// Of `rows` rows, how many one thread should score before it looks up: some runs, which take no longer than one should.
    ///
    /// Windows become smaller towards the end of the rows, so that `threads` threads end together.
    pub(crate) fn unit(&self, rows: usize, threads: usize) -> usize {
        if self.is_window {
            let share = rows.div_ceil(2 * threads.max(1));
            return if threads > 1 { share.max(SMALLEST_WINDOW) } else { rows }.min(self.rows).min(rows);
        }
        let runs =
            if self.time_of_row > 0.0 { (UNIT.as_secs_f64() / self.time_of_row) as usize / self.rows } else { 1 };
        runs.max(1).saturating_mul(self.rows).min(rows)
    }

    /// Learns that a run of `rows` rows took `duration`.
    pub(super) fn observe(&mut self, rows: usize, duration: Duration) {
        let is_remainder = rows < self.rows || self.is_window;
        if !is_remainder && self.planned.is_some_and(|planned| planned != rows) {
            self.planned = Some(rows);
            return;
        }
        self.time_of_row = duration.as_secs_f64() / rows.max(1) as f64;
        if is_remainder {
            return; // a remainder tells nothing of a whole batch
        }
        if duration > LONGEST_RUN {
            let fitting = rows as f64 * LONGEST_RUN.as_secs_f64() / duration.as_secs_f64();
            // One run may take long for another reason, such as a session that is made for it: it may grow again.
            self.growth = Some(Growth { most: self.rows, before: None });
            self.rows = self.possible(fitting as usize);
            return;
        }
        let Some(growth) = &mut self.growth else { return };
        match growth.before {
            Some((smaller, time)) if self.time_of_row > time * WORSE => {
                self.rows = smaller;
                self.growth = None;
            }
            _ if self.rows >= growth.most || duration * 2 > LONGEST_RUN => self.growth = None,
            _ => {
                growth.before = Some((self.rows, self.time_of_row));
                self.rows = (self.rows * 2).min(growth.most);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn long_runs_shrink_the_batch() {
        let mut size = BatchSize::new(1000);
        size.observe(1000, 10 * MS);
        assert_eq!(size.rows(), 1000);
        size.observe(1000, 500 * MS);
        assert_eq!(size.rows(), 100);
        size.observe(1, 9000 * MS); // a remainder tells nothing of a whole batch
        assert_eq!(size.rows(), 100);
        size.observe(100, 60_000 * MS);
        assert_eq!(size.rows(), 1);

        let mut once = BatchSize::new(8192);
        once.observe(8192, 400 * MS);
        assert_eq!(once.rows(), 1024);
        for rows in [1024, 2048, 4096, 8192] {
            once.observe(rows, rows as u32 * MS / 1000);
        }
        assert_eq!(once.rows(), 8192, "the long run was an exception");
    }

    #[test]
    fn a_small_batch_grows_while_it_pays() {
        let mut size = BatchSize::growing(8, 8192);
        size.observe(8, 4 * MS);
        assert_eq!(size.rows(), 16);
        size.observe(16, 6 * MS);
        assert_eq!(size.rows(), 32);
        size.observe(32, 20 * MS); // slower for each row
        assert_eq!(size.rows(), 16);
        size.observe(16, MS);
        assert_eq!(size.rows(), 16, "it stays");

        let mut slow = BatchSize::growing(8, 8192);
        slow.observe(8, 30 * MS);
        assert_eq!(slow.rows(), 8, "twice as many rows would take too long");

        let heavy = BatchSize::growing(8, 8192).bounded(0);
        assert_eq!(heavy.rows(), 1, "one row always runs");
        assert_eq!(heavy.unbounded(), BatchSize::growing(8, 8192));
    }

    #[test]
    fn on_a_device_the_first_run_of_a_size_tells_nothing() {
        let mut size = BatchSize::growing(64, 8192).on_device();
        size.observe(64, 900 * MS); // it was planned
        assert_eq!((size.rows(), size.estimate(1)), (64, None));
        size.observe(10, MS); // a remainder
        size.observe(64, 4 * MS);
        assert_eq!(size.rows(), 128);
        size.observe(128, 900 * MS);
        size.observe(128, 60 * MS); // too long for others that wait
        assert_eq!(size.rows(), 64);
        let mut bounded = BatchSize::new(8192).on_device().bounded(100);
        assert_eq!(bounded.rows(), 64, "few numbers of rows");
        for _ in 0..2 {
            bounded.observe(64, 64 * MS / 10);
            bounded = bounded.unbounded().bounded(100);
        }
        assert!(bounded.estimate(1).is_some(), "it learns though rows are bounded");
    }

    #[test]
    fn a_unit_is_some_runs() {
        let mut size = BatchSize::new(64);
        assert_eq!(size.unit(8192, 2), 64, "nothing is known yet");
        size.observe(64, MS);
        assert_eq!(size.unit(8192, 2), 640);
        assert_eq!(size.unit(30, 2), 30);
        assert!(size.is_worth_sharing(64) && !size.is_worth_sharing(8));
        size.observe(64, MS / 1000);
        assert_eq!(size.unit(8192, 2), 8192);

        let mut window = BatchSize::windows(4096);
        window.observe(4096, 60_000 * MS);
        assert_eq!((window.unit(10_000, 1), window.unit(5000, 2), window.unit(200, 2)), (4096, 1250, 128));
    }
}
