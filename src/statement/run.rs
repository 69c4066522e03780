//! Runs statements.

use std::sync::Arc;

use datafusion::common::{DataFusionError, Result as DFResult, plan_datafusion_err, plan_err};
use datafusion::dataframe::DataFrame;
use datafusion::execution::SessionState;
use datafusion::execution::context::SessionContext;
use datafusion::logical_expr::{LogicalPlan, LogicalPlanBuilder, Statement as PlanStatement};
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::dialect::dialect_from_str;

use super::job_rows::{self, JobView};
use super::parse::{PredictStatement, parse_sql};
use super::relation::rewrite_tables;
use super::{devices, hints, show, tables};
use crate::background;
use crate::catalog::Change;
use crate::config::PredictConfig;
use crate::error::{Error, ErrorKind};
use crate::job::{Job, named_outputs, pin_outputs, with_outputs};
use crate::optimizer::BindPredict;
use crate::plan::PredictQueryPlanner;
use crate::runtime::PredictRuntime;

/// Parses and runs the one statement of `sql`.
pub(crate) async fn run_sql(context: &SessionContext, sql: &str) -> DFResult<DataFrame> {
    let mut statements = {
        let dialect = context.state_ref().read().config_options().sql_parser.dialect;
        let dialect = dialect_from_str(dialect).ok_or_else(|| plan_datafusion_err!("unknown SQL dialect {dialect}"))?;
        parse_sql(sql, dialect.as_ref())?
    };
    match (statements.pop(), statements.is_empty()) {
        (Some(statement), true) => run_statement(context, statement).await,
        (Some(_), false) => plan_err!("expected one statement, found several: run them one by one"),
        (None, _) => plan_err!("no statement"),
    }
}

/// Runs `statement`, with the models as they are now. Those of ours have run when this returns.
///
/// # Errors
/// As [`SessionContext::sql`]; for ours, what is wrong with the model or its name.
pub async fn run_statement(context: &SessionContext, statement: PredictStatement) -> DFResult<DataFrame> {
    let runtime = PredictRuntime::of_session(context)?;
    PredictQueryPlanner::keep(context);
    let config = config_of(context);
    let catalog = runtime.catalog();
    match statement {
        PredictStatement::CreateModel(create) => {
            catalog.refresh().await?;
            let before = catalog.snapshot().get(&create.name).and_then(|model| model.default_version()).cloned();
            let created = runtime.create(&create, &config.engine).await?;
            context.read_batch(show::created(&runtime, &create, before.as_deref(), created.as_deref())?)
        }
        PredictStatement::DropModel { name, version, if_exists } => {
            let change = match version {
                None => Change::DropModel { model: name },
                Some(version) => Change::DropVersion { model: name, version },
            };
            catalog.refresh().await?;
            match catalog.commit(change).await {
                Err(error) if if_exists && error.kind() == ErrorKind::UnknownModel => nothing(context),
                done => done.map_err(DataFusionError::from).and_then(|_| nothing(context)),
            }
        }
        PredictStatement::AlterModel(change) => {
            catalog.refresh().await?;
            catalog.commit(change).await?;
            nothing(context)
        }
        PredictStatement::ShowModels => {
            catalog.refresh().await?;
            context.read_batch(show::models(&runtime)?)
        }
        PredictStatement::ShowDevices => {
            let runtime = runtime.clone();
            context.read_batch(background::blocking(move || Ok(devices::devices(&runtime)?)).await?)
        }
        PredictStatement::ShowVersions { name } => {
            catalog.refresh().await?;
            let snapshot = catalog.snapshot();
            context.read_batch(show::versions(snapshot.model(&name)?, &runtime)?)
        }
        PredictStatement::DescribeModel { name } => {
            catalog.refresh().await?;
            let snapshot = catalog.snapshot();
            let version = snapshot.lookup(&name)?;
            let registry = runtime.registry();
            let loaded = match registry.handle_after_loading(version, &config.engine).await {
                Ok(handle) => registry.load(&handle).await,
                Err(error) => Err(error),
            };
            context.read_batch(show::model(&snapshot, version, loaded)?)
        }
        PredictStatement::CreateJob(create) => {
            let query = create.definition.query.clone();
            let created = Job::create(context, *create).await;
            created.map_err(|error| hints::explain(error, &query, &context.state()))?;
            nothing(context)
        }
        PredictStatement::AlterJob { name, options } => {
            Job::open(context, &name).await?.alter(options).await?;
            nothing(context)
        }
        PredictStatement::DropJob { name, if_exists } => match Job::open(context, &name).await {
            Err(error) if if_exists && error.kind() == ErrorKind::UnknownJob => nothing(context),
            job => {
                job?.drop_job().await?;
                nothing(context)
            }
        },
        PredictStatement::RunJob { name, reason } => {
            let summary = Job::open(context, &name).await?.run(context, reason).finish().await?;
            context.read_batch(job_rows::job_summary(&name, &summary)?)
        }
        PredictStatement::CancelJob { name } => {
            Job::open(context, &name).await?.cancel(context).await?;
            nothing(context)
        }
        PredictStatement::RollbackJob { name, to } => {
            Job::open(context, &name).await?.rollback(to).await?;
            nothing(context)
        }
        PredictStatement::ShowJobs => {
            let views = JobView::all(&runtime, false).await?;
            context.read_batch(job_rows::overview(&views)?)
        }
        PredictStatement::DescribeJob { name } => {
            let job = Job::open(context, &name).await?;
            context.read_batch(job_rows::description(&name, job.state().await?.as_ref())?)
        }
        PredictStatement::DataFusion(mut statement) => {
            rewrite_tables(&mut statement);
            let state = context.state();
            let plan = plan_after_loading(&state, &statement, &runtime, &config.engine).await;
            let plan = plan.map_err(|error| hints::explain(error, &statement.to_string(), &state))?;
            context.execute_logical_plan(plan).await
        }
    }
}

