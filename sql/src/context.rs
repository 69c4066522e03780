//! The session that statements run in.

use std::env;
use std::num::NonZeroUsize;
use std::sync::Arc;

use datafusion::config::ConfigOptions;
use datafusion::error::Result;
use datafusion::execution::cache::cache_manager::CacheManagerConfig;
use datafusion::execution::memory_pool::{GreedyMemoryPool, TrackConsumersPool};
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::logical_expr::ExplainFormat;
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion_cli::catalog::DynamicObjectStoreCatalog;
use datafusion_cli::functions::{ListFilesCacheFunc, MetadataCacheFunc, ParquetMetadataFunc, StatisticsCacheFunc};
use datafusion_cli::object_storage::StdinCarriesCommands;
use datafusion_predict::{PredictExt, PredictRuntime};

use crate::args::Args;

/// How many of the largest consumers an error about memory names.
const NAMED_CONSUMERS: NonZeroUsize = NonZeroUsize::new(3).expect("3 is not 0");

/// A session like datafusion-cli's, with the models of `predict`.
///
/// # Errors
/// Options in the environment that DataFusion refuses.
pub(crate) async fn build(args: &Args, predict: Arc<PredictRuntime>, sql_on_stdin: bool) -> Result<SessionContext> {
    // Which files a folder holds is asked anew by each query: DataFusion's cache would show those of the first one for ever.
    let caches = CacheManagerConfig::default().with_list_files_cache_limit(0);
    let mut runtime = RuntimeEnvBuilder::new().with_cache_manager(caches);
    if let Some(limit) = args.memory_limit {
        runtime =
            runtime.with_memory_pool(Arc::new(TrackConsumersPool::new(GreedyMemoryPool::new(limit), NAMED_CONSUMERS)));
    }
    let context = SessionContext::new_with_config_rt(config(sql_on_stdin)?, runtime.build_arc()?)
        .enable_url_table()
        .with_predict(predict);
    context.refresh_catalogs().await?;
    // Files and URLs as tables: their object stores are registered when they are first named.
    let catalogs = context.state().catalog_list().clone();
    context.register_catalog_list(Arc::new(DynamicObjectStoreCatalog::new(catalogs, context.state_weak_ref())));

    let caches = context.task_ctx().runtime_env().cache_manager.clone();
    context.register_udtf("parquet_metadata", Arc::new(ParquetMetadataFunc {}));
    context.register_udtf("metadata_cache", Arc::new(MetadataCacheFunc::new(caches.clone())));
    context.register_udtf("statistics_cache", Arc::new(StatisticsCacheFunc::new(caches.clone())));
    context.register_udtf("list_files_cache", Arc::new(ListFilesCacheFunc::new(caches)));
    Ok(context)
}

fn config(sql_on_stdin: bool) -> Result<SessionConfig> {
    let mut options = ConfigOptions::from_env()?;
    if env::var_os("DATAFUSION_EXPLAIN_FORMAT").is_none() {
        options.explain.format = ExplainFormat::Tree;
    }
    if env::var_os("DATAFUSION_FORMAT_NULL").is_none() {
        options.format.null = "NULL".to_owned();
    }
    let config = SessionConfig::from(options).with_information_schema(true);
    Ok(match sql_on_stdin {
        // LOCATION '/dev/stdin' would take the SQL itself for data.
        true => config.with_extension(Arc::new(StdinCarriesCommands)),
        false => config,
    })
}
