//! Runs jobs, and shows how far they are.

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use datafusion::error::Result;
use datafusion::prelude::SessionContext;
use datafusion_predict::{Job, JobEvent, RunReason, RunStatus, RunSummary};
use futures::StreamExt;
use indicatif::{HumanCount, HumanDuration, ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;

use crate::{logging, message};

/// The exit code of a run that has set rows or files aside.
const WITH_ERRORS: u8 = 3;

/// Runs a job to its end; a line on a terminal says how far it is.
///
/// # Errors
/// A job that is not there, a run that has failed or was cancelled.
pub(crate) async fn run(context: &SessionContext, name: &str, reason: RunReason, quiet: bool) -> Result<RunSummary> {
    run_here(context, name, reason, quiet, &mut Here::default()).await
}

/// How much of a run this process did, of which others may have done the rest.
#[derive(Debug, Default)]
struct Here {
    /// Splits whose output is that of this process.
    splits: u32,
    /// Splits that another process had scored before.
    lost: u32,
    /// How the run ended, if it began at all.
    ended: Option<RunSummary>,
}

async fn run_here(
    context: &SessionContext,
    name: &str,
    reason: RunReason,
    quiet: bool,
    here: &mut Here,
) -> Result<RunSummary> {
    let mut run = Job::open(context, name).await?.run(context, reason);
    let mut progress = Progress::new(!quiet && io::stderr().is_terminal());
    while let Some(event) = run.next().await {
        match &event {
            JobEvent::Entered { run, .. } => logging::at_run(Some((name, *run))),
            JobEvent::Split { .. } => here.splits += 1,
            JobEvent::Lost { .. } => here.lost += 1,
            JobEvent::Ended(summary) => here.ended = Some(summary.as_ref().clone()),
            _ => {}
        }
        progress.show(&event);
    }
    drop(progress);
    let finished = run.finish().await;
    logging::at_run(None);
    finished
}

/// `datafusion-predict run`: the summary on standard output or standard error, and an exit code that says how it went.
pub(crate) async fn run_to_exit(
    context: &SessionContext,
    name: &str,
    reason: RunReason,
    quiet: bool,
    as_json: bool,
) -> ExitCode {
    let start = Instant::now();
    let mut here = Here::default();
    match run_here(context, name, reason, quiet, &mut here).await {
        Ok(summary) => {
            if as_json {
                println!("{}", to_json(name, &summary, &here));
            } else if !quiet {
                eprintln!("{}", in_words(name, &summary, start.elapsed()));
            }
            match summary.status {
                RunStatus::DoneWithErrors => ExitCode::from(WITH_ERRORS),
                _ => ExitCode::SUCCESS,
            }
        }
        Err(error) => {
            let text = message::of(&error);
            if as_json {
                let known = here.ended.as_ref().map(|summary| to_json(name, summary, &here));
                let mut line = known.unwrap_or_else(|| json!({ "job": name, "status": "failed" }));
                line["error"] = text.as_str().into();
                println!("{line}");
            }
            eprintln!("error: {text}");
            ExitCode::FAILURE
        }
    }
}

fn to_json(job: &str, run: &RunSummary, here: &Here) -> serde_json::Value {
    let models: serde_json::Map<_, _> =
        run.models.iter().map(|model| (model.label.clone(), model.sha256.clone().into())).collect();
    json!({
        "job": job,
        "run": run.run,
        "status": run.status.as_str(),
        "reason": run.reason,
        "generation": run.generation,
        "models": models,
        "engines": run.engines,
        "machines": run.machines,
        "started_at": run.started_at,
        "ended_at": run.ended_at,
        "splits": run.splits,
        "splits_done": run.splits_done,
        "splits_here": here.splits,
        "splits_lost": here.lost,
        "files_in": run.files_in,
        "files_failed": run.files_failed,
        "rows_in": run.rows_in,
        "rows_out": run.rows_out,
        "rows_set_aside": run.rows_set_aside,
        "bytes_read": run.bytes_read,
        "bytes_written": run.bytes_written,
        "split_seconds": run.split_seconds,
        "model_seconds": run.model_seconds,
        "means": run.means,
    })
}

fn in_words(job: &str, run: &RunSummary, time: Duration) -> String {
    let count = |number: u64| HumanCount(number).to_string();
    let seconds = time.as_secs_f64();
    let mut text = format!(
        "job {job}, run {}: {}; {} rows in, {} rows out, {} files, {seconds:.1} s",
        run.run,
        run.status.as_str(),
        count(run.rows_in),
        count(run.rows_out),
        count(run.files_in),
    );
    if run.rows_set_aside > 0 {
        text.push_str(&format!("; {} rows set aside", count(run.rows_set_aside)));
    }
    if run.files_failed > 0 {
        text.push_str(&format!("; {} files could not be scored", count(run.files_failed)));
    }
    if run.status == RunStatus::DoneWithErrors {
        text.push_str(": see predict.job_errors");
    }
    text
}

/// A line on the terminal, gone when it is dropped.
struct Progress {
    wanted: bool,
    bar: Option<ProgressBar>,
    start: Instant,
    rows: u64,
    aside: u64,
    /// Splits that were done before this process came.
    before: u32,
}

impl Progress {
    fn new(wanted: bool) -> Self {
        Self { wanted, bar: None, start: Instant::now(), rows: 0, aside: 0, before: 0 }
    }

    fn show(&mut self, event: &JobEvent) {
        match event {
            JobEvent::Entered { done, .. } => self.before = *done,
            JobEvent::Split { rows, rows_set_aside, files_failed, done, splits, .. } => {
                self.rows += rows;
                self.aside += rows_set_aside + files_failed;
                if self.wanted {
                    let bar = self.bar.get_or_insert_with(|| bar(*splits));
                    bar.set_position(u64::from(*done));
                    bar.set_message(line(*done, *splits, self.before, self.rows, self.aside, self.start.elapsed()));
                    let _ = io::stderr().write_all(b"\r");
                }
            }
            _ => {}
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn bar(splits: u32) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:30} {percent:>3}%  {msg}").expect("the template is well-formed");
    let bar = ProgressBar::new(u64::from(splits));
    bar.set_draw_target(ProgressDrawTarget::stderr());
    bar.with_style(style)
}

fn line(done: u32, splits: u32, before: u32, rows: u64, aside: u64, elapsed: Duration) -> String {
    let seconds = elapsed.as_secs_f64().max(0.001);
    let here = f64::from(done.saturating_sub(before)).max(1.0);
    let left = Duration::from_secs_f64(seconds / here * f64::from(splits - done.min(splits)));
    let rate = HumanCount((rows as f64 / seconds) as u64);
    let aside = if aside > 0 { format!(", {} set aside", HumanCount(aside)) } else { String::new() };
    let rows = HumanCount(rows);
    format!("{done} of {splits} splits, {rows} rows{aside}, {rate} rows/s, {} left", HumanDuration(left))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_is_estimated_from_what_was_done_here() {
        let text = line(60, 100, 20, 8000, 3, Duration::from_secs(4));
        assert_eq!(text, "60 of 100 splits, 8,000 rows, 3 set aside, 2,000 rows/s, 4 seconds left");
    }
}
