//! Jobs: queries whose rows are written again and again, every row once, whatever fails meanwhile.
//!
//! ```text
//!  CREATE JOB ─► definition ─► journal (catalog) ◄──────────────┐ what is decided, commit by commit
//!                                 │                             │
//!  RUN JOB ─► plan: inputs with their versions, models, splits  │
//!                │                                              │
//!                ▼                                              │
//!             worker ─► claim ─► score ─► staged file ─► commit ┤ any number of processes
//!                                                               │
//!             finish ─► checks ─► publish ─► files in place ────┘ one of them
//! ```
//!
//! What the journal says has happened; all else may be lost or done twice. A split is scored when the journal says so, and
//! its output is what the journal names: a process that dies leaves files that nobody looks at.

mod checks;
mod claims;
mod definition;
mod enter;
mod events;
mod failure;
mod finish;
mod input_table;
mod job_log;
mod notify;
mod options;
mod output;
mod output_store;
mod query;
mod records;
mod run_plan;
mod score;
mod session;
mod set_aside;
mod splits;
mod splittable;
mod state;
mod stores;
mod table_function;
mod tables;
mod tap;
mod target;
mod worker;

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use datafusion::common::runtime::SpawnedTask;
use datafusion::common::{DFSchema, Result as DFResult};
use datafusion::execution::context::SessionContext;
use datafusion::sql::parser::Statement;
use futures::{Stream, StreamExt};
use tokio::sync::mpsc;

pub use definition::{Column, FilesDefinition, JobDefinition, TableDefinition, TableKind};
pub use events::JobEvent;
pub(crate) use finish::RunRecord;
pub(crate) use job_log::JobFolder;
pub use options::{JobOptions, OnFileError, OnLookupChange, OnRowError};
pub use records::{FileError, InputFile, OutputFile, RunModel, RunStatus, RunSummary, SplitRecord};
pub use run_plan::RunReason;
pub(crate) use state::JobState;
pub(crate) use table_function::{JobOutputFunction, named_outputs, pin_outputs, with_outputs};

use crate::catalog::author;
use crate::error::{Error, ErrorKind, Result, bail, error};
use crate::runtime::PredictRuntime;
use crate::storage::journal::now;
use claims::Claims;
use events::Events;
use finish::{Finisher, record_file};
use job_log::JobLog;
use session::JobSession;
use state::JobAction;
use target::Target;
use worker::Worker;

/// Where a runtime's catalog keeps its jobs.
pub(crate) fn folder(runtime: &PredictRuntime) -> Result<JobFolder> {
    match runtime.catalog().jobs() {
        Some(folder) => Ok(JobFolder::new(folder, author())),
        None => bail!(
            InvalidStatement,
            "jobs need a catalog, where they are kept: start the shell with --catalog, or give PredictRuntime one"
        ),
    }
}

/// A job of a catalog.
///
/// ```
/// # #[tokio::main] async fn main() -> datafusion::error::Result<()> {
/// use std::sync::Arc;
/// use datafusion::prelude::SessionContext;
/// use datafusion_predict::{Job, JobEvent, ObjectStoreCatalog, PredictExt, PredictRuntime, PredictSql, RunReason};
/// use futures::StreamExt;
///
/// let folder = std::env::temp_dir().join(format!("jobs-{}", std::process::id()));
/// let catalog = ObjectStoreCatalog::open(&folder.join("catalog").to_string_lossy()).await?;
/// let runtime = PredictRuntime::builder().with_catalog(Arc::new(catalog)).build();
/// let context = SessionContext::new().enable_url_table().with_predict(Arc::new(runtime));
/// context.predict_sql("CREATE MODEL iris FEATURES (sepal_length_cm, sepal_width_cm, petal_length_cm, petal_width_cm)
///     FROM 'tests/models/sklearn/iris_forest.onnx'").await?;
/// context.predict_sql(&format!(
///     "CREATE JOB flowers AS
///      COPY (SELECT predict('iris', t.*) AS p FROM 'tests/models/sklearn/iris_forest.parquet' t)
///      TO '{}/scores/' STORED AS PARQUET",
///     folder.display()
/// )).await?;
///
/// let mut run = Job::open(&context, "flowers").await?.run(&context, RunReason::New);
/// while let Some(event) = run.next().await {
///     if let JobEvent::Split { done, splits, .. } = event {
///         println!("{done} of {splits}");
///     }
/// }
/// assert_eq!(run.finish().await?.rows_out, 150);
/// let scores = context.predict_sql("SELECT * FROM job_output('flowers')").await?;
/// assert_eq!(scores.count().await?, 150);
/// # std::fs::remove_dir_all(folder)?;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct Job {
    log: JobLog,
}

