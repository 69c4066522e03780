//! Everything that SQL can show: runs the files in `tests/slt`, each in a session of its own.
//!
//! `SLT_UPDATE=1 cargo test --workspace --test slt` writes the results that it finds into the files.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::common::DataFusionError;
use datafusion::physical_plan::execute_stream;
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion_predict::{Error, PredictExt, PredictRuntime, PredictSql};
use datafusion_sqllogictest::{
    DFColumnType, DFOutput, DFSqlLogicTestError, convert_batches, convert_schema_to_types, df_value_validator,
    value_normalizer,
};
use futures::TryStreamExt;
use sqllogictest::{AsyncDB, DBOutput, Runner, strict_column_validator};

struct Session(SessionContext);

#[async_trait]
impl AsyncDB for Session {
    type Error = DFSqlLogicTestError;
    type ColumnType = DFColumnType;

    async fn run(&mut self, sql: &str) -> Result<DFOutput, Self::Error> {
        self.query(sql).await.map_err(|error| match Error::find(&error) {
            Some(ours) => DFSqlLogicTestError::Other(ours.to_string()),
            None => error.into(),
        })
    }

    fn engine_name(&self) -> &str {
        "datafusion-predict"
    }

    async fn shutdown(&mut self) {}
}

impl Session {
    fn new() -> Self {
        let config = SessionConfig::new().with_target_partitions(2).with_information_schema(true);
        Self(
            SessionContext::new_with_config(config)
                .with_predict(Arc::new(PredictRuntime::builder().with_file_functions().build())),
        )
    }

    async fn query(&self, sql: &str) -> Result<DFOutput, DataFusionError> {
        let frame = self.0.predict_sql(sql).await?;
        let plan = frame.create_physical_plan().await?;
        let schema = plan.schema();
        let batches: Vec<_> = execute_stream(plan, self.0.task_ctx())?.try_collect().await?;
        if schema.fields().is_empty() && batches.iter().all(|batch| batch.num_rows() == 0) {
            return Ok(DBOutput::StatementComplete(0));
        }
        let types = convert_schema_to_types(schema.fields());
        let rows =
            convert_batches(&schema, batches, false).map_err(|error| DataFusionError::External(Box::new(error)))?;
        Ok(DBOutput::Rows { types, rows })
    }
}

fn files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/slt");
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .expect("the folder of the tests")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "slt"))
        .filter(|path| std::env::var("SLT_FILE").map_or(true, |only| path.ends_with(only)))
        .collect();
    files.sort();
    files
}

#[tokio::test(flavor = "multi_thread")]
async fn sqllogictests() {
    let mut failures = vec![];
    for file in files() {
        let mut runner = Runner::new(|| async { Ok(Session::new()) });
        runner.with_column_validator(strict_column_validator);
        runner.with_normalizer(value_normalizer);
        runner.with_validator(df_value_validator);
        let result = match std::env::var_os("SLT_UPDATE") {
            Some(_) => runner
                .update_test_file(&file, " ", df_value_validator, value_normalizer, strict_column_validator)
                .await
                .map_err(|error| error.to_string()),
            None => runner.run_file_async(&file).await.map_err(|error| error.to_string()),
        };
        if let Err(error) = result {
            failures.push(format!("{}: {error}", file.display()));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}
