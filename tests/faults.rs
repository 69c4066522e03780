//! What must survive: engines that fail, queries that are dropped, models that are replaced, memory that runs out.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use datafusion::arrow::array::{Array, AsArray};
use datafusion::arrow::datatypes::Float32Type;
use datafusion::error::DataFusionError;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion_predict::{
    Engine, Error, ErrorKind, Executable, Model, PredictExt, PredictRuntime, PredictSql, PrepareRequest, Prepared,
    Result, RunContext, Tensor, TensorData,
};
use futures::StreamExt;

/// Hangs mean failure: nothing here takes this long.
const PATIENCE: Duration = Duration::from_secs(60);

/// An engine that gives each row its first feature, until a run from which on it misbehaves.
#[derive(Debug, Default)]
struct Scripted {
    runs: AtomicUsize,
    rows: AtomicUsize,
    /// Set once the model is created, whose trial runs are not counted.
    is_created: AtomicBool,
    misbehaves_from: usize,
    how: Fault,
}

#[derive(Debug, Default, Clone, Copy)]
enum Fault {
    #[default]
    None,
    Fails,
    Shortens,
    ChangesType,
    DropsOutput,
    Panics,
}

#[derive(Debug)]
struct ScriptedEngine(Arc<Scripted>);

impl Engine for ScriptedEngine {
    fn name(&self) -> &str {
        "scripted"
    }

    fn prepare(&self, _model: &Arc<Model>, _request: &PrepareRequest) -> Result<Prepared> {
        Ok(Prepared::Ready(self.0.clone()))
    }
}

impl Executable for Scripted {
    fn run(&self, inputs: &[Tensor], _context: &RunContext) -> Result<Vec<Tensor>> {
        let TensorData::Float32(data) = &inputs[0].data else { unreachable!("the model takes floats") };
        let run = self.runs.fetch_add(1, Ordering::SeqCst);
        let mut rows = inputs[0].rows();
        self.rows.fetch_add(rows, Ordering::SeqCst);
        let is_created = self.is_created.load(Ordering::SeqCst);
        let fault = if is_created && run >= self.misbehaves_from { self.how } else { Fault::None };
        match fault {
            Fault::None => {}
            Fault::Fails => return Err(Error::new(ErrorKind::EngineFailed, "the device fell off the bus")),
            Fault::Shortens => rows -= 1,
            Fault::ChangesType => return Ok(vec![Tensor::zeros(datafusion_predict::ElementType::Int64, vec![rows])]),
            Fault::DropsOutput => return Ok(vec![]),
            Fault::Panics => panic!("an engine with a bug"),
        }
        let width = data.len() / inputs[0].rows();
        let first: Vec<f32> = (0..rows).map(|row| data[row * width]).collect();
        Ok(vec![Tensor { shape: vec![rows], data: TensorData::Float32(first.into()) }])
    }

    fn device(&self) -> String {
        "cpu".to_owned()
    }
}

/// A session whose model `m` is run by `engine`; a run takes 100 rows.
async fn session(engine: &Arc<Scripted>) -> SessionContext {
    let config = SessionConfig::new().with_target_partitions(2).with_batch_size(100);
    let runtime = PredictRuntime::builder().with_engine(Arc::new(ScriptedEngine(engine.clone()))).build();
    let context = SessionContext::new_with_config(config).with_predict(Arc::new(runtime));
    let sql = "CREATE MODEL m FROM 'tests/models/types/struct3.onnx' OPTIONS (output 'sum', batch_size 100)";
    context.predict_sql(sql).await.expect("the model");
    engine.runs.store(0, Ordering::SeqCst);
    engine.rows.store(0, Ordering::SeqCst);
    engine.is_created.store(true, Ordering::SeqCst);
    context
}

fn faulty(misbehaves_from: usize, how: Fault) -> Arc<Scripted> {
    Arc::new(Scripted { misbehaves_from, how, ..Default::default() })
}

async fn failure(context: &SessionContext, sql: &str) -> DataFusionError {
    let frame = context.predict_sql(sql).await.expect("a plan");
    frame.collect().await.expect_err("a run fails")
}

