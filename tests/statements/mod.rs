//! Runs statements in a session with models.

use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::error::Result as DFResult;
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion_predict::{PredictExt, PredictRuntime, PredictSql};

/// A session with a runtime of its own, whose queries have so many partitions.
pub(crate) fn session(partitions: usize) -> SessionContext {
    let context = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(partitions));
    context.with_predict(Arc::new(PredictRuntime::default()))
}

async fn run(context: &SessionContext, sql: &str) -> DFResult<Vec<RecordBatch>> {
    context.predict_sql(sql).await?.collect().await
}

/// The rows of the statement.
pub(crate) async fn sql(context: &SessionContext, text: &str) -> Vec<RecordBatch> {
    run(context, text).await.unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// The error of the statement.
pub(crate) async fn error(context: &SessionContext, text: &str) -> String {
    match run(context, text).await {
        Ok(_) => panic!("{text}: no error"),
        Err(error) => error.to_string(),
    }
}