/// What `CREATE JOB` says.
#[derive(Debug, Clone, PartialEq)]
pub struct CreateJob {
    /// The folded name.
    pub name: String,
    /// Whether a job of this name is changed.
    pub or_replace: bool,
    /// Whether a job of this name is no error.
    pub if_not_exists: bool,
    /// The job, without the tables and columns that are found when it is created.
    pub definition: JobDefinition,
}

impl Job {
    /// The job `name` of the catalog of `context`.
    ///
    /// # Errors
    /// A catalog that keeps no jobs, a job that is not there.
    pub async fn open(context: &SessionContext, name: &str) -> Result<Self> {
        let runtime = PredictRuntime::of_session(context)?;
        Self::open_in(&folder(&runtime)?, name).await
    }

    async fn open_in(jobs: &JobFolder, name: &str) -> Result<Self> {
        let name = crate::catalog::fold_name(name)?;
        let log = jobs.open(&name).await?;
        if log.state().await.definition.is_none() {
            let all = Self::all_in(jobs).await?;
            let names: Vec<_> = all.iter().map(|job| job.name().to_owned()).collect();
            return Err(job_log::unknown(&name, &names));
        }
        Ok(Self { log })
    }

    /// All jobs of the catalog of `context`, by name.
    ///
    /// # Errors
    /// A catalog that keeps no jobs, or that can't be read.
    pub async fn all(context: &SessionContext) -> Result<Vec<Self>> {
        let runtime = PredictRuntime::of_session(context)?;
        Self::all_in(&folder(&runtime)?).await
    }

    pub(crate) async fn all_in(jobs: &JobFolder) -> Result<Vec<Self>> {
        let mut names = jobs.names().await?;
        names.sort();
        let opening: Vec<_> = names.iter().map(|name| jobs.open(name)).collect();
        let opened: Vec<Result<JobLog>> = futures::stream::iter(opening).buffered(16).collect().await;
        let mut all = vec![];
        for log in opened {
            let log = log?;
            if log.state().await.definition.is_some() {
                all.push(Self { log });
            }
        }
        Ok(all)
    }

    /// Makes the job that `create` describes; `false` if there is one, and that is no error.
    ///
    /// # Errors
    /// A job that is there already or is running, a query that can't be run as a job.
    pub async fn create(context: &SessionContext, create: CreateJob) -> DFResult<bool> {
        let runtime = PredictRuntime::of_session(context)?;
        let jobs = folder(&runtime)?;
        let log = jobs.open(&create.name).await?;
        let CreateJob { name, or_replace, if_not_exists, definition } = create;
        if log.state().await.definition.is_some() && !or_replace {
            if if_not_exists {
                return Ok(false);
            }
            return Err(exists(&name).into());
        }
        let owner = log.state().await.owner.clone();
        let definition = completed(context, &runtime, definition, owner).await?;
        let define = {
            let name = name.clone();
            move |state: &JobState| {
                if state.definition.is_some() && !or_replace {
                    return Err(exists(&name));
                }
                still(state, &name)?;
                Ok(vec![JobAction::Define { definition: Box::new(definition.clone()) }])
            }
        };
        match log.commit(define).await {
            // Somebody else was faster, which IF NOT EXISTS allows.
            Err(error) if if_not_exists && error.kind() == ErrorKind::JobExists => Ok(false),
            done => Ok(done.map(|_| true)?),
        }
    }

