//! Models in an application's own session: `cargo run --example embedding`
//!
//! The session is built from a `SessionStateBuilder`, the model is loaded from Rust, and the predictions come back as
//! Arrow record batches.

use std::sync::Arc;

use datafusion::arrow::array::AsArray;
use datafusion::arrow::datatypes::Float32Type;
use datafusion::error::Result;
use datafusion::execution::SessionStateBuilder;
use datafusion::prelude::{ParquetReadOptions, SessionConfig, SessionContext};
use datafusion_predict::{ModelOptions, PredictExt, PredictRuntime, PredictSql};
use futures::TryStreamExt;

#[tokio::main]
async fn main() -> Result<()> {
    let runtime = Arc::new(PredictRuntime::default());
    let state = SessionStateBuilder::new_with_default_features()
        .with_config(SessionConfig::new().with_target_partitions(2))
        .with_predict(runtime.clone())
        .build();
    let ctx = SessionContext::new_with_state(state);

    // The catalog is at hand without SQL.
    let options = ModelOptions::from_pairs([("output", "variable")])?;
    let model =
        runtime.load("progression", "tests/models/sklearn/diabetes_forest.onnx", vec![], options, "auto").await?;
    println!("{} runs on {} ({})", model.model().uri(), model.engine(), model.device());
    runtime.register("progression", model, false).await?;

    let data = "tests/models/sklearn/diabetes_forest.parquet";
    ctx.register_parquet("patients", data, ParquetReadOptions::default()).await?;
    let sql = "SELECT predict('progression', age, sex, bmi, bp, s1, s2, s3, s4, s5, s6) AS p FROM patients";
    let mut scored = ctx.predict_sql(sql).await?.execute_stream().await?;
    let (mut rows, mut sum) = (0, 0.0);
    while let Some(batch) = scored.try_next().await? {
        rows += batch.num_rows();
        sum += batch.column(0).as_primitive::<Float32Type>().iter().flatten().map(f64::from).sum::<f64>();
    }
    println!("{rows} patients, {:.1} on average", sum / rows as f64);
    Ok(())
}
