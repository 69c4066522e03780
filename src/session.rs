//! Wires models into a DataFusion session.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::catalog::{
    CatalogProvider, MemoryCatalogProvider, MemoryCatalogProviderList, MemorySchemaProvider, TableFunction,
};
use datafusion::dataframe::DataFrame;
use datafusion::execution::FunctionRegistry;
use datafusion::execution::SessionStateBuilder;
use datafusion::execution::context::{FunctionFactory, SessionContext};
use datafusion::logical_expr::planner::RelationPlanner;
use datafusion::logical_expr::{Expr, lit};
use datafusion::optimizer::{Analyzer, Optimizer};
use datafusion::physical_optimizer::optimizer::PhysicalOptimizer;
use datafusion_predict_udfs::{ModelResolver, all_functions, vector_avg};

use crate::cancel::CancelToken;
use crate::config::PredictConfig;
use crate::files::{FilesFunction, read_blob_functions};
use crate::job::JobOutputFunction;
use crate::optimizer::{add_analyzer_rules, add_optimizer_rules, add_physical_optimizer_rules};
use crate::plan::PredictQueryPlanner;
use crate::resolver::CatalogResolver;
use crate::runtime::PredictRuntime;
use crate::statement::{CatalogSchema, MlComparePlanner, MlPredictPlanner, OnnxFunctionFactory, run_sql};

/// Brings `predict` and its kin into a session.
///
/// ```
/// use std::sync::Arc;
/// use datafusion::execution::SessionStateBuilder;
/// use datafusion::prelude::SessionContext;
/// use datafusion_predict::{PredictExt, PredictRuntime};
///
/// let runtime = Arc::new(PredictRuntime::default()); // sessions share one
/// let first = SessionContext::new().with_predict(runtime.clone());
/// let state = SessionStateBuilder::new().with_default_features().with_predict(runtime).build();
/// let second = SessionContext::new_with_state(state);
/// # assert!(first.udf("predict").is_ok() && second.udf("predict").is_ok());
/// # use datafusion::execution::FunctionRegistry;
/// ```
pub trait PredictExt: Sized {
    /// Adds the functions, the rules, the planner and the options under `predict.`; calling it twice adds nothing.
    ///
    /// On a builder, rules, planner or function factory that are set *after* this call replace ours.
    #[must_use]
    fn with_predict(self, runtime: Arc<PredictRuntime>) -> Self;
}

impl PredictExt for SessionStateBuilder {
    fn with_predict(mut self, runtime: Arc<PredictRuntime>) -> Self {
        let mut config = self.config().take().unwrap_or_default();
        let engines = runtime.registry().engines();
        let first = config.get_extension::<PredictRuntime>().is_none();
        let options = PredictConfig::of(config.options()).with_engines(engines.iter().map(|engine| engine.name()));
        config = config.with_option_extension(options);
        *self.config() = Some(config.with_extension(runtime.clone()));

        let resolver: Arc<dyn ModelResolver> = Arc::new(CatalogResolver::new(runtime.clone()));
        self.scalar_functions().get_or_insert_default().extend(all_functions(&resolver));
        #[cfg(feature = "images")]
        self.scalar_functions().get_or_insert_default().push(crate::functions::image_info());
        let has_files = runtime.registry().has_file_functions();
        if has_files {
            self.scalar_functions().get_or_insert_default().extend(read_blob_functions());
        }
        self.aggregate_functions().get_or_insert_default().push(vector_avg());
        if first {
            let planners: [Arc<dyn RelationPlanner>; 2] = [Arc::new(MlPredictPlanner), Arc::new(MlComparePlanner)];
            self.relation_planners().get_or_insert_default().splice(0..0, planners);
            let factory = OnnxFunctionFactory::new(self.function_factory().take());
            *self.function_factory() = Some(Arc::new(factory) as Arc<dyn FunctionFactory>);
        }
        let output = Arc::new(JobOutputFunction::new(runtime.clone()));
        let output = Arc::new(TableFunction::new(JobOutputFunction::NAME.to_owned(), output));
        self.table_functions().get_or_insert_default().insert(JobOutputFunction::NAME.to_owned(), output);
        if has_files {
            let files = Arc::new(TableFunction::new(FilesFunction::NAME.to_owned(), Arc::new(FilesFunction)));
            self.table_functions().get_or_insert_default().entry(FilesFunction::NAME.to_owned()).or_insert(files);
        }
        add_tables(&mut self, &runtime);

        add_analyzer_rules(self.analyzer().get_or_insert_with(Analyzer::new));
        add_optimizer_rules(self.optimizer().get_or_insert_with(Optimizer::new));
        add_physical_optimizer_rules(self.physical_optimizers().get_or_insert_with(PhysicalOptimizer::new));
        let planner = self.query_planner().take();
        *self.query_planner() = Some(PredictQueryPlanner::around(planner));
        self
    }
}

