//! Runs statements.

use std::sync::Arc;

use datafusion::common::{DataFusionError, Result as DFResult, plan_datafusion_err, plan_err};
use datafusion::dataframe::DataFrame;
use datafusion::execution::SessionState;
use datafusion::execution::context::SessionContext;
use datafusion::logical_expr::{LogicalPlan, LogicalPlanBuilder, Statement as PlanStatement};
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::dialect::{GenericDialect, dialect_from_str};
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};

use super::parse::{PredictStatement, parse_sql};
use super::relation::rewrite_tables;
use super::{hints, show, tables};
use crate::catalog::Change;
use crate::config::PredictConfig;
use crate::error::{Error, ErrorKind};
use crate::optimizer::BindPredict;
use crate::runtime::PredictRuntime;
use crate::session::runtime_of;

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
    let config = config_of(context);
    let catalog = runtime.catalog();
    runtime.loader().limit(&config);
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
        PredictStatement::ShowVersions { name } => {
            catalog.refresh().await?;
            let snapshot = catalog.snapshot();
            context.read_batch(show::versions(snapshot.model(&name)?, &runtime)?)
        }
        PredictStatement::DescribeModel { name } => {
            catalog.refresh().await?;
            let snapshot = catalog.snapshot();
            let version = snapshot.lookup(&name)?;
            let loaded = runtime.loader().load(version).await;
            context.read_batch(show::model(&snapshot, version, loaded, &config.engine)?)
        }
        PredictStatement::DataFusion(mut statement) => {
            rewrite_tables(&mut statement);
            let state = context.state();
            let plan = plan(&state, &statement, &runtime).await;
            let plan = plan.map_err(|error| hints::explain(error, &statement.to_string(), &state))?;
            context.execute_logical_plan(plan).await
        }
    }
}

/// The plan of `statement`, whose calls hold on to the versions that the names have now.
async fn plan(state: &SessionState, statement: &Statement, runtime: &PredictRuntime) -> DFResult<LogicalPlan> {
    // Statements that have nothing to do with models do not wait for the catalog.
    let mentions = references(statement);
    let mut fresh = mentions.any;
    if mentions.any {
        runtime.catalog().refresh().await?;
        prefetch(runtime, &mentions.models).await?;
    }
    let planned = match state.statement_to_plan(statement.clone()).await {
        // A view may call a model that others have made since.
        Err(error) if !fresh && Error::find(&error).is_some_and(|it| it.kind() == ErrorKind::UnknownModel) => {
            runtime.catalog().refresh().await?;
            fresh = true;
            state.statement_to_plan(statement.clone()).await
        }
        planned => planned,
    };
    let mut plan = planned?;
    if !fresh && tables::are_read(&plan)? {
        runtime.catalog().refresh().await?; // the tables, and what EXECUTE binds, look at it later
    }
    if !holds_on_to_versions(&plan) {
        return Ok(plan);
    }
    let options = state.config_options();
    if !fresh && BindPredict::is_needed(&plan)? {
        let before = runtime.catalog().snapshot();
        runtime.catalog().refresh().await?;
        if !Arc::ptr_eq(&before, &runtime.catalog().snapshot()) {
            plan = state.statement_to_plan(statement.clone()).await?;
        }
    }
    let unbound = plan.clone();
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

/// What a statement says about models.
#[derive(Default)]
struct References {
    /// Whether it may need to know what there is.
    any: bool,
    /// The names that its calls give.
    models: Vec<String>,
}

/// The calls of models in `statement`, and its tables of models.
fn references(statement: &Statement) -> References {
    let text = statement.to_string();
    let lower = text.to_lowercase();
    let any = ["predict", "ml_compare"].iter().any(|word| lower.contains(word));
    let mut models = vec![];
    if any && let Ok(tokens) = Tokenizer::new(&GenericDialect {}, &text).tokenize() {
        let tokens: Vec<_> = tokens.into_iter().filter(|token| !matches!(token, Token::Whitespace(_))).collect();
        // The string in `predict('m', …)` and in `model => 'm'`.
        models.extend(tokens.windows(3).filter_map(|tokens| match tokens {
            [_, Token::RArrow, Token::SingleQuotedString(name)] => Some(name.clone()),
            [Token::Word(function), Token::LParen, Token::SingleQuotedString(name)] => {
                let ours = ["predict", "try_predict"].iter().any(|known| function.value.eq_ignore_ascii_case(known));
                ours.then(|| name.clone())
            }
            _ => None,
        }));
        models.sort();
        models.dedup();
    }
    References { any, models }
}

/// Loads the models that are about to be called, while nothing waits. What can't be loaded is said when it is called.
///
/// # Errors
/// A trial run that took too long: it would not be shorter when the call is bound.
async fn prefetch(runtime: &PredictRuntime, models: &[String]) -> DFResult<()> {
    let snapshot = runtime.catalog().snapshot();
    for name in models {
        let Ok(called) = snapshot.called(name) else { continue };
        for (version, _) in called {
            match runtime.loader().load(version).await {
                Err(error) if error.kind() == ErrorKind::RunTooLong => return Err(error.into()),
                Err(error) => log::debug!("model '{}' is not loaded yet: {error}", version.label()),
                Ok(_) => {}
            }
        }
    }
    Ok(())
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
