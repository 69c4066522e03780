//! Shows on a terminal how far a query is.

use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use datafusion::common::stats::Precision;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::statistics::{StatisticsArgs, StatisticsContext};
use datafusion_predict::{Download, PredictRuntime};
use indicatif::{HumanBytes, HumanCount, HumanDuration, ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::time::{Interval, MissedTickBehavior, interval_at};

/// Quick queries show nothing.
const PATIENCE: Duration = Duration::from_millis(500);
const PERIOD: Duration = Duration::from_millis(100);

/// The rows that the scans of a plan have read, of those that there are; or, while the file of a model is fetched, how far
/// that is. Gone from the screen when dropped.
pub(crate) struct Progress {
    /// `None` while a statement is planned, or a model made.
    plan: Option<Arc<dyn ExecutionPlan>>,
    predict: Arc<PredictRuntime>,
    start: Instant,
    ticks: Option<Interval>,
    bar: Option<Bar>,
}

struct Bar {
    bar: ProgressBar,
    /// The rows of all scans, if each knows its own.
    total: Option<usize>,
}

impl Progress {
    /// Progress of a statement that was started at `start`. Nothing is shown unless it is `wanted`.
    pub(crate) fn new(
        plan: Option<Arc<dyn ExecutionPlan>>,
        predict: Arc<PredictRuntime>,
        start: Instant,
        wanted: bool,
    ) -> Self {
        let ticks = (wanted && io::stderr().is_terminal()).then(|| {
            let mut ticks = interval_at((start + PATIENCE).into(), PERIOD);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            ticks
        });
        Self { plan, predict, start, ticks, bar: None }
    }

    /// Waits until it should be shown again.
    pub(crate) async fn due(&mut self) {
        match &mut self.ticks {
            Some(ticks) => drop(ticks.tick().await),
            None => std::future::pending().await,
        }
    }

    /// Shows it.
    pub(crate) fn show(&mut self) {
        let rows = self.plan.as_deref().and_then(rows_read);
        let plan = self.plan.as_deref();
        let Bar { bar, total } = self.bar.get_or_insert_with(|| Bar::new(rows.and(plan).and_then(rows_to_read)));
        let download = self.predict.downloads().into_iter().next();
        bar.set_message(match &download {
            Some(download) => fetched(download),
            None => message(rows, *total, self.start.elapsed()),
        });
        bar.set_position(rows.unwrap_or(0) as u64);
        bar.tick();
        to_line_start();
    }

    /// Takes it off the screen while `print` writes there.
    pub(crate) fn hidden_during<T>(&self, print: impl FnOnce() -> T) -> T {
        match &self.bar {
            Some(Bar { bar, .. }) => {
                let printed = bar.suspend(print);
                to_line_start();
                printed
            }
            None => print(),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(Bar { bar, .. }) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

impl Bar {
    fn new(total: Option<usize>) -> Self {
        let (bar, template) = match total {
            Some(total) => (ProgressBar::new(total as u64), "{bar:30} {percent:>3}%  {msg}"),
            None => (ProgressBar::no_length(), "{spinner} {msg}"),
        };
        let style = ProgressStyle::with_template(template).expect("the template is well-formed");
        bar.set_draw_target(ProgressDrawTarget::stderr());
        Self { bar: bar.with_style(style), total }
    }
}

/// A bar leaves the cursor at its end, where the terminal's `^C` would push it to the next line, out of our reach.
fn to_line_start() {
    let _ = io::stderr().write_all(b"\r");
}

fn message(rows: Option<usize>, total: Option<usize>, elapsed: Duration) -> String {
    let Some(rows) = rows else {
        return format!("{} s", elapsed.as_secs());
    };
    let count = |rows: usize| HumanCount(rows as u64);
    let rate = rows as f64 / elapsed.as_secs_f64().max(0.001);
    let per_second = count(rate as usize);
    match total {
        Some(total) if rows <= total && rate >= 1.0 => {
            let left = HumanDuration(Duration::from_secs_f64((total - rows) as f64 / rate));
            format!("{} of {} rows, {per_second} rows/s, {left} left", count(rows), count(total))
        }
        _ => format!("{} rows, {per_second} rows/s", count(rows)),
    }
}

fn fetched(download: &Download) -> String {
    let done = HumanBytes(download.done);
    match download.total {
        Some(total) => format!("fetching {}: {done} of {}", download.uri, HumanBytes(total)),
        None => format!("fetching {}: {done}", download.uri),
    }
}

/// `None` if no scan counts its rows: those of tables in memory don't.
fn rows_read(plan: &dyn ExecutionPlan) -> Option<usize> {
    let mut rows = None;
    visit_leaves(plan, &mut |leaf| {
        if let Some(read) = leaf.metrics().and_then(|metrics| metrics.output_rows()) {
            rows = Some(rows.unwrap_or(0) + read);
        }
    });
    rows
}

/// `None` if a scan does not know how many rows it has.
fn rows_to_read(plan: &dyn ExecutionPlan) -> Option<usize> {
    let mut total = Some(0_usize);
    visit_leaves(plan, &mut |leaf| {
        let rows = match StatisticsContext::new().compute(leaf, &StatisticsArgs::new()) {
            Ok(statistics) => match statistics.num_rows {
                Precision::Exact(rows) | Precision::Inexact(rows) => Some(rows),
                Precision::Absent => None,
            },
            Err(_) => None,
        };
        total = total.zip(rows).map(|(total, rows)| total.saturating_add(rows));
    });
    total.filter(|rows| *rows > 0)
}

fn visit_leaves(plan: &dyn ExecutionPlan, visit: &mut impl FnMut(&dyn ExecutionPlan)) {
    let children = plan.children();
    if children.is_empty() {
        visit(plan);
    }
    for child in children {
        visit_leaves(child.as_ref(), visit);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_is_estimated_where_the_total_is_known() {
        let text = |rows, total| message(rows, total, Duration::from_secs(2));
        assert_eq!(text(Some(2000), Some(10_000)), "2,000 of 10,000 rows, 1,000 rows/s, 8 seconds left");
        assert_eq!(text(Some(2000), None), "2,000 rows, 1,000 rows/s");
        assert_eq!(text(Some(0), Some(10_000)), "0 rows, 0 rows/s");
        // Statistics may be wrong.
        assert_eq!(text(Some(2000), Some(10)), "2,000 rows, 1,000 rows/s");
        assert_eq!(text(None, None), "2 s");
        let download = Download { uri: "s3://models/m.onnx".into(), done: 3 << 20, total: Some(12 << 20) };
        assert_eq!(fetched(&download), "fetching s3://models/m.onnx: 3.00 MiB of 12.00 MiB");
    }
}
