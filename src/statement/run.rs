//! Runs statements.

use std::sync::Arc;

use datafusion::common::{Result as DFResult, plan_datafusion_err, plan_err};
use datafusion::dataframe::DataFrame;
use datafusion::execution::SessionState;
use datafusion::execution::context::SessionContext;
use datafusion::logical_expr::{LogicalPlan, LogicalPlanBuilder, Statement as PlanStatement};
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::dialect::dialect_from_str;

use super::ml_predict::rewrite_tables;
use super::parse::{CreateModel, PredictStatement, parse_sql};
use super::{hints, show};
use crate::config::PredictConfig;
use crate::error::Result;
use crate::optimizer::BindPredict;
use crate::session::{PredictRuntime, runtime_of};

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
    let runtime = runtime_of(context)?;
    runtime.catalog().refresh().await?;
    match statement {
        PredictStatement::CreateModel(create) => {
            create_model(&runtime, create, &engine_of(context)).await?;
            nothing(context)
        }
        PredictStatement::DropModel { name, if_exists } => {
            if !runtime.catalog().remove(&name).await? && !if_exists {
                return Err(runtime.catalog().snapshot().unknown(&name).into());
            }
            nothing(context)
        }
        PredictStatement::ShowModels => context.read_batch(show::models(&runtime.catalog().snapshot())?),
        PredictStatement::DescribeModel { name } => {
            context.read_batch(show::model(runtime.catalog().snapshot().lookup(&name)?, &engine_of(context))?)
        }
        PredictStatement::DataFusion(mut statement) => {
            rewrite_tables(&mut statement);
            let state = context.state();
            let plan = plan(&state, &statement).await;
            let plan = plan.map_err(|error| hints::explain(error, &statement.to_string(), &state))?;
            context.execute_logical_plan(plan).await
        }
    }
}

/// The plan of `statement`, whose calls hold on to the versions that the names have now.
async fn plan(state: &SessionState, statement: &Statement) -> DFResult<LogicalPlan> {
    let plan = state.statement_to_plan(statement.clone()).await?;
    if !holds_on_to_versions(&plan) {
        return Ok(plan);
    }
    let unbound = plan.clone();
    let options = state.config_options();
    let bound = match BindPredict::bind(plan, options) {
        Ok(bound) => bound,
        // A model may have been replaced between planning and binding: once more, with the new types.
        Err(_) => BindPredict::bind(state.statement_to_plan(statement.clone()).await?, options)?,
    };
    if bound != unbound {
        // The types around a call are checked now, so that an error can still be explained.
        state.analyzer().execute_and_check(bound.clone(), state.config_options(), |_, _| {})?;
    }
    Ok(bound)
}

/// The result of a statement that gives no rows.
fn nothing(context: &SessionContext) -> DFResult<DataFrame> {
    Ok(DataFrame::new(context.state(), LogicalPlanBuilder::empty(false).build()?))
}

/// Whether calls are bound now. Views and prepared statements are bound at each use.
fn holds_on_to_versions(plan: &LogicalPlan) -> bool {
    !matches!(plan, LogicalPlan::Ddl(_) | LogicalPlan::Statement(PlanStatement::Prepare(_)))
}

/// The engine that the session chose.
fn engine_of(context: &SessionContext) -> String {
    PredictConfig::of(context.state_ref().read().config_options()).engine
}

async fn create_model(runtime: &Arc<PredictRuntime>, create: CreateModel, engine: &str) -> Result<()> {
    let exists = runtime.catalog().snapshot().get(&create.name).is_some();
    if exists && create.if_not_exists {
        return Ok(());
    }
    if exists && !create.or_replace {
        crate::error::bail!(
            ModelExists,
            "model '{}' exists already: CREATE OR REPLACE MODEL makes a new version",
            create.name
        );
    }
    let predictor = runtime.load(&create.name, &create.uri, create.features, create.options, engine).await?;
    let created = runtime.catalog().create(&create.name, predictor, create.or_replace).await;
    match created {
        // Somebody else was faster, which IF NOT EXISTS allows.
        Err(error) if create.if_not_exists && matches!(error.kind(), crate::ErrorKind::ModelExists) => Ok(()),
        other => other.map(drop),
    }
}