    /// The folded name.
    pub fn name(&self) -> &str {
        self.log.name()
    }

    /// What the job is.
    ///
    /// # Errors
    /// A job that was dropped, a catalog that can't be read.
    pub async fn definition(&self) -> Result<Arc<JobDefinition>> {
        let state = self.log.refresh().await?;
        state.definition.clone().ok_or_else(|| error!(UnknownJob, "unknown job '{}'", self.name()))
    }

    /// The runs that have ended, the last one at the end.
    ///
    /// # Errors
    /// A catalog that can't be read.
    pub async fn runs(&self) -> Result<Vec<Arc<RunSummary>>> {
        Ok(self.log.refresh().await?.runs.clone())
    }

    /// What the run that is under way has done until now, if there is one.
    ///
    /// # Errors
    /// A catalog that can't be read.
    pub async fn running(&self) -> Result<Option<RunSummary>> {
        let state = self.log.refresh().await?;
        Ok(state.active.as_ref().map(|active| active.summary(RunStatus::Done, None, 0)))
    }

    /// What the job is at this moment.
    pub(crate) async fn state(&self) -> Result<Arc<JobState>> {
        self.log.refresh().await
    }

    /// The record of a run that has ended.
    pub(crate) async fn record(&self, run: u64) -> Result<Option<RunRecord>> {
        self.log.read(record_file(run)).await
    }

    /// Changes options: each name with its value; `default` is the default again.
    ///
    /// # Errors
    /// A job that is running, options that there are not.
    pub async fn alter(&self, options: Vec<(String, String)>) -> Result<()> {
        let name = self.name().to_owned();
        let alter = move |state: &JobState| {
            still(state, &name)?;
            let Some(definition) = &state.definition else { bail!(UnknownJob, "unknown job '{name}'") };
            let mut changed = definition.as_ref().clone();
            for (option, value) in &options {
                changed.options.set(option, value)?;
            }
            let same = changed == **definition;
            Ok(if same { vec![] } else { vec![JobAction::Define { definition: Box::new(changed) }] })
        };
        self.log.commit(alter).await.map(drop)
    }

    /// Forgets the job; its output stays.
    ///
    /// # Errors
    /// A job that is running.
    pub async fn drop_job(&self) -> Result<()> {
        let name = self.name().to_owned();
        let drop = move |state: &JobState| {
            still(state, &name)?;
            Ok(if state.definition.is_some() { vec![JobAction::Drop {}] } else { vec![] })
        };
        self.log.commit(drop).await.map(|_| ())
    }

    /// Ends the run that is under way, wherever; `false` if there is none.
    ///
    /// # Errors
    /// A catalog or an output that can't be reached.
    pub async fn cancel(&self, context: &SessionContext) -> DFResult<bool> {
        let state = self.log.refresh().await?;
        let Some(active) = &state.active else { return Ok(false) };
        let plan = run_plan::read(&self.log, &active.plan).await?;
        finish::give_up(context, &self.log, active.run, &plan, None).await?;
        Ok(true)
    }

    /// Readers see an earlier generation again: `to`, or the one before.
    ///
    /// # Errors
    /// A generation that is not there, a job that is running.
    pub async fn rollback(&self, to: Option<u64>) -> Result<u64> {
        let name = self.name().to_owned();
        let rollback = move |state: &JobState| {
            still(state, &name)?;
            let there: Vec<u64> = state
                .generations
                .iter()
                .filter(|(_, generation)| generation.published)
                .map(|(number, _)| *number)
                .collect();
            let before = there.iter().rev().find(|number| state.published.is_none_or(|now| **number < now));
            let list = || there.iter().map(u64::to_string).collect::<Vec<_>>().join(", ");
            let generation = match to {
                Some(to) if there.contains(&to) => to,
                Some(to) => bail!(InvalidStatement, "job '{name}' has no generation {to}: there are {}", list()),
                None => match before {
                    Some(before) => *before,
                    None => bail!(InvalidStatement, "job '{name}' has no generation before: there are {}", list()),
                },
            };
            let same = state.published == Some(generation);
            Ok(if same { vec![] } else { vec![JobAction::Rollback { generation }] })
        };
        let state = self.log.commit(rollback).await?;
        Ok(state.published.unwrap_or_default())
    }

