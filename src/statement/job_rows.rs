//! Jobs as rows: `predict.jobs`, `predict.job_runs`, `predict.job_splits` and `predict.job_errors`, `SHOW JOBS`, `DESCRIBE JOB`
//! and what `RUN JOB` gives.

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, Float64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use datafusion::common::Result as DFResult;

use super::tables::{map, numbers, optional_texts, texts, times};
use crate::error::Result;
use crate::job::{self, Job, JobState, RunRecord, RunStatus, RunSummary, SplitRecord};
use crate::runtime::PredictRuntime;

/// Runs of a job whose splits are shown.
const RUNS: usize = 100;

/// A job at one moment.
pub(super) struct JobView {
    name: String,
    state: Arc<JobState>,
    /// What its last runs did, split by split.
    records: Vec<RunRecord>,
}

impl JobView {
    /// All jobs of the catalog; none, if it keeps no jobs.
    pub(super) async fn all(runtime: &PredictRuntime, with_records: bool) -> Result<Vec<Self>> {
        let Ok(folder) = job::folder(runtime) else { return Ok(vec![]) };
        let mut views = vec![];
        for job in Job::all_in(&folder).await? {
            let state = job.state().await?;
            let mut records = vec![];
            if with_records {
                for run in state.runs.iter().rev().take(RUNS).rev() {
                    records.extend(job.record(run.run).await?);
                }
            }
            views.push(Self { name: job.name().to_owned(), state, records });
        }
        Ok(views)
    }
}

/// A time, or none.
fn optional_times(values: impl Iterator<Item = Option<i64>>) -> ArrayRef {
    Arc::new(values.collect::<TimestampMicrosecondArray>().with_timezone("UTC"))
}

fn floats(values: impl Iterator<Item = f64>) -> ArrayRef {
    Arc::new(values.map(Some).collect::<Float64Array>())
}

/// `predict.jobs`
pub(super) fn jobs(views: &[JobView]) -> DFResult<RecordBatch> {
    let defined: Vec<_> = views.iter().filter_map(|view| Some((view, view.state.definition.clone()?))).collect();
    let last = |view: &JobView, good: bool| {
        view.state
            .runs
            .iter()
            .rev()
            .find(|run| !good || matches!(run.status, RunStatus::Done | RunStatus::DoneWithErrors))
            .cloned()
    };
    let each = || defined.iter().map(|(view, _)| *view);
    let options = defined.iter().map(|(_, definition)| BTreeMap::from(definition.options.clone()).into_iter());
    let generation = |view: &JobView| view.state.published;
    let folder = defined
        .iter()
        .map(|(view, definition)| generation(view).map(|generation| definition.generation_folder(generation)));
    Ok(RecordBatch::try_from_iter_with_nullable([
        ("name", texts(each().map(|view| view.name.as_str())), false),
        ("query", texts(defined.iter().map(|(_, definition)| definition.query.as_str())), false),
        ("target", texts(defined.iter().map(|(_, definition)| definition.target.as_str())), false),
        ("format", texts(defined.iter().map(|(_, definition)| definition.format.as_str())), false),
        ("generation", numbers(each().map(generation)), true),
        ("folder", optional_texts(folder), true),
        ("files", numbers(each().map(|view| Some(view.state.output().count() as u64))), false),
        ("running", numbers(each().map(|view| view.state.active.as_ref().map(|active| active.run))), true),
        ("last_run", numbers(each().map(|view| last(view, false).map(|run| run.run))), true),
        (
            "last_status",
            optional_texts(each().map(|view| last(view, false).map(|run| run.status.as_str().to_owned()))),
            true,
        ),
        ("last_success", optional_times(each().map(|view| last(view, true).map(|run| run.ended_at))), true),
        ("options", map(options)?, false),
        ("created_at", times(each().map(|view| view.state.created_at)), false),
        ("created_by", texts(each().map(|view| view.state.created_by.as_str())), false),
    ])?)
}

