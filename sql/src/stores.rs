//! Object stores (s3, gs, http …) with the options of the statement that names them.
//!
//! datafusion-cli registers a store only while it runs a statement, so that is what it is made to do here.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::common::exec_datafusion_err;
use datafusion::dataframe::DataFrame;
use datafusion::error::Result;
use datafusion::execution::TaskContext;
use datafusion::execution::context::SessionState;
use datafusion::logical_expr::{LogicalPlan, LogicalPlanBuilder};
use datafusion::object_store::ObjectStore;
use datafusion::prelude::SessionContext;
use datafusion::sql::parser::{CopyToSource, Statement};
use datafusion_cli::cli_context::CliSessionContext;
use datafusion_cli::exec::exec_from_commands;
use datafusion_cli::object_storage::instrumented::InstrumentedObjectStoreRegistry;
use datafusion_cli::print_format::PrintFormat;
use datafusion_cli::print_options::{MaxRows, PrintOptions};
use datafusion_predict::PredictStatement;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use url::Url;

/// Whether `statement` is a CREATE EXTERNAL TABLE.
pub(crate) fn is_external_table(statement: &PredictStatement) -> bool {
    match statement {
        PredictStatement::DataFusion(statement) => matches!(statement.as_ref(), Statement::CreateExternalTable(_)),
        _ => false,
    }
}

/// Runs the CREATE EXTERNAL TABLE `sql`, with the store of its location.
pub(crate) async fn create_external_table(context: &SessionContext, sql: &str, workers: &Handle) -> Result<()> {
    execute(context.clone(), sql.to_owned(), workers).await
}

/// Registers the store that a COPY writes to.
pub(crate) async fn register_target(
    context: &SessionContext,
    statement: &PredictStatement,
    workers: &Handle,
) -> Result<()> {
    let PredictStatement::DataFusion(inner) = statement else {
        return Ok(());
    };
    let Statement::CopyTo(copy) = inner.as_ref() else {
        return Ok(());
    };
    if !copy.target.contains("://") || copy.target.starts_with("file://") {
        return Ok(());
    }
    // The same target and options; the source may hold what only our own planning understands.
    let mut stand_in = copy.clone();
    stand_in.source = CopyToSource::Relation(vec!["information_schema".into(), "tables".into()].into());
    stand_in.partitioned_by.clear();
    stand_in.target = format!("'{}'", copy.target.replace('\'', "''")); // its text has no quotes
    execute(PlanOnly(context.clone()), stand_in.to_string(), workers).await
}

/// Has datafusion-cli run `sql`. Dropping the future ends that.
async fn execute(context: impl CliSessionContext + Send + 'static, sql: String, workers: &Handle) -> Result<()> {
    // Its futures stay on one thread, but their connections should live with those of queries, on the workers.
    let (_held, dropped) = oneshot::channel::<()>();
    let handle = workers.clone();
    let task = workers.spawn_blocking(move || {
        let options = silent();
        let work = exec_from_commands(&context, vec![sql], &options);
        handle.block_on(async {
            tokio::select! {
                ended = work => ended,
                _ = dropped => Ok(()),
            }
        })
    });
    task.await.map_err(|error| exec_datafusion_err!("{error}"))?
}

fn silent() -> PrintOptions {
    PrintOptions {
        format: PrintFormat::Csv,
        quiet: true,
        maxrows: MaxRows::Unlimited,
        color: false,
        instrumented_registry: Arc::new(InstrumentedObjectStoreRegistry::new()),
    }
}

/// A session in which plans have no effect.
struct PlanOnly(SessionContext);

#[async_trait]
impl CliSessionContext for PlanOnly {
    fn task_ctx(&self) -> Arc<TaskContext> {
        self.0.task_ctx()
    }

    fn session_state(&self) -> SessionState {
        self.0.state()
    }

    fn register_object_store(&self, url: &Url, store: Arc<dyn ObjectStore>) -> Option<Arc<dyn ObjectStore>> {
        self.0.register_object_store(url, store)
    }

    fn register_table_options_extension_from_scheme(&self, scheme: &str) {
        CliSessionContext::register_table_options_extension_from_scheme(&self.0, scheme);
    }

    async fn execute_logical_plan(&self, _plan: LogicalPlan) -> Result<DataFrame> {
        Ok(DataFrame::new(self.0.state(), LogicalPlanBuilder::empty(false).build()?))
    }
}

#[cfg(test)]
mod tests {
    use datafusion::execution::object_store::ObjectStoreUrl;
    use datafusion::sql::sqlparser::dialect::GenericDialect;
    use datafusion_predict::parse_sql;

    use super::*;

    #[tokio::test]
    async fn the_store_of_a_copy_is_registered_without_planning_its_source() -> Result<()> {
        let context =
            SessionContext::new_with_config(datafusion::prelude::SessionConfig::new().with_information_schema(true));
        let sql = "COPY (SELECT unknown(a) FROM nowhere) TO 'gs://bucket/o.parquet' PARTITIONED BY (a)
                   OPTIONS ('gcp.service_account_path' '/nowhere', 'format.compression' 'zstd(3)')";
        let statements = parse_sql(sql, &GenericDialect {})?;
        let error =
            register_target(&context, &statements[0], &Handle::current()).await.expect_err("the key is not there");
        assert!(error.to_string().contains("/nowhere"), "{error}");

        let sql = "COPY nowhere TO 'https://example.com/o' STORED AS CSV";
        register_target(&context, &parse_sql(sql, &GenericDialect {})?[0], &Handle::current()).await?;
        assert!(context.runtime_env().object_store(ObjectStoreUrl::parse("https://example.com")?).is_ok());
        Ok(())
    }
}
