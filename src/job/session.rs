//! The session that a job is run in: as the user's, with the job's own tables, models and stores.

use std::sync::Arc;

use datafusion::catalog::{
    CatalogProvider, CatalogProviderList, MemoryCatalogProvider, MemoryCatalogProviderList, MemorySchemaProvider,
};
use datafusion::common::Result as DFResult;
use datafusion::execution::cache::cache_manager::CacheManagerConfig;
use datafusion::execution::context::SessionContext;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::execution::{SessionState, SessionStateBuilder};
use datafusion::logical_expr::LogicalPlan;
use datafusion_predict_udfs::{ModelResolver, all_functions};

use super::definition::TableDefinition;
use super::stores::{JobStores, Pins};
use super::tables;
use crate::catalog::CatalogSnapshot;
use crate::config::PredictConfig;
use crate::error::{Error, ErrorKind};
use crate::optimizer::BindPredict;
use crate::resolver::CatalogResolver;
use crate::runtime::PredictRuntime;
use crate::storage::journal::timestamp;

/// A session for one run.
pub(super) struct JobSession {
    pub context: SessionContext,
    pub pins: Arc<Pins>,
    runtime: Arc<PredictRuntime>,
    /// What `now()` is: the start of the run, in microseconds since 1970.
    at: i64,
}

impl JobSession {
    /// A session like that of `context`, in which a plan has `partitions` partitions, models are those of `snapshot`, and
    /// tables are `tables` alone.
    pub(super) async fn new(
        context: &SessionContext,
        snapshot: Arc<CatalogSnapshot>,
        tables: &[TableDefinition],
        partitions: usize,
        at: i64,
    ) -> DFResult<Self> {
        let runtime = PredictRuntime::of_session(context)?;
        let state = context.state();
        let environment = state.runtime_env();
        let pins = Arc::<Pins>::default();
        let stores = JobStores::new(environment.object_store_registry.clone(), pins.clone());
        let environment = RuntimeEnvBuilder::from_runtime_env(environment)
            .with_object_store_registry(Arc::new(stores))
            .with_cache_manager(CacheManagerConfig::default()) // what there was earlier is not what there is
            .build_arc()?;
        let mut config = state.config().clone();
        let options = config.options_mut();
        options.execution.target_partitions = partitions;
        options.execution.collect_statistics = false; // each file would be looked into before the first is scored
        options.optimizer.repartition_file_scans = false; // files are cut into splits instead
        options.optimizer.enable_aggregate_dynamic_filter_pushdown = false; // copies of a plan would share what one has seen
        let defaults = options.catalog.clone();
        let catalogs = MemoryCatalogProviderList::new();
        let catalog = MemoryCatalogProvider::new();
        catalog.register_schema(&defaults.default_schema, Arc::new(MemorySchemaProvider::new()))?;
        catalogs.register_catalog(defaults.default_catalog, Arc::new(catalog));
        let resolver: Arc<dyn ModelResolver> = Arc::new(CatalogResolver::pinned(runtime.clone(), snapshot));
        let mut builder = SessionStateBuilder::new_from_existing(state)
            .with_session_id(uuid::Uuid::new_v4().to_string())
            .with_config(config)
            .with_runtime_env(environment)
            .with_catalog_list(Arc::new(catalogs));
        builder.scalar_functions().get_or_insert_default().extend(all_functions(&resolver));
        let session = SessionContext::new_with_state(builder.build());
        tables::register(&session, tables).await?;
        Ok(Self { context: session, pins, runtime, at })
    }

    /// The state that its plans are made with.
    pub(super) fn state(&self) -> SessionState {
        let mut state = self.context.state();
        state.execution_props_mut().query_execution_start_time = timestamp(self.at);
        state
    }

    /// The plan of a query, whose calls hold on to the versions of the session's models.
    pub(super) async fn plan(&self, query: &str) -> DFResult<LogicalPlan> {
        let state = self.state();
        let dialect = state.config_options().sql_parser.dialect;
        let statement = state.sql_to_statement(query, &dialect)?;
        let engine = PredictConfig::of(state.config_options()).engine;
        loop {
            let planned = async {
                let plan = state.statement_to_plan(statement.clone()).await?;
                BindPredict::bind(plan, state.config_options())
            };
            let planned = planned.await;
            // A version that was not run when it was created has no known types until it is loaded.
            let Err(error) = &planned else { return planned };
            let Some(ours) = Error::find(error).filter(|ours| ours.kind() == ErrorKind::NotLoaded) else {
                return planned;
            };
            let Some(version) = ours.subject() else { return planned };
            let version = self.runtime.catalog().snapshot().lookup(version)?.clone();
            self.runtime.registry().handle_after_loading(&version, &engine).await?;
        }
    }
}