/// `SHOW JOBS`
pub(super) fn overview(views: &[JobView]) -> DFResult<RecordBatch> {
    let all = jobs(views)?;
    let columns = ["name", "generation", "files", "running", "last_run", "last_status", "last_success", "target"];
    let places = columns.iter().map(|name| all.schema().index_of(name)).collect::<Result<Vec<_>, _>>()?;
    Ok(all.project(&places)?)
}

/// A run, and whether it is under way.
fn runs_of(view: &JobView) -> impl Iterator<Item = (&str, RunSummary, bool)> {
    let running = view.state.active.as_ref().map(|active| active.summary(RunStatus::Done, None, 0));
    let ended = view.state.runs.iter().map(|run| (run.as_ref().clone(), false));
    ended.chain(running.map(|run| (run, true))).map(|(run, running)| (view.name.as_str(), run, running))
}

/// `predict.job_runs`
pub(super) fn runs(views: &[JobView]) -> DFResult<RecordBatch> {
    run_rows(views.iter().flat_map(runs_of).collect())
}

/// A run of the job `job` as the row that `RUN JOB` gives.
///
/// # Errors
/// None that a run can cause.
pub fn job_summary(job: &str, run: &RunSummary) -> DFResult<RecordBatch> {
    let all = run_rows(vec![(job, run.clone(), false)])?;
    let columns = [
        "job",
        "run",
        "status",
        "splits",
        "files_in",
        "files_failed",
        "rows_in",
        "rows_out",
        "rows_set_aside",
        "seconds",
    ];
    let places = columns.iter().map(|name| all.schema().index_of(name)).collect::<Result<Vec<_>, _>>()?;
    Ok(all.project(&places)?)
}

fn run_rows(runs: Vec<(&str, RunSummary, bool)>) -> DFResult<RecordBatch> {
    let each = |value: fn(&RunSummary) -> u64| numbers(runs.iter().map(move |(_, run, _)| Some(value(run))));
    let status = runs.iter().map(|(_, run, running)| if *running { "running" } else { run.status.as_str() });
    let models = runs.iter().map(|(_, run, _)| {
        run.models.iter().map(|model| (model.label.clone(), model.sha256.clone())).collect::<Vec<_>>()
    });
    let machines: Vec<_> =
        runs.iter().map(|(_, run, _)| run.machines.iter().map(String::as_str).collect::<Vec<_>>().join(", ")).collect();
    let ended = |(_, run, running): &(&str, RunSummary, bool)| (!running).then_some(run.ended_at);
    let seconds = runs.iter().map(|row| ended(row).map(|ended| (ended - row.1.started_at) as f64 / 1e6));
    Ok(RecordBatch::try_from_iter_with_nullable([
        ("job", texts(runs.iter().map(|(job, _, _)| *job)), false),
        ("run", each(|run| run.run), false),
        ("reason", texts(runs.iter().map(|(_, run, _)| run.reason.as_str())), false),
        ("status", texts(status), false),
        ("error", optional_texts(runs.iter().map(|(_, run, _)| run.error.clone())), true),
        ("models", map(models.map(Vec::into_iter))?, false),
        ("engines", map(runs.iter().map(|(_, run, _)| run.engines.clone().into_iter()))?, false),
        ("machines", texts(machines.iter().map(String::as_str)), false),
        ("generation", each(|run| run.generation), false),
        ("started_at", times(runs.iter().map(|(_, run, _)| run.started_at)), false),
        ("ended_at", optional_times(runs.iter().map(ended)), true),
        ("started_by", texts(runs.iter().map(|(_, run, _)| run.started_by.as_str())), false),
        ("seconds", Arc::new(seconds.collect::<Float64Array>()), true),
        ("splits", each(|run| u64::from(run.splits)), false),
        ("splits_done", each(|run| u64::from(run.splits_done)), false),
        ("files_in", each(|run| run.files_in), false),
        ("files_failed", each(|run| run.files_failed), false),
        ("rows_in", each(|run| run.rows_in), false),
        ("rows_out", each(|run| run.rows_out), false),
        ("rows_set_aside", each(|run| run.rows_set_aside), false),
        ("bytes_read", each(|run| run.bytes_read), false),
        ("bytes_written", each(|run| run.bytes_written), false),
        ("split_seconds", floats(runs.iter().map(|(_, run, _)| run.split_seconds)), false),
        ("model_seconds", floats(runs.iter().map(|(_, run, _)| run.model_seconds)), false),
    ])?)
}

