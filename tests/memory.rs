//! Memory is what it is said to be. A process of its own: ONNX Runtime's limit is the process's.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, AsArray, DictionaryArray, Int32Array, RecordBatch, StringArray};
use datafusion::arrow::datatypes::{Float32Type, UInt64Type};
use datafusion::execution::memory_pool::GreedyMemoryPool;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion_predict::{PredictExt, PredictRuntime, PredictSql};

/// For all runs of ONNX Runtime in this process.
const LIMIT: u64 = 256 << 20;

fn runtime() -> Arc<PredictRuntime> {
    Arc::new(PredictRuntime::builder().with_onnxruntime_memory(LIMIT).build())
}

fn session() -> SessionContext {
    SessionContext::new_with_config(SessionConfig::new().with_target_partitions(2)).with_predict(runtime())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_graph_that_asks_for_34_gigabytes_is_an_error_and_the_next_run_is_fine() {
    let context = session();
    context.predict_sql("SET predict.engine = 'onnxruntime'").await.expect("an engine");
    context.predict_sql("CREATE MODEL greedy FROM 'tests/models/queries/greedy.onnx'").await.expect("a model");
    let greedy =
        context.predict_sql("SELECT predict('greedy', x) FROM (VALUES (8.5e9)) AS v(x)").await.expect("a plan");
    let error = greedy.collect().await.expect_err("there is no such memory").to_string();
    assert!(
        error.contains(
            "Status Message: Available memory of 267386880 is smaller than requested bytes of 33999998976; --onnxruntime-memory"
        ),
        "{error}"
    );
    let modest =
        context.predict_sql("SELECT predict('greedy', x) AS p FROM (VALUES (8.5e3)) AS v(x)").await.expect("a plan");
    let batches = modest.collect().await.expect("rows");
    assert_eq!(batches[0].column(0).as_primitive::<Float32Type>().value(0), 8500.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_loaded_is_shown_with_its_sessions_and_bytes() {
    let context = session();
    context.predict_sql("SET predict.engine = 'onnxruntime'").await.expect("an engine");
    context
        .predict_sql("CREATE MODEL trees FROM 'tests/models/boosters/lightgbm_diabetes.onnx'")
        .await
        .expect("a model");
    let loaded =
        "SELECT sessions, bytes FROM predict.loaded WHERE model = 'trees' AND last_use > now() - INTERVAL '1 hour'";
    let batches = context.predict_sql(loaded).await.expect("a plan").collect().await.expect("rows");
    let column = |i: usize| batches[0].column(i).as_primitive::<UInt64Type>().value(0);
    assert_eq!(column(0), 1, "of the trial runs");
    let file = std::fs::metadata("tests/models/boosters/lightgbm_diabetes.onnx").expect("a file").len();
    assert!(column(1) > 2 * file, "{} for a file of {file}", column(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_under_way_count_in_the_pool_and_fit_the_bytes_that_they_may_have() {
    let pool = Arc::new(GreedyMemoryPool::new(64 << 20));
    let environment = RuntimeEnvBuilder::new().with_memory_pool(pool).build_arc().expect("a runtime");
    let config = SessionConfig::new().with_target_partitions(1);
    let context = SessionContext::new_with_config_rt(config, environment).with_predict(runtime());
    context.predict_sql("CREATE MODEL m FROM 'tests/models/types/identity8.onnx'").await.expect("a model");
    let columns = ["value"; 8].join(", ");
    let sql = format!("EXPLAIN ANALYZE SELECT predict('m', {columns}) FROM generate_series(1, 900)");
    let batches = async |bytes: &str| -> usize {
        context.predict_sql(&format!("SET predict.bytes_in_flight = '{bytes}'")).await.expect("an option");
        let plan = context.predict_sql(&sql).await.expect("a plan").to_string().await.expect("rows");
        let (_, after) = plan.split_once(" batches=").expect("the metric");
        after.chars().take_while(char::is_ascii_digit).collect::<String>().parse().expect("a number")
    };
    assert_eq!(batches("256m").await, 1);
    // A row has 8 features of 8 bytes, those again as tensors, and 8 predictions.
    let small = batches("64k").await;
    assert!((900 * 160 / (64 * 1024)..900 / 50).contains(&small), "{small} batches");
    assert_eq!(batches("1").await, 900, "one row always runs");

    let tight = Arc::new(GreedyMemoryPool::new(64 << 10));
    let environment = RuntimeEnvBuilder::new().with_memory_pool(tight).build_arc().expect("a runtime");
    let context = SessionContext::new_with_config_rt(SessionConfig::new(), environment).with_predict(runtime());
    context.predict_sql("CREATE MODEL m FROM 'tests/models/types/identity8.onnx'").await.expect("a model");
    let sql = format!("SELECT predict('m', {columns}) FROM generate_series(1, 100000)");
    let error = context.predict_sql(&sql).await.expect("a plan").collect().await.expect_err("no room").to_string();
    assert!(error.contains("PredictExec"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_column_outlives_its_query() {
    let context = session();
    context.predict_sql("CREATE MODEL city FROM 'tests/models/queries/city.onnx'").await.expect("a model");
    let texts: ArrayRef = Arc::new(StringArray::from(vec!["a", "b"]));
    let last = Arc::downgrade(&texts);
    let column = DictionaryArray::new(Int32Array::from(vec![0, 1, 1, 0]), texts);
    let batch = RecordBatch::try_from_iter([("city", Arc::new(column) as ArrayRef)]).expect("a batch");
    context.register_batch("t", batch).expect("a table");
    let scored = context.predict_sql("SELECT predict('city', city) FROM t").await.expect("a plan");
    assert_eq!(scored.collect().await.expect("rows")[0].num_rows(), 4);
    context.deregister_table("t").expect("the table");
    assert!(last.upgrade().is_none(), "the model keeps the dictionary");
}
