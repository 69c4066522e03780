//! The end of a run: what was scored is checked, published and put in its place; or it is given up.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use datafusion::common::Result as DFResult;
use datafusion::execution::context::SessionContext;
use futures::{StreamExt, TryStreamExt, stream};
use serde::{Deserialize, Serialize};

use super::checks;
use super::claims::Claims;
use super::events::{Events, JobEvent};
use super::job_log::JobLog;
use super::records::{OutputFile, RunStatus, RunSummary, SplitRecord};
use super::run_plan::RunPlan;
use super::state::{ActiveRun, FORMAT, JobAction, JobState};
use super::target::Target;
use super::worker::stop;
use crate::error::{Result, bail};
use crate::storage::journal::{Formatted, now};

/// Files that are moved at once.
const AT_ONCE: usize = 16;

/// How long output that was taken out stays for readers that began before.
const RETIRED_FOR: Duration = Duration::from_secs(24 * 3600);

/// The file of a run's record.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct RunRecord {
    format: u32,
    pub summary: RunSummary,
    pub query: String,
    pub splits: Vec<Arc<SplitRecord>>,
}

impl Formatted for RunRecord {
    const NEWEST: u32 = FORMAT;

    fn format(&self) -> u32 {
        self.format
    }
}

/// The file of the record of a run that has ended.
pub(super) fn record_file(run: u64) -> String {
    format!("runs/{run}/record.json")
}

pub(super) struct Finisher<'a> {
    pub context: &'a SessionContext,
    pub log: &'a JobLog,
    pub run: u64,
    pub plan: &'a RunPlan,
    pub target: &'a Target,
    pub events: &'a Events,
}

impl Finisher<'_> {
    /// Ends the run, or waits until another process has: one of them does it.
    pub(super) async fn finish(&self, claims: &Claims) -> Result<RunSummary> {
        let mut ours = claims.claim("finish").await?;
        loop {
            let state = self.log.refresh().await?;
            if let Some(ended) = ended(&state, self.run) {
                return Ok(ended);
            }
            if ours {
                return self.end().await;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
            ours = claims.take_over("finish").await?;
        }
    }

    async fn end(&self) -> Result<RunSummary> {
        let state = self.log.refresh().await?;
        let Some(active) = state.active.clone().filter(|active| active.run == self.run) else {
            return ended(&state, self.run).map_or_else(|| bail!(UnknownJob, "the job was dropped"), Ok);
        };
        if active.stopped.is_none() && active.published.is_none() {
            if let Some(problem) = self.problem(&active).await? {
                stop(self.log, self.run, Some(problem)).await?;
            } else if active.held || state.published != Some(active.generation) {
                let (run, retires) = (self.run, self.plan.retires.clone());
                let publish = move |state: &JobState| {
                    let active = state.active.as_ref().filter(|active| active.run == run);
                    let open = active.is_some_and(|it| it.published.is_none() && it.stopped.is_none());
                    Ok(if open { vec![JobAction::Publish { run, retires: retires.clone() }] } else { vec![] })
                };
                self.log.commit(publish).await?;
                self.events.send(JobEvent::Published { generation: active.generation });
            }
        }
        conclude(self.log, self.run, self.plan, self.target).await
    }

    /// Why what was scored is not published.
    async fn problem(&self, active: &ActiveRun) -> Result<Option<String>> {
        let summary = active.summary(RunStatus::Done, None, 0);
        if let Some(threshold) = self.plan.definition.options.error_threshold {
            let share = |part: u64, all: u64| if all == 0 { 0.0 } else { part as f64 / all as f64 };
            let (rows, of_rows) = (summary.rows_set_aside, summary.rows_in);
            if share(rows, of_rows) > threshold {
                return Ok(Some(format!("{rows} of {of_rows} rows were set aside (error_threshold {threshold})")));
            }
            let (files, of_files) = (summary.files_failed, summary.files_in);
            if share(files, of_files) > threshold {
                return Ok(Some(format!("{files} of {of_files} files were set aside (error_threshold {threshold})")));
            }
        }
        if self.plan.definition.checks.is_empty() || self.plan.splits.is_empty() {
            return Ok(None);
        }
        let files: Vec<OutputFile> = active.done.values().flat_map(|split| split.files.iter().cloned()).collect();
        let definition = &self.plan.definition;
        Ok(checks::failed(self.context, definition, self.target, self.run, active.generation, files).await?)
    }
}

/// The summary of a run that has ended.
fn ended(state: &JobState, run: u64) -> Option<RunSummary> {
    state.runs.iter().rev().find(|summary| summary.run == run).map(|summary| summary.as_ref().clone())
}

/// Ends a run that nobody can go on with, or that is not to go on.
pub(super) async fn give_up(
    context: &SessionContext,
    log: &JobLog,
    run: u64,
    plan: &RunPlan,
    error: Option<String>,
) -> DFResult<()> {
    stop(log, run, error).await?;
    let target = Target::open(context, &plan.definition)?;
    conclude(log, run, plan, &target).await?;
    Ok(())
}