/// The splits that are known of each run: of those that have ended, and of the one that is under way.
fn splits_of(view: &JobView) -> impl Iterator<Item = (&str, u64, &SplitRecord)> {
    let ended = view.records.iter().flat_map(|record| record.splits.iter().map(|split| (record.summary.run, split)));
    let active = view.state.active.iter().flat_map(|active| active.done.values().map(|split| (active.run, split)));
    ended.chain(active).map(|(run, split)| (view.name.as_str(), run, split.as_ref()))
}

/// `predict.job_splits`: a row for each file of each split that was scored.
pub(super) fn splits(views: &[JobView]) -> DFResult<RecordBatch> {
    let splits: Vec<_> = views.iter().flat_map(splits_of).collect();
    let rows: Vec<_> = splits
        .iter()
        .flat_map(|(job, run, split)| {
            split.inputs.iter().enumerate().map(move |(i, input)| (*job, *run, *split, i, input))
        })
        .collect();
    let each = |value: fn(&SplitRecord) -> u64| numbers(rows.iter().map(move |(_, _, split, ..)| Some(value(split))));
    let outputs = rows.iter().map(|(_, _, split, ..)| {
        let files: Vec<_> = split.files.iter().map(|file| file.path.as_str()).collect();
        Some(files.join(", ")).filter(|files| !files.is_empty())
    });
    Ok(RecordBatch::try_from_iter_with_nullable([
        ("job", texts(rows.iter().map(|row| row.0)), false),
        ("run", numbers(rows.iter().map(|row| Some(row.1))), false),
        ("split", each(|split| u64::from(split.split)), false),
        ("part", numbers(rows.iter().map(|row| Some(row.3 as u64 + 1))), false),
        ("path", texts(rows.iter().map(|row| row.4.path.as_str())), false),
        ("size", numbers(rows.iter().map(|row| Some(row.4.size))), false),
        ("etag", optional_texts(rows.iter().map(|row| row.4.etag.clone())), true),
        ("range_start", numbers(rows.iter().map(|row| row.4.range.map(|range| range.0))), true),
        ("range_end", numbers(rows.iter().map(|row| row.4.range.map(|range| range.1))), true),
        ("output", optional_texts(outputs), true),
        ("rows_in", each(|split| split.rows_in), false),
        ("rows_out", each(|split| split.rows_out), false),
        ("rows_set_aside", each(|split| split.rows_set_aside), false),
        ("started_at", times(rows.iter().map(|row| row.2.started_at)), false),
        ("seconds", floats(rows.iter().map(|row| row.2.seconds)), false),
        ("model_seconds", floats(rows.iter().map(|row| row.2.model_seconds)), false),
        ("engines", map(rows.iter().map(|row| row.2.engines.clone().into_iter()))?, false),
        ("bytes_read", each(|split| split.bytes_read), false),
        ("bytes_written", each(|split| split.bytes_written), false),
        ("attempts", each(|split| u64::from(split.attempts)), false),
        ("worker", texts(rows.iter().map(|row| row.2.worker.as_str())), false),
    ])?)
}