    /// Begins a run, or joins the one that is under way, and works at it. Dropping what is returned ends that; another
    /// process, or the next call, goes on.
    pub fn run(&self, context: &SessionContext, reason: RunReason) -> JobRun {
        let (sender, events) = mpsc::unbounded_channel();
        let (log, context) = (self.log.clone(), context.clone());
        let task = SpawnedTask::spawn(async move { run(&context, log, reason, Events(sender)).await });
        JobRun { events, task }
    }
}

/// A run that this process takes part in: a stream of events, and what has become of it.
#[derive(Debug)]
pub struct JobRun {
    events: mpsc::UnboundedReceiver<JobEvent>,
    task: SpawnedTask<DFResult<RunSummary>>,
}

impl JobRun {
    /// Waits for the end of the run.
    ///
    /// # Errors
    /// A run that has failed or was cancelled.
    pub async fn finish(self) -> DFResult<RunSummary> {
        self.task
            .join()
            .await
            .unwrap_or_else(|cause| Err(error!(RunFailed, "a run has panicked").with_source(cause).into()))
    }
}

impl Stream for JobRun {
    type Item = JobEvent;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<JobEvent>> {
        self.events.poll_recv(context)
    }
}

fn exists(name: &str) -> Error {
    error!(JobExists, "job '{name}' exists already: CREATE OR REPLACE JOB changes it")
}

/// Refuses a change of a job that is running.
fn still(state: &JobState, name: &str) -> Result<()> {
    match &state.active {
        Some(active) => bail!(
            InvalidStatement,
            "job '{name}' is running (run {}): RUN JOB goes on with it, CANCEL JOB ends it",
            active.run
        ),
        None => Ok(()),
    }
}

/// The definition with the tables that its query names and the columns that it gives, checked as a run would.
async fn completed(
    context: &SessionContext,
    runtime: &Arc<PredictRuntime>,
    mut definition: JobDefinition,
    owner: Option<String>,
) -> DFResult<JobDefinition> {
    let state = context.state();
    let dialect = state.config_options().sql_parser.dialect;
    let statement: Statement = state.sql_to_statement(&definition.query, &dialect)?;
    definition.tables = tables::captured(context, &statement).await?;
    runtime.catalog().refresh().await?;
    let snapshot = runtime.catalog().snapshot();
    let session = JobSession::new(context, snapshot, &definition.tables, 1, now()).await?;
    let query = query::JobQuery::plan(session, &definition).await?;
    score::format_of(&query.session.context.state(), &definition)?;
    let schema = query.schema();
    for column in &definition.partition_by {
        if schema.field_with_name(column).is_err() {
            let near =
                datafusion_predict_udfs::nearest(column, schema.fields().iter().map(|field| field.name().as_str()));
            let hint = near.map(|near| format!("; did you mean '{near}'?")).unwrap_or_default();
            return Err(error!(InvalidJob, "PARTITIONED BY: the query has no column '{column}'{hint}").into());
        }
    }
    if schema.fields().len() == definition.partition_by.len() {
        return Err(error!(InvalidJob, "the output has no columns beside those of PARTITIONED BY").into());
    }
    let mut definition = definition.with_columns(&schema)?;
    let fields = definition.columns.iter().map(Column::field).collect::<Result<Vec<_>>>()?;
    let output = DFSchema::from_unqualified_fields(fields.into(), Default::default())?;
    checks::parse(&query.session.context, &definition.checks, &output)?;
    tables::check_target(&definition)?;
    let target = Target::open(context, &definition)?;
    definition.owner = target.own(owner).await?;
    Ok(definition)
}