/// Puts the files of a run that is published or stopped in their place, and ends it. It may be called again at any time.
pub(super) async fn conclude(log: &JobLog, run: u64, plan: &RunPlan, target: &Target) -> Result<RunSummary> {
    let state = log.refresh().await?;
    let Some(active) = state.active.clone().filter(|active| active.run == run) else {
        return ended(&state, run).map_or_else(|| bail!(UnknownJob, "the job was dropped"), Ok);
    };
    let generation = active.generation;
    if active.published.is_some() {
        // Before the new files come: who lists the folder counts no row twice.
        let moves: Vec<_> = active.retired.iter().map(|file| target.move_out(generation, file)).collect();
        stream::iter(moves).buffer_unordered(AT_ONCE).try_collect::<()>().await?;
    }
    let visible = !active.held || active.published.is_some();
    if visible {
        let staged: HashMap<_, _> = active
            .done
            .values()
            .flat_map(|split| &split.files)
            .map(|file| (target.staged(run, &file.staged), file))
            .collect();
        let there = target.list(&target.staged(run, "")).await?;
        let missing = there.iter().filter_map(|meta| staged.get(&meta.location).copied());
        let moves: Vec<_> = missing.map(|file| target.move_in(run, generation, file)).collect();
        stream::iter(moves).buffer_unordered(AT_ONCE).try_collect::<()>().await?;
    }
    target.remove(&target.staged(run, ""), |_| true).await;
    // A process that was killed late may have left files after its run had ended. Later runs are under way: another process
    // may have concluded this one already.
    for earlier in target.staged_runs().await.unwrap_or_default().range(..run) {
        target.remove(&target.staged(*earlier, ""), |_| true).await;
    }
    // Rows that attempts have set aside which came to nothing.
    let kept: HashSet<String> = active.done.values().flat_map(|split| split.set_aside.iter().cloned()).collect();
    let url = target.url.clone();
    let orphaned = move |file: &object_store::ObjectMeta| !kept.contains(&format!("{}{}", url.as_str(), file.location));
    target.remove(&target.set_aside(run, ""), orphaned).await;

    let (status, error) = match &active.stopped {
        Some(Some(error)) => (RunStatus::Failed, Some(error.clone())),
        Some(None) => (RunStatus::Cancelled, None),
        None if lacks_something(&state, &active) => (RunStatus::DoneWithErrors, None),
        None => (RunStatus::Done, None),
    };
    let record = RunRecord {
        format: FORMAT,
        summary: active.summary(status, error.clone(), now()),
        query: plan.definition.query.clone(),
        splits: active.done.values().cloned().collect(),
    };
    log.write(record_file(run), &record).await?;
    let end = move |state: &JobState| {
        let under_way = state.active.as_ref().is_some_and(|active| active.run == run);
        Ok(if under_way { vec![JobAction::End { run, status, error: error.clone() }] } else { vec![] })
    };
    let state = log.commit(end).await?;
    log.remove_all(format!("runs/{run}/claims")).await;
    log.remove_all(format!("runs/{run}/workers")).await;
    clean(log, &state, plan, target).await;
    if let (Some(url), Some(summary)) = (&plan.definition.options.notify, ended(&state, run)) {
        super::notify::notify(log.name(), url, &summary).await;
    }
    ended(&state, run).map_or_else(|| bail!(UnknownJob, "the job was dropped"), Ok)
}

/// Whether something could not be scored of what this run has scored, or of what earlier ones have and readers still see.
fn lacks_something(state: &JobState, active: &ActiveRun) -> bool {
    let generation = state.generations.get(&active.generation);
    let seen = generation.into_iter().flat_map(|generation| generation.splits.values());
    seen.chain(active.done.values()).any(|split| split.has_errors())
}

/// Removes generations that are not to be kept, and output that was taken out long ago. What can't be removed stays.
async fn clean(log: &JobLog, state: &JobState, plan: &RunPlan, target: &Target) {
    let Some(published) = state.published else { return };
    let keep = plan.definition.options.keep as usize;
    let older: Vec<u64> = state
        .generations
        .iter()
        .filter(|(number, generation)| **number < published && generation.published)
        .map(|(number, _)| *number)
        .collect();
    // Those that a later one has overtaken before they were complete are of no use.
    let unfinished = state.generations.iter().filter(|(number, it)| **number < published && !it.published);
    let kept = older.len().saturating_sub(keep.saturating_sub(1));
    let gone: Vec<u64> = older[..kept].iter().copied().chain(unfinished.map(|(number, _)| *number)).collect();
    for generation in gone {
        let forget = move |state: &JobState| {
            let there = state.generations.contains_key(&generation) && state.published != Some(generation);
            Ok(if there { vec![JobAction::Forget { generation }] } else { vec![] })
        };
        if log.commit(forget).await.is_ok() {
            target.remove(&target.generation(generation), |_| true).await;
            target.remove(&target.retired(generation, ""), |_| true).await;
        }
    }
    // By the store's own times: the newest file tells how late it is there at least.
    if let Ok(retired) = target.list(&target.retired(published, "")).await
        && let Some(newest) = retired.iter().map(|file| file.last_modified).max()
    {
        let old = move |file: &object_store::ObjectMeta| {
            (newest - file.last_modified).to_std().is_ok_and(|age| age > RETIRED_FOR)
        };
        target.remove(&target.retired(published, ""), old).await;
    }
}