/// `predict.job_errors`: files that could not be scored, files of rows that were set aside, and runs that have failed.
pub(super) fn errors(views: &[JobView]) -> DFResult<RecordBatch> {
    struct Row<'a> {
        job: &'a str,
        run: u64,
        split: Option<u64>,
        kind: &'static str,
        path: Option<String>,
        rows: Option<u64>,
        error: Option<String>,
    }
    let mut rows = vec![];
    for view in views {
        let job = view.name.as_str();
        for (_, run, split) in splits_of(view) {
            let number = Some(u64::from(split.split));
            for failed in &split.failed {
                let (path, error) = (Some(failed.path.clone()), Some(failed.error.clone()));
                rows.push(Row { job, run, split: number, kind: "file", path, rows: None, error });
            }
            for (i, path) in split.set_aside.iter().enumerate() {
                let count = (i == 0).then_some(split.rows_set_aside);
                rows.push(Row {
                    job,
                    run,
                    split: number,
                    kind: "rows",
                    path: Some(path.clone()),
                    rows: count,
                    error: None,
                });
            }
        }
        for run in view.state.runs.iter().filter(|run| run.error.is_some()) {
            let error = run.error.clone();
            rows.push(Row { job, run: run.run, split: None, kind: "run", path: None, rows: None, error });
        }
    }
    Ok(RecordBatch::try_from_iter_with_nullable([
        ("job", texts(rows.iter().map(|row| row.job)), false),
        ("run", numbers(rows.iter().map(|row| Some(row.run))), false),
        ("split", numbers(rows.iter().map(|row| row.split)), true),
        ("kind", texts(rows.iter().map(|row| row.kind)), false),
        ("path", optional_texts(rows.iter().map(|row| row.path.clone())), true),
        ("rows", numbers(rows.iter().map(|row| row.rows)), true),
        ("error", optional_texts(rows.iter().map(|row| row.error.clone())), true),
    ])?)
}

/// `DESCRIBE JOB`: one row for each thing to know.
pub(super) fn description(name: &str, state: &JobState) -> DFResult<RecordBatch> {
    let mut rows: Vec<(&str, String, String)> = vec![];
    let mut row = |kind, name: &str, value: String| rows.push((kind, name.to_owned(), value));
    row("job", "name", name.to_owned());
    if let Some(definition) = &state.definition {
        row("job", "query", definition.query.clone());
        row("job", "target", definition.target.clone());
        row("job", "format", definition.format.clone());
        if !definition.partition_by.is_empty() {
            row("job", "partitioned by", definition.partition_by.join(", "));
        }
        row("job", "set aside", format!("{}set_aside/", definition.work_folder()));
        for check in &definition.checks {
            row("job", "check", check.clone());
        }
        for table in &definition.tables {
            let kind = match &table.kind {
                job::TableKind::View(sql) => sql.clone(),
                job::TableKind::Files(files) => files.locations.join(", "),
                #[allow(unreachable_patterns, reason = "later releases may have more")]
                _ => String::new(),
            };
            row("table", &table.name[2], kind);
        }
        for (option, value) in BTreeMap::from(definition.options.clone()) {
            row("option", &option, value);
        }
        for (option, value) in &definition.format_options {
            row("option", option, value.clone());
        }
        for column in &definition.columns {
            row("column", &column.name, column.data_type.clone());
        }
        for (number, generation) in state.generations.iter().filter(|(_, generation)| generation.published) {
            let (rows, files) = generation
                .splits
                .values()
                .fold((0, 0), |(rows, files), split| (rows + split.rows_out, files + split.files.len()));
            let current = if state.published == Some(*number) { "current: " } else { "" };
            let folder = definition.generation_folder(*number);
            row("generation", &number.to_string(), format!("{current}{folder} ({files} files, {rows} rows)"));
        }
    }
    if let Some(active) = &state.active {
        row("run", &active.run.to_string(), format!("running: {} of {} splits", active.done.len(), active.splits));
    } else if let Some(last) = state.runs.last() {
        let error = last.error.as_ref().map(|error| format!(": {error}")).unwrap_or_default();
        row("run", &last.run.to_string(), format!("{}{error}", last.status.as_str()));
    }
    let column = |value: fn(&(&str, String, String)) -> String| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(rows.iter().map(value)))
    };
    Ok(RecordBatch::try_from_iter([
        ("kind", column(|row| row.0.to_owned())),
        ("name", column(|row| row.1.clone())),
        ("value", column(|row| row.2.clone())),
    ])?)
}
