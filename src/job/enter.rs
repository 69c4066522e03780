//! Begins a run, or joins the one that is under way.

use std::collections::BTreeSet;
use std::sync::Arc;

use datafusion::common::Result as DFResult;
use datafusion::execution::context::SessionContext;

use super::job_log::JobLog;
use super::query::JobQuery;
use super::records::RunModel;
use super::run_plan::{RunPlan, RunReason, file_of, read};
use super::session::JobSession;
use super::splits::{Cut, SMALLEST, Work, work};
use super::state::{FORMAT, Generation, JobAction, JobState, SplitKey};
use super::target::Target;
use crate::catalog::ModelPin;
use crate::error::{Result, error};
use crate::runtime::PredictRuntime;
use crate::storage::journal::now;

/// A run that this process takes part in.
pub(super) struct Entered {
    pub run: u64,
    pub plan: Arc<RunPlan>,
    pub query: JobQuery,
    /// Whether another process has begun it.
    pub joined: bool,
}

/// Begins a run, or joins the one that is under way.
///
/// # Errors
/// A job that is not there, a query that can't be run.
pub(super) async fn enter(context: &SessionContext, log: &JobLog, reason: RunReason) -> DFResult<Entered> {
    let runtime = PredictRuntime::of_session(context)?;
    loop {
        let state = log.refresh().await?;
        let Some(definition) = state.definition.clone() else {
            return Err(error!(UnknownJob, "unknown job '{}'", log.name()).into());
        };
        if let Some(active) = &state.active {
            if active.stopped.is_some() || active.published.is_some() {
                // All that is left is to put files in their place.
                let plan = read(log, &active.plan).await?;
                let target = Target::open(context, &plan.definition)?;
                super::finish::conclude(log, active.run, &plan, &target).await?;
                continue;
            }
            if let Some(entered) = join(context, log, active.run, &active.plan).await? {
                return Ok(entered);
            }
            continue; // it has ended meanwhile
        }
        runtime.catalog().refresh().await?;
        let snapshot = runtime.catalog().snapshot();
        let cores = context.state().config().target_partitions();
        let partitions = if definition.options.one_split { cores } else { 1 };
        let at = now();
        let session = JobSession::new(context, snapshot.clone(), &definition.tables, partitions, at).await?;
        let mut query = JobQuery::plan(session, &definition).await?;
        let definition = Arc::new(definition.with_columns(&query.schema())?); // a model may give another type now
        let names: BTreeSet<_> = query.models.iter().map(|model| model.name()).collect();
        let pins: Vec<ModelPin> = names.into_iter().map(|name| snapshot.pin(name)).collect::<Result<_>>()?;
        let fingerprint = query.fingerprint(&definition, &pins);
        let (generation, before) = generation_of(&state, &fingerprint, reason);
        let again = |key: &SplitKey| {
            reason == RunReason::Retry && before.splits.get(key).is_some_and(|split| split.has_errors())
        };
        let one_split = definition.options.one_split;
        let inputs = if one_split { query.lookups().to_vec() } else { query.inputs() };
        if inputs.is_empty() && !before.splits.is_empty() && reason != RunReason::Full {
            return Err(error!(
                RunFailed,
                "job '{}': there are no input files any more, where there were some: all output would go; if that is meant, RUN JOB {} FULL",
                log.name(),
                log.name()
            )
            .into());
        }
        let workers = definition.options.workers.unwrap_or(cores);
        let cut = Cut {
            size: definition.options.split_size,
            cores: workers,
            smallest_part: query.reads_ranges().then_some(SMALLEST),
            one_split,
        };
        let Work { splits, retires } = work(&inputs, &before, again, cut);
        let plan = RunPlan {
            format: FORMAT,
            at,
            pins,
            splits,
            retires,
            lookups: query.lookups().to_vec(),
            definition: definition.clone(),
        };
        let id = uuid::Uuid::new_v4().simple().to_string();
        log.write(file_of(&id), &plan).await?;
        let held = definition.publishes_at_end() || !plan.retires.is_empty();
        let splits = u32::try_from(plan.splits.len()).unwrap_or(u32::MAX);
        let decided = state.sequence;
        let model = |model: &Arc<crate::catalog::ModelHandle>| RunModel {
            label: model.label().to_owned(),
            sha256: model.record().sha256.clone(),
        };
        let models: Vec<_> = query.models.iter().map(model).collect();
        let start = {
            let id = id.clone();
            move |state: &JobState| {
                if state.sequence != decided {
                    return Ok(vec![]); // somebody has begun one, or has changed the job
                }
                let run = state.last_run + 1;
                let (plan, fingerprint, reason) = (id.clone(), fingerprint.clone(), reason.as_str().to_owned());
                let (models, definition) = (models.clone(), definition.clone());
                Ok(vec![JobAction::Start {
                    run,
                    plan,
                    generation,
                    fingerprint,
                    definition,
                    splits,
                    held,
                    reason,
                    models,
                }])
            }
        };
        let state = log.commit(start).await?;
        match &state.active {
            Some(active) if active.plan == id => {
                fix(&mut query, &plan);
                return Ok(Entered { run: active.run, plan: Arc::new(plan), query, joined: false });
            }
            _ => continue,
        }
    }
}

/// The generation that a run writes to, and what there is of it.
fn generation_of(state: &JobState, fingerprint: &str, reason: RunReason) -> (u64, Arc<Generation>) {
    let fits = |generation: &Arc<Generation>| generation.fingerprint == fingerprint;
    let published = state.published.and_then(|number| Some((number, state.generations.get(&number)?)));
    if reason != RunReason::Full {
        if let Some((number, generation)) = published.filter(|(_, generation)| fits(generation)) {
            return (number, generation.clone());
        }
        // One that a run has begun to write, which did not come to its end.
        let begun = state.generations.iter().rev().find(|(_, generation)| !generation.published && fits(generation));
        if let Some((number, generation)) = begun {
            return (*number, generation.clone());
        }
    }
    (state.last_generation + 1, Arc::default())
}

/// Joins a run; `None` if it has ended meanwhile.
async fn join(context: &SessionContext, log: &JobLog, run: u64, id: &str) -> DFResult<Option<Entered>> {
    let plan = read(log, id).await?;
    let runtime = PredictRuntime::of_session(context)?;
    runtime.catalog().refresh().await?;
    let pinned = runtime.catalog().snapshot().with_pins(&plan.pins);
    let cores = context.state().config().target_partitions();
    let partitions = if plan.definition.options.one_split { cores } else { 1 };
    let query = async {
        let session = JobSession::new(context, Arc::new(pinned?), &plan.definition.tables, partitions, plan.at).await?;
        JobQuery::plan(session, &plan.definition).await
    };
    let mut query = match query.await {
        Ok(query) => query,
        Err(cause) => {
            let ours = crate::error::Error::find(&cause);
            if ours.is_some_and(|ours| ours.kind() == crate::error::ErrorKind::UnknownModel) {
                // Nobody will ever score it.
                super::finish::give_up(context, log, run, &plan, Some(cause.to_string())).await?;
            }
            if log.refresh().await?.active.as_ref().is_none_or(|active| active.run != run) {
                return Ok(None);
            }
            return Err(cause);
        }
    };
    fix(&mut query, &plan);
    Ok(Some(Entered { run, plan: Arc::new(plan), query, joined: true }))
}

/// The inputs are those of the plan from now on.
fn fix(query: &mut JobQuery, plan: &RunPlan) {
    query.fix(plan.splits.iter().flat_map(|split| split.inputs.iter().cloned()), plan.lookups.clone());
}