async fn run(context: &SessionContext, log: JobLog, reason: RunReason, events: Events) -> DFResult<RunSummary> {
    loop {
        let entered = enter::enter(context, &log, reason).await?;
        let state = log.state().await;
        let number = entered.run;
        let Some(active) = state.active.clone().filter(|active| active.run == number) else { continue };
        let (plan, definition) = (entered.plan.clone(), entered.plan.definition.clone());
        let done = u32::try_from(active.done.len()).unwrap_or(u32::MAX);
        events.send(JobEvent::Entered { run: number, joined: entered.joined, splits: active.splits, done });
        log::info!(
            "job '{}': run {number} {}, {done} of {} splits are done",
            log.name(),
            if entered.joined { "goes on" } else { "begins" },
            active.splits
        );
        let target = Target::open(&entered.query.session.context, &definition)?;
        let claims = Claims::enter(log.clone(), number, definition.options.lease).await?;
        let format = score::format_of(&entered.query.session.context.state(), &definition)?;
        let cores = context.state().config().target_partitions();
        let workers = if definition.options.one_split { 1 } else { definition.options.workers.unwrap_or(cores) };
        let workers = workers.clamp(1, active.splits.max(1) as usize);
        let scorer = score::SplitScorer {
            job: log.name().to_owned(),
            run: number,
            salt: active.plan.clone(),
            definition: definition.clone(),
            query: entered.query,
            target: target.clone(),
            format,
            worker: format!("{}@{}", claims.id(), log.author().rsplit('@').next().unwrap_or_default()),
        };
        let worker = Worker::new(log.clone(), number, plan.clone(), Arc::new(scorer), claims.clone(), events.clone());
        let finisher = Finisher { context, log: &log, run: number, plan: &plan, target: &target, events: &events };
        if let Err(error) = claims.beat_during(worker.work(workers)).await {
            log::error!("job '{}': run {number} fails: {error}", log.name());
            worker.stop(Some(error.to_string())).await?;
            let summary = claims.beat_during(finisher.finish(&claims)).await?;
            events.send(JobEvent::Ended(Box::new(summary)));
            return Err(error.within(&format!("job '{}', run {number}", log.name())).into());
        }
        let summary = claims.beat_during(finisher.finish(&claims)).await?;
        let failed = matches!(summary.status, RunStatus::Failed | RunStatus::Cancelled);
        log::log!(
            if failed { log::Level::Error } else { log::Level::Info },
            "job '{}': run {number} has ended: {}, {} rows in, {} rows out, {} rows set aside, {} files failed",
            log.name(),
            summary.status.as_str(),
            summary.rows_in,
            summary.rows_out,
            summary.rows_set_aside,
            summary.files_failed
        );
        events.send(JobEvent::Ended(Box::new(summary.clone())));
        return match (summary.status, &summary.error) {
            // What was asked for is another run than the one that was under way.
            _ if entered.joined && reason != RunReason::New && reason.as_str() != active.reason => continue,
            (RunStatus::Done | RunStatus::DoneWithErrors, _) => Ok(summary),
            (RunStatus::Cancelled, _) if entered.joined && active.stopped.is_some() => continue,
            (RunStatus::Failed, _) if entered.joined && active.stopped.is_some() => continue,
            (RunStatus::Cancelled, _) => {
                Err(error!(Cancelled, "job '{}': run {number} was cancelled", log.name()).into())
            }
            (RunStatus::Failed, cause) => {
                let cause = cause.as_deref().unwrap_or("unknown");
                Err(error!(RunFailed, "job '{}': run {number} has failed: {cause}", log.name()).into())
            }
        };
    }
}
