//! A model in SQL, in under 20 lines: `cargo run --example quickstart`

use std::sync::Arc;

use datafusion::error::Result;
use datafusion::prelude::{ParquetReadOptions, SessionContext};
use datafusion_predict::{PredictExt, PredictRuntime, PredictSql};

#[tokio::main]
async fn main() -> Result<()> {
    let ctx = SessionContext::new().with_predict(Arc::new(PredictRuntime::default()));
    let iris = "tests/models/sklearn/iris_forest.parquet";
    ctx.register_parquet("iris", iris, ParquetReadOptions::default()).await?;
    ctx.predict_sql("CREATE MODEL iris FEATURES (sepal_length_cm, sepal_width_cm, petal_length_cm, petal_width_cm) FROM 'tests/models/sklearn/iris_forest.onnx'").await?;
    let sql = "SELECT predict('iris', iris.*)['label'] AS species, count(*) AS flowers FROM iris GROUP BY 1 ORDER BY 1";
    ctx.predict_sql(sql).await?.show().await
}
