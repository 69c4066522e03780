//! Wires models into a DataFusion session.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::dataframe::DataFrame;
use datafusion::execution::SessionStateBuilder;
use datafusion::execution::context::{FunctionFactory, QueryPlanner, SessionContext};
use datafusion::optimizer::{Analyzer, Optimizer};
use datafusion::physical_planner::{DefaultPhysicalPlanner, PhysicalPlanner};
use datafusion_predict_udfs::{OnFailure, PredictFunction};

use crate::catalog::{CatalogResolver, MemoryCatalog, ModelCatalog};
use crate::config::PredictConfig;
use crate::engine::ort::OrtEngine;
use crate::engine::{CoreBudget, Engine, NativeEngine};
use crate::error::{Result, bail, error};
use crate::model::{Model, ModelOptions};
use crate::optimizer::{add_analyzer_rules, add_optimizer_rules};
use crate::plan::PredictQueryPlanner;
use crate::predictor::{Predictor, PredictorSource};
use crate::statement::{MlPredictPlanner, OnnxFunctionFactory, run_sql};

/// The models of a process and the engines that run them. Sessions may share one.
#[derive(Debug)]
pub struct PredictRuntime {
    catalog: Arc<dyn ModelCatalog>,
    engines: Arc<[Arc<dyn Engine>]>,
    cores: Arc<CoreBudget>,
}

impl Default for PredictRuntime {
    fn default() -> Self {
        Self::new(None)
    }
}

impl PredictRuntime {
    /// Models in memory, run by our own engine where it can, else by the ONNX Runtime at `onnxruntime` or the one that is
    /// found.
    pub fn new(onnxruntime: Option<PathBuf>) -> Self {
        let cores = Arc::new(CoreBudget::default());
        let engines: [Arc<dyn Engine>; 2] =
            [Arc::new(NativeEngine), Arc::new(OrtEngine::new(onnxruntime, cores.clone()))];
        Self { catalog: Arc::new(MemoryCatalog::default()), engines: Arc::new(engines), cores }
    }

    /// Keeps the models in `catalog`.
    #[must_use]
    pub fn with_catalog(self, catalog: Arc<dyn ModelCatalog>) -> Self {
        Self { catalog, ..self }
    }

    /// Prefers `engine` for the models that it accepts.
    #[must_use]
    pub fn with_engine(mut self, engine: Arc<dyn Engine>) -> Self {
        self.engines = std::iter::once(engine).chain(self.engines.iter().cloned()).collect();
        self
    }

    /// Where the models are kept.
    pub fn catalog(&self) -> &Arc<dyn ModelCatalog> {
        &self.catalog
    }

    /// Reads the model at `uri` and makes it ready. `features` names its features; empty, its own names are taken.
    /// `engine` names the engine that is to run it; `auto` is the first that can.
    ///
    /// # Errors
    /// A file that can't be read, a model that is none or that can't be run, options that do not fit it.
    pub async fn load(
        &self,
        label: &str,
        uri: &str,
        features: Vec<String>,
        options: ModelOptions,
        engine: &str,
    ) -> Result<Arc<Predictor>> {
        let (label, uri, engine) = (label.to_owned(), uri.to_owned(), engine.to_owned());
        let (engines, cores) = (self.engines.clone(), self.cores.clone());
        let load = move || {
            let model = Model::read(&uri).map_err(|error| error.of_model(&label))?;
            Predictor::load(PredictorSource { label, model, features, options, engine }, &engines, &cores)
        };
        match tokio::task::spawn_blocking(load).await {
            Ok(loaded) => loaded,
            Err(cause) => Err(error!(EngineFailed, "loading a model failed").with_source(cause)),
        }
    }
}

/// Brings `predict` and its kin into a session.
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
        if config.options().extensions.get::<PredictConfig>().is_none() {
            config = config.with_option_extension(PredictConfig::default());
        }
        *self.config() = Some(config.with_extension(runtime.clone()));

        let resolver = Arc::new(CatalogResolver::new(runtime.catalog.clone()));
        let functions = [OnFailure::Error, OnFailure::Null].map(|on| PredictFunction::udf(resolver.clone(), on));
        let [predict, _] = &functions;
        let planner = MlPredictPlanner::new(predict.clone());
        self.scalar_functions().get_or_insert_default().extend(functions);
        self.relation_planners().get_or_insert_default().insert(0, Arc::new(planner));

        add_analyzer_rules(self.analyzer().get_or_insert_with(Analyzer::new));
        add_optimizer_rules(self.optimizer().get_or_insert_with(Optimizer::new));
        let planner = match self.query_planner().take() {
            Some(planner) if (planner.as_ref() as &dyn std::any::Any).is::<PredictQueryPlanner>() => planner,
            Some(planner) => Arc::new(PredictQueryPlanner::new(planner)),
            None => Arc::new(PredictQueryPlanner::new(Arc::new(PlainPlanner))),
        };
        *self.query_planner() = Some(planner);
        let factory = OnnxFunctionFactory::new(runtime, self.function_factory().take());
        *self.function_factory() = Some(Arc::new(factory) as Arc<dyn FunctionFactory>);
        self
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

/// DataFusion's own planner, where a builder has none yet.
#[derive(Debug)]
struct PlainPlanner;

#[async_trait]
impl QueryPlanner for PlainPlanner {
    async fn create_physical_plan(
        &self,
        plan: &datafusion::logical_expr::LogicalPlan,
        session: &dyn datafusion::catalog::Session,
    ) -> datafusion::common::Result<Arc<dyn datafusion::physical_plan::ExecutionPlan>> {
        DefaultPhysicalPlanner::default().create_physical_plan(plan, session).await
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
}

#[async_trait]
impl PredictSql for SessionContext {
    async fn predict_sql(&self, sql: &str) -> datafusion::common::Result<DataFrame> {
        run_sql(self, sql).await
    }
}

/// The runtime of a session.
pub(crate) fn runtime_of(context: &SessionContext) -> Result<Arc<PredictRuntime>> {
    match context.state_ref().read().config().get_extension::<PredictRuntime>() {
        Some(runtime) => Ok(runtime),
        None => bail!(InvalidStatement, "this session knows no models: call with_predict first"),
    }
}