/// Adds the schema `predict` to the default catalog, if there is one or the builder is to make one.
fn add_tables(builder: &mut SessionStateBuilder, runtime: &Arc<PredictRuntime>) {
    let Some(config) = builder.config().clone() else { return };
    let defaults = &config.options().catalog;
    let catalogs = builder.catalog_list().get_or_insert_with(|| Arc::new(MemoryCatalogProviderList::new())).clone();
    let catalog = catalogs.catalog(&defaults.default_catalog).or_else(|| {
        let make = config.create_default_catalog_and_schema();
        make.then(|| {
            let catalog: Arc<dyn CatalogProvider> = Arc::new(MemoryCatalogProvider::new());
            // Names are new: nothing refuses them.
            let _ = catalog.register_schema(&defaults.default_schema, Arc::new(MemorySchemaProvider::new()));
            catalogs.register_catalog(defaults.default_catalog.clone(), catalog.clone());
            catalog
        })
    });
    if let Some(catalog) = catalog {
        *builder.config() = Some(config.with_create_default_catalog_and_schema(false));
        let taken = catalog.schema(CatalogSchema::NAME);
        if taken.is_some_and(|schema| !(schema.as_ref() as &dyn std::any::Any).is::<CatalogSchema>()) {
            log::warn!("the tables of models are not there: the schema '{}' is in use", CatalogSchema::NAME);
            return;
        }
        if let Err(error) = catalog.register_schema(CatalogSchema::NAME, Arc::new(CatalogSchema::new(runtime.clone())))
        {
            log::warn!("there are no tables of models: {error}");
        }
    }
}

impl PredictExt for SessionContext {
    /// Changes the session that all clones of this context share.
    fn with_predict(self, runtime: Arc<PredictRuntime>) -> Self {
        {
            let state = self.state_ref();
            let mut state = state.write();
            let id = state.session_id().to_owned();
            let builder = SessionStateBuilder::new_from_existing(state.clone()).with_session_id(id);
            *state = builder.with_predict(runtime).build();
        }
        self
    }
}

/// SQL with statements about models.
#[async_trait]
pub trait PredictSql {
    /// Runs one statement: ours (`CREATE MODEL`, `SHOW MODELS` …), or any of DataFusion's.
    ///
    /// It sees the models as they are now; a plain [`SessionContext::sql`] sees them as of the last such call.
    ///
    /// # Errors
    /// Those of [`SessionContext::sql`], and a session without [`PredictExt::with_predict`].
    async fn predict_sql(&self, sql: &str) -> datafusion::common::Result<DataFrame>;

    /// `predict('model', argument, …)` as an expression, for [`DataFrame`]s.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> datafusion::error::Result<()> {
    /// use std::sync::Arc;
    /// use datafusion::prelude::{ParquetReadOptions, SessionContext, col};
    /// use datafusion_predict::{PredictExt, PredictRuntime, PredictSql};
    ///
    /// let context = SessionContext::new().with_predict(Arc::new(PredictRuntime::default()));
    /// context.predict_sql("CREATE MODEL linear FROM 'tests/models/queries/linear.onnx'").await?;
    /// let points = context.sql("SELECT 1.0 AS a, 2.0 AS b").await?;
    /// let scored = points.with_column("score", context.predict("linear", [col("a"), col("b")])?)?;
    /// assert_eq!(scored.collect().await?[0].num_columns(), 3);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// A session without [`PredictExt::with_predict`]. What is wrong with the model or its arguments is said when the
    /// expression becomes part of a plan.
    fn predict(&self, model: &str, arguments: impl IntoIterator<Item = Expr>) -> datafusion::common::Result<Expr>
    where
        Self: Sized;

    /// Ends the calls that the session's next queries make as functions when `token` is cancelled.
    ///
    /// Calls that are nodes of the plan end when the query is dropped. A call that stayed a function (`predict.extract` off,
    /// the conditions of DELETE) blocks the very task that would be dropped.
    ///
    /// The token is the session's, so statements that run at the same time need sessions of their own. One that was cancelled
    /// stays so: put a new one in its place.
    fn cancel_calls_with(&self, token: CancelToken);
}

#[async_trait]
impl PredictSql for SessionContext {
    async fn predict_sql(&self, sql: &str) -> datafusion::common::Result<DataFrame> {
        run_sql(self, sql).await
    }

    fn predict(&self, model: &str, arguments: impl IntoIterator<Item = Expr>) -> datafusion::common::Result<Expr> {
        Ok(self.udf("predict")?.call(std::iter::once(lit(model)).chain(arguments).collect()))
    }

    fn cancel_calls_with(&self, token: CancelToken) {
        let state = self.state_ref();
        let mut state = state.write();
        if let Some(config) = state.config_mut().options_mut().extensions.get_mut::<PredictConfig>() {
            config.cancel = token;
        }
    }
}
