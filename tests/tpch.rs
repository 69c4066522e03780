//! A model over TPC-H's lineitem, generated here, against Python's onnxruntime over the same table.

use std::sync::Arc;

use datafusion::arrow::array::{AsArray, RecordBatch};
use datafusion::arrow::datatypes::{Float64Type, Int64Type, UInt64Type};
use datafusion::datasource::MemTable;
use datafusion::prelude::{ParquetReadOptions, SessionConfig, SessionContext};
use datafusion_predict::{PredictExt, PredictRuntime, PredictSql};
use tpchgen::generators::LineItemGenerator;
use tpchgen_arrow::LineItemArrow;

/// As in `tests/models/make_tpch.py`.
const SCALE_FACTOR: f64 = 0.01;
const PARTITIONS: i32 = 4;

fn lineitem() -> MemTable {
    let partition = |part| {
        let generator = LineItemArrow::new(LineItemGenerator::new(SCALE_FACTOR, part, PARTITIONS));
        generator.collect::<Result<Vec<RecordBatch>, _>>().expect("generated rows")
    };
    MemTable::try_new(LineItemArrow::schema_ref(), (1..=PARTITIONS).map(partition).collect()).expect("a table")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_model_agrees_over_lineitem() {
    let config = SessionConfig::new().with_target_partitions(PARTITIONS as usize);
    let context = SessionContext::new_with_config(config).with_predict(Arc::new(PredictRuntime::default()));
    context.register_table("lineitem", Arc::new(lineitem())).expect("a table");
    let expected = "tests/models/tpch/expected.parquet";
    context.register_parquet("expected", expected, ParquetReadOptions::default()).await.expect("a table");
    let create = "CREATE MODEL returned FROM 'tests/models/tpch/returned.onnx' OPTIONS (class '1')";
    context.predict_sql(create).await.expect("the model");
    let sql = "
        WITH scored AS (
            SELECT l_shipmode, predict('returned', CAST(l_quantity AS FLOAT), CAST(l_extendedprice AS FLOAT),
                CAST(l_discount AS FLOAT), CAST(l_tax AS FLOAT), l_linenumber,
                CAST(l_shipdate AS INT), CAST(l_receiptdate AS INT) - CAST(l_shipdate AS INT)) AS score
            FROM lineitem)
        SELECT l_shipmode, count(*) AS rows, sum(CASE WHEN score > 0.5 THEN 1 ELSE 0 END) AS above,
            sum(CAST(score AS DOUBLE)) AS score, e.score_count, e.above_sum, e.score_sum
        FROM scored JOIN expected e USING (l_shipmode)
        GROUP BY l_shipmode, e.score_count, e.above_sum, e.score_sum ORDER BY l_shipmode";
    let batches = context.predict_sql(sql).await.expect("a plan").collect().await.expect("rows");
    let modes: usize = batches.iter().map(RecordBatch::num_rows).sum();
    assert_eq!(modes, 7, "TPC-H has seven ship modes");
    for batch in &batches {
        for row in 0..batch.num_rows() {
            let int = |column: usize| batch.column(column).as_primitive::<Int64Type>().value(row);
            let float = |column: usize| batch.column(column).as_primitive::<Float64Type>().value(row);
            assert_eq!(int(1), int(4), "rows");
            let above = batch.column(5).as_primitive::<UInt64Type>().value(row) as i64;
            assert!((int(2) - above).abs() <= 1, "above one half: found {}, expected {above}", int(2));
            assert!((float(3) - float(6)).abs() <= 1e-5 * float(6), "found {}, expected {}", float(3), float(6));
        }
    }
}