/// As [`plan`]; where the catalog does not know the types of a version's calls, since it was not run when it was created, the
/// model is loaded by `engine` to learn them.
async fn plan_after_loading(
    state: &SessionState,
    statement: &Statement,
    runtime: &PredictRuntime,
    engine: &str,
) -> DFResult<LogicalPlan> {
    loop {
        let planned = plan(state, statement, runtime).await;
        let Err(error) = &planned else { return planned };
        let Some(ours) = Error::find(error).filter(|ours| ours.kind() == ErrorKind::NotLoaded) else { return planned };
        let Some(version) = ours.subject() else { return planned };
        let version = runtime.catalog().snapshot().lookup(version)?.clone();
        runtime.registry().handle_after_loading(&version, engine).await?;
    }
}

/// The plan of `statement`, whose calls hold on to the versions that the names have now.
async fn plan(state: &SessionState, statement: &Statement, runtime: &PredictRuntime) -> DFResult<LogicalPlan> {
    // Statements that have nothing to do with models do not wait for the catalog.
    let mut fresh = may_call_models(statement);
    if fresh {
        runtime.catalog().refresh().await?;
    }
    let plan = loop {
        let planned = with_outputs(runtime, named_outputs(statement), state.statement_to_plan(statement.clone())).await;
        match &planned {
            Ok(plan) if fresh || !depends_on_models(plan)? => break planned?,
            // What is called is a view's, a prepared statement's or a table's: it is planned with what there is now.
            Ok(_) => fresh = true,
            Err(error) => match Error::find(error) {
                Some(ours) if !fresh && ours.kind() == ErrorKind::UnknownModel => fresh = true,
                _ => return planned,
            },
        }
        let before = runtime.catalog().snapshot();
        runtime.catalog().refresh().await?;
        if let Ok(plan) = planned
            && Arc::ptr_eq(&before, &runtime.catalog().snapshot())
        {
            break plan; // nothing has changed
        }
    };
    if !holds_on_to_versions(&plan) {
        return Ok(plan);
    }
    let plan = pin_outputs(plan).await?;
    let unbound = plan.clone();
    let bound = BindPredict::bind(plan, state.config_options())?;
    if bound != unbound {
        // The types around a call are checked now, so that an error can still be explained.
        state.analyzer().execute_and_check(bound.clone(), state.config_options(), |_, _| {})?;
    }
    Ok(bound)
}

/// Whether `statement` names what calls models, or a table of models.
fn may_call_models(statement: &Statement) -> bool {
    let text = statement.to_string().to_lowercase();
    ["predict", "ml_compare", "embed", "classify", "rerank"].iter().any(|word| text.contains(word))
}

/// Whether what `plan` gives depends on what the catalog holds.
fn depends_on_models(plan: &LogicalPlan) -> DFResult<bool> {
    Ok(tables::are_read(plan)? || (holds_on_to_versions(plan) && BindPredict::is_needed(plan)?))
}

/// The result of a statement that gives no rows.
fn nothing(context: &SessionContext) -> DFResult<DataFrame> {
    Ok(DataFrame::new(context.state(), LogicalPlanBuilder::empty(false).build()?))
}

/// Whether calls are bound now. Views and prepared statements are bound at each use.
fn holds_on_to_versions(plan: &LogicalPlan) -> bool {
    !matches!(plan, LogicalPlan::Ddl(_) | LogicalPlan::Statement(PlanStatement::Prepare(_)))
}

/// The session's options.
fn config_of(context: &SessionContext) -> PredictConfig {
    PredictConfig::of(context.state_ref().read().config_options())
}