const QUERY: &str = "SELECT predict('m', value, 1) FROM generate_series(1, 2000)";
const TRY_QUERY: &str = "SELECT try_predict('m', value, 1) FROM generate_series(1, 2000)";

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_fails_in_the_middle_fails_the_query() {
    for sql in [QUERY, TRY_QUERY] {
        let context = session(&faulty(5, Fault::Fails)).await;
        let error = failure(&context, sql).await;
        let error = Error::find(&error).expect("an error of ours");
        assert_eq!(error.to_string(), "the device fell off the bus", "{sql}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_engine_gives_is_checked() {
    for (how, expected) in [
        (Fault::Shortens, "model 'm/1': output 'sum' has 99 rows, expected 100"),
        (Fault::ChangesType, "model 'm/1' gave Int64, expected Float32"),
        (Fault::DropsOutput, "model 'm/1': the engine gave 0 outputs, expected 1"),
    ] {
        let context = session(&faulty(5, how)).await;
        let error = failure(&context, QUERY).await;
        assert_eq!(Error::find(&error).expect("an error of ours").to_string(), expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_panics_fails_the_query_alone() {
    let context = session(&faulty(5, Fault::Panics)).await;
    let error = failure(&context, QUERY).await.to_string();
    assert!(error.contains("an engine with a bug"), "{error}");
    let other = context.predict_sql("SELECT 1").await.expect("a plan").collect().await;
    assert!(other.is_ok(), "the session goes on");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_scores_little_beyond_what_it_needs() {
    let engine = faulty(usize::MAX, Fault::None);
    let context = session(&engine).await;
    let sql = "SELECT value FROM generate_series(1, 1000000) WHERE predict('m', value, 1) > 10 LIMIT 5";
    let batches = context.predict_sql(sql).await.expect("a plan").collect().await.expect("rows");
    assert_eq!(batches.iter().map(|batch| batch.num_rows()).sum::<usize>(), 5);
    // How far the two partitions run ahead of a slow reader is bounded by what lies between: each has a batch that is
    // scored, two that the filter puts together, one that waits to be sent and its place in the queue.
    let scored = engine.rows.load(Ordering::SeqCst);
    assert!(scored <= 2 * 6 * 100, "{scored} rows were scored");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_query_keeps_the_version_with_which_it_was_planned() {
    let config = SessionConfig::new().with_target_partitions(1).with_batch_size(10);
    let context = SessionContext::new_with_config(config).with_predict(Arc::new(PredictRuntime::default()));
    let create = |output| {
        format!("CREATE OR REPLACE MODEL m FROM 'tests/models/types/struct3.onnx' OPTIONS (output '{output}')")
    };
    context.predict_sql(&create("sum")).await.expect("the model");
    let sql = "SELECT predict('m', value, 1) FROM generate_series(1, 1000)";
    let frame = context.predict_sql(sql).await.expect("a plan");
    context.predict_sql(&create("diff")).await.expect("the next version");
    let mut stream = frame.execute_stream().await.expect("a stream");
    let mut next = 1.0;
    while let Some(batch) = stream.next().await {
        let batch = batch.expect("a batch");
        for sum in batch.column(0).as_primitive::<Float32Type>().values() {
            assert_eq!(*sum, next + 1.0);
            next += 1.0;
        }
        context.predict_sql("DROP MODEL IF EXISTS m").await.expect("the name goes");
    }
    assert_eq!(next, 1001.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_query_frees_its_cores_and_sessions() {
    let context = SessionContext::new().with_predict(Arc::new(PredictRuntime::default()));
    let sql = "CREATE MODEL slow FROM 'tests/models/types/slow.onnx' OPTIONS (batch_size 100000)";
    context.predict_sql(sql).await.expect("the model");
    context.predict_sql("CREATE MODEL quick FROM 'tests/models/types/struct3.onnx'").await.expect("the model");
    // One run would take minutes: 100,000 rows at once.
    context.predict_sql("SET datafusion.execution.batch_size = 100000").await.expect("an option");
    let slow = "SELECT predict('slow', value, 1, 2, 3) FROM generate_series(1, 400000)";
    let running = tokio::spawn({
        let context = context.clone();
        async move { context.predict_sql(slow).await?.collect().await }
    });
    tokio::time::sleep(Duration::from_millis(500)).await; // so that it runs
    assert!(!running.is_finished(), "the query is slow");
    running.abort();
    assert!(running.await.expect_err("it was aborted").is_cancelled());
    // Every core of the budget is free again, or this would wait for the runs.
    for _ in 0..8 {
        let quick = context.predict_sql("SELECT predict('quick', value, 1) FROM generate_series(1, 100)").await;
        let rows = tokio::time::timeout(PATIENCE, quick.expect("a plan").collect()).await;
        assert!(rows.expect("cores are free").is_ok());
    }
    let again = "SELECT predict('slow', value, 1, 2, 3) FROM generate_series(1, 2)";
    let again = context.predict_sql(again).await.expect("a plan").collect();
    assert!(tokio::time::timeout(PATIENCE, again).await.expect("sessions are free").is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_is_asked_for_and_may_be_refused() {
    let environment = RuntimeEnvBuilder::new().with_memory_limit(10_000, 1.0).build_arc().expect("an environment");
    let context = SessionContext::new_with_config_rt(SessionConfig::new(), environment);
    let context = context.with_predict(Arc::new(PredictRuntime::default()));
    context.predict_sql("CREATE MODEL m FROM 'tests/models/types/struct3.onnx'").await.expect("the model");
    let error = failure(&context, "SELECT predict('m', value, 1) FROM generate_series(1, 100000)").await;
    assert!(matches!(error.find_root(), DataFusionError::ResourcesExhausted(_)), "{error}");
    let few = context.predict_sql("SELECT predict('m', value, 1) FROM generate_series(1, 10)").await.expect("a plan");
    assert_eq!(few.collect().await.expect("ten rows fit")[0].column(0).len(), 10);
}

#[tokio::test]
async fn a_session_without_models_says_so() {
    let context = SessionContext::new();
    let error = context.predict_sql("SHOW MODELS").await.expect_err("with_predict was not called");
    assert!(error.to_string().contains("call with_predict first"), "{error}");
}
