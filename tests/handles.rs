//! Plans hold handles: planning loads nothing, a model is loaded once when rows come, and nobody's thread waits for it.

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use datafusion::arrow::array::{ArrayRef, AsArray, Float64Array, RecordBatch};
use datafusion::arrow::datatypes::{DataType, Field, Float32Type, Int64Type, Schema};
use datafusion::common::DataFusionError;
use datafusion::dataframe::DataFrame;
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion_predict::{
    Engine, Error, ErrorKind, Executable, Model, ObjectStoreCatalog, PredictExt, PredictRuntime, PredictRuntimeBuilder,
    PredictSql, PrepareRequest, Prepared, Result, RunContext, Tensor, TensorData,
};
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions,
    PutOptions, PutPayload, PutResult,
};
use tokio::sync::Notify;

/// Hangs mean failure: nothing here takes this long.
const PATIENCE: Duration = Duration::from_secs(60);

type StoreResult<T> = object_store::Result<T>;

/// A store that counts who asks for a model's file, and lets nobody have one while it is shut.
#[derive(Debug, Default)]
struct Gate {
    inner: InMemory,
    shut: AtomicBool,
    asked: AtomicUsize,
    opened: Notify,
}

impl Gate {
    async fn pass(&self, path: &Path) {
        if path.as_ref().contains("models/") {
            self.asked.fetch_add(1, Ordering::SeqCst);
            loop {
                let opened = self.opened.notified();
                if !self.shut.load(Ordering::SeqCst) {
                    return;
                }
                opened.await;
            }
        }
    }

    fn open(&self) {
        self.shut.store(false, Ordering::SeqCst);
        self.opened.notify_waiters();
    }
}

impl fmt::Display for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a store with a gate")
    }
}

#[async_trait]
impl ObjectStore for Gate {
    async fn put_opts(&self, path: &Path, payload: PutPayload, options: PutOptions) -> StoreResult<PutResult> {
        self.inner.put_opts(path, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        options: PutMultipartOptions,
    ) -> StoreResult<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(path, options).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> StoreResult<GetResult> {
        self.pass(path).await;
        self.inner.get_opts(path, options).await
    }

    async fn get_ranges(&self, path: &Path, ranges: &[Range<u64>]) -> StoreResult<Vec<Bytes>> {
        self.pass(path).await;
        self.inner.get_ranges(path, ranges).await
    }

    fn delete_stream(&self, paths: BoxStream<'static, StoreResult<Path>>) -> BoxStream<'static, StoreResult<Path>> {
        self.inner.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, StoreResult<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> StoreResult<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> StoreResult<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

/// What an engine does with a model.
#[derive(Debug, Default)]
struct Script {
    loads: AtomicUsize,
    fails: AtomicBool,
    load_time: Duration,
    run_time: Duration,
}

#[derive(Debug)]
struct Scripted(Arc<Script>);

impl Engine for Scripted {
    fn name(&self) -> &str {
        "scripted"
    }

    fn prepare(&self, model: &Arc<Model>, request: &PrepareRequest) -> Result<Prepared> {
        if !request.chosen {
            return Ok(Prepared::Refused("it is not asked for".to_owned()));
        }
        self.0.loads.fetch_add(1, Ordering::SeqCst);
        std::thread::sleep(self.0.load_time);
        if self.0.fails.load(Ordering::SeqCst) {
            return Err(Error::new(ErrorKind::InvalidModel, format!("'{}' does not suit", model.uri())));
        }
        Ok(Prepared::Ready(Arc::new(First(self.0.clone()))))
    }
}

/// Gives the first column.
#[derive(Debug)]
struct First(Arc<Script>);

impl Executable for First {
    fn run(&self, inputs: &[Tensor], _context: &RunContext) -> Result<Vec<Tensor>> {
        let TensorData::Float32(data) = &inputs[0].data else { unreachable!("the model takes floats") };
        let rows = inputs[0].rows();
        if rows > 3 {
            std::thread::sleep(self.0.run_time); // the trial runs have 2 and 3 rows
        }
        let width = data.len() / rows.max(1);
        let first: Vec<f32> = data.iter().step_by(width.max(1)).copied().collect();
        Ok(vec![Tensor { shape: vec![rows, 1], data: TensorData::Float32(first.into()) }])
    }

    fn device(&self) -> String {
        "cpu".to_owned()
    }
}

const MODEL: &str = "tests/models/sklearn/diabetes_forest.onnx";
const FEATURES: &str = "value, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0";

fn session(runtime: PredictRuntime) -> SessionContext {
    let config = SessionConfig::new().with_target_partitions(2).with_information_schema(true);
    SessionContext::new_with_config(config).with_predict(Arc::new(runtime))
}

async fn catalog_in(store: Arc<Gate>) -> ObjectStoreCatalog {
    ObjectStoreCatalog::open_in(store, Path::from("catalog"), "test").await.expect("a catalog")
}

/// A runtime of a process that has loaded nothing yet.
async fn cold(store: &Arc<Gate>, folder: &std::path::Path) -> PredictRuntimeBuilder {
    PredictRuntime::builder()
        .with_catalog(Arc::new(catalog_in(store.clone()).await))
        .with_cache_folder(folder.to_owned())
}

async fn text(frame: DataFrame) -> String {
    frame.to_string().await.expect("rows")
}

#[tokio::test]
async fn planning_asks_for_no_file_and_rows_do() {
    let (store, folder) = (Arc::new(Gate::default()), tempfile::tempdir().expect("a folder"));
    let writer = session(cold(&store, folder.path()).await.build());
    let sql = format!("CREATE MODEL m FROM '{MODEL}'");
    writer.predict_sql(&sql).await.expect("a model");
    store.shut.store(true, Ordering::SeqCst);
    let elsewhere = tempfile::tempdir().expect("a folder");
    let reader = session(cold(&store, elsewhere.path()).await.build());
    let query = format!("SELECT predict('m', {FEATURES}) AS p FROM generate_series(1, 3)");

    store.asked.store(0, Ordering::SeqCst);
    for bare in [false, true] {
        reader.predict_sql(&format!("SET predict.extract = {}", !bare)).await.expect("an option");
        // This test has one thread: whoever waited on it would wait forever.
        let plan = reader.predict_sql(&format!("EXPLAIN {query}")).await.expect("a plan");
        let plan = text(plan).await;
        match bare {
            false => assert!(plan.contains("model=m/1, engine=native, device=cpu, batch_size=8192"), "{plan}"),
            true => assert!(plan.contains("LoadModelsExec: models=[m/1]"), "{plan}"),
        }
        let constant = "EXPLAIN SELECT predict('m', 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)";
        text(reader.predict_sql(constant).await.expect("a plan")).await;
        reader.sql(&query).await.expect("a plan").create_physical_plan().await.expect("a plan, without ours");
    }
    let loaded = reader.predict_sql("SELECT * FROM predict.loaded").await.expect("a plan");
    assert_eq!(loaded.count().await.expect("rows"), 0);
    assert_eq!(store.asked.load(Ordering::SeqCst), 0, "no file was asked for");

    let bare = tokio::spawn(reader.predict_sql(&query).await.expect("a plan").collect());
    reader.predict_sql("SET predict.extract = true").await.expect("an option");
    let node = tokio::spawn(reader.predict_sql(&query).await.expect("a plan").collect());
    while store.asked.load(Ordering::SeqCst) == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(!bare.is_finished() && !node.is_finished());
    store.open();
    let rows = |batches: Result<Vec<RecordBatch>, DataFusionError>| -> usize {
        batches.expect("rows").iter().map(|batch| batch.num_rows()).sum()
    };
    assert_eq!(rows(bare.await.expect("no panic")), 3);
    assert_eq!(rows(node.await.expect("no panic")), 3);
    let loaded = reader.predict_sql("SELECT * FROM predict.loaded").await.expect("a plan");
    assert_eq!(loaded.count().await.expect("rows"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_queries_wait_for_one_load_and_share_its_answer() {
    let (store, folder) = (Arc::new(Gate::default()), tempfile::tempdir().expect("a folder"));
    let writer = session(cold(&store, folder.path()).await.build());
    writer.predict_sql(&format!("CREATE MODEL m FROM '{MODEL}'")).await.expect("a model");
    let script = Arc::new(Script { load_time: Duration::from_secs(2), ..Script::default() });
    script.fails.store(true, Ordering::SeqCst);
    let runtime = cold(&store, folder.path()).await.with_engine(Arc::new(Scripted(script.clone()))).build();
    let context = session(runtime);
    context.predict_sql("SET predict.engine = 'scripted'").await.expect("an engine");
    let query = format!("SELECT predict('m', {FEATURES}) AS p FROM generate_series(1, 3)");
    let all_at_once = async || {
        let queries = (0..50).map(|_| {
            let (context, query) = (context.clone(), query.clone());
            tokio::spawn(async move { context.predict_sql(&query).await?.collect().await })
        });
        futures::future::join_all(queries).await.into_iter().map(|query| query.expect("no panic")).collect::<Vec<_>>()
    };
    for answer in all_at_once().await {
        let error = answer.expect_err("it does not suit").to_string();
        assert!(error.contains("does not suit"), "{error}");
    }
    assert_eq!(script.loads.load(Ordering::SeqCst), 1, "who waits for a load that fails does not try again");
    script.fails.store(false, Ordering::SeqCst);
    for answer in all_at_once().await {
        assert_eq!(answer.expect("rows").iter().map(|batch| batch.num_rows()).sum::<usize>(), 3);
    }
    assert_eq!(script.loads.load(Ordering::SeqCst), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn runs_of_others_hold_up_no_worker() {
    let slow = Arc::new(Script { run_time: Duration::from_secs(1), ..Script::default() });
    let context = session(PredictRuntime::builder().with_engine(Arc::new(Scripted(slow))).build());
    let fast = context.clone();
    context.predict_sql("SET predict.engine = 'scripted'").await.expect("an engine");
    context.predict_sql(&format!("CREATE MODEL slow FROM '{MODEL}'")).await.expect("a model");
    let parts: Vec<_> =
        (0..4).map(|part| format!("SELECT value + {part} AS value FROM generate_series(1, 8)")).collect();
    let sql = format!("SELECT predict('slow', {FEATURES}) AS p FROM ({})", parts.join(" UNION ALL "));
    let slow = context.predict_sql(&sql).await.expect("a plan").create_physical_plan().await.expect("a plan");
    fast.predict_sql("SET predict.engine = 'native'").await.expect("an engine");
    fast.predict_sql(&format!("CREATE MODEL fast FROM '{MODEL}'")).await.expect("a model");
    let sql = format!("SELECT sum(predict('fast', {FEATURES})) AS p FROM generate_series(1, 100000)");
    let fast = fast.predict_sql(&sql).await.expect("a plan");

    let ticks = Arc::new(AtomicUsize::new(0));
    let ticker = tokio::spawn({
        let ticks = ticks.clone();
        async move {
            loop {
                tokio::time::sleep(Duration::from_millis(5)).await;
                ticks.fetch_add(1, Ordering::SeqCst);
            }
        }
    });
    let slow = tokio::spawn(datafusion::physical_plan::collect(slow, context.task_ctx()));
    tokio::time::sleep(Duration::from_millis(50)).await; // all cores are taken
    let fast = tokio::spawn(fast.collect());
    let before = ticks.load(Ordering::SeqCst);
    tokio::time::sleep(Duration::from_millis(500)).await;
    let during = ticks.load(Ordering::SeqCst) - before;
    assert!(!slow.is_finished());
    assert!(during > 20, "{during} ticks in half a second: a worker sleeps");
    let rows = slow.await.expect("no panic").expect("rows");
    assert_eq!(rows.iter().map(|batch| batch.num_rows()).sum::<usize>(), 32);
    tokio::time::timeout(PATIENCE, fast).await.expect("cores are free").expect("no panic").expect("rows");
    ticker.abort();
}

#[tokio::test]
async fn a_prediction_says_where_it_comes_from() {
    let context = session(PredictRuntime::default());
    context.predict_sql(&format!("CREATE MODEL m FROM '{MODEL}'")).await.expect("a model");
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("scored.parquet");
    let copy = format!(
        "COPY (SELECT value AS id, predict('m', {FEATURES}) AS p FROM generate_series(1, 3)) TO '{}' STORED AS PARQUET",
        path.display()
    );
    context.predict_sql(&copy).await.expect("a plan").collect().await.expect("a file");
    let file = std::fs::File::open(&path).expect("a file");
    let reader = datafusion::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(file);
    let schema = reader.expect("a Parquet file").schema().clone();
    let says = |field: &Field, key: &str| field.metadata().get(key).cloned().unwrap_or_default();
    let p = schema.field_with_name("p").expect("the predictions");
    assert_eq!((says(p, "predict.model"), says(p, "predict.version")), ("m".to_owned(), "1".to_owned()));
    assert_eq!(says(p, "predict.sha256").len(), 64);
    assert!(schema.field_with_name("id").expect("the ids").metadata().is_empty());
}

#[tokio::test]
async fn with_predict_twice_adds_nothing_twice() {
    let runtime = Arc::new(PredictRuntime::default());
    let once = SessionContext::new().with_predict(runtime.clone());
    let twice = SessionContext::new().with_predict(runtime.clone()).with_predict(runtime);
    let rules = |context: &SessionContext| {
        let state = context.state();
        let mut names: Vec<_> = state.analyzer().rules.iter().map(|rule| rule.name().to_owned()).collect();
        names.extend(state.optimizer().rules.iter().map(|rule| rule.name().to_owned()));
        names.extend(state.physical_optimizers().iter().map(|rule| rule.name().to_owned()));
        names.push(state.relation_planners().len().to_string());
        names
    };
    assert_eq!(rules(&twice), rules(&once));
    twice.predict_sql(&format!("CREATE MODEL m FROM '{MODEL}'")).await.expect("a model");
    let sql = format!("SELECT predict('m', {FEATURES}) AS p FROM generate_series(1, 3)");
    let batches = twice.predict_sql(&sql).await.expect("a plan").collect().await.expect("rows");
    assert_eq!(batches[0].column(0).as_primitive::<Float32Type>().len(), 3);
}

/// Nodes above each other, each of which may have parts scored elsewhere while it waits for its input: none may wait for a
/// core in a future that the one above does not poll.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_above_each_other_do_not_wait_for_cores_that_nobody_takes() {
    let config = SessionConfig::new().with_target_partitions(4).with_batch_size(64).with_round_robin_repartition(false);
    let context = SessionContext::new_with_config(config).with_predict(Arc::new(PredictRuntime::default()));
    for name in ["f1", "f2"] {
        let create = format!("CREATE MODEL {name} FROM 'tests/models/types/scalar_double.onnx'");
        context.predict_sql(&create).await.expect("a model");
    }
    context.predict_sql(&format!("CREATE MODEL s1 FROM '{MODEL}'")).await.expect("a model");
    let rows = "SELECT CAST(value AS DOUBLE) AS value FROM generate_series(1, 20000)";
    let scored = format!(
        "SELECT predict('f1', value) AS a, predict('s1', {FEATURES}) AS b, predict('f2', value) AS c FROM ({rows})"
    );
    let parts = [scored.as_str(); 4].join(" UNION ALL ");
    let sql = format!("SELECT count(*) FROM ({parts}) WHERE a + b + c > 0");
    let counted = context.predict_sql(&sql).await.expect("a plan").collect();
    let batches = tokio::time::timeout(PATIENCE, counted).await.expect("no hang").expect("rows");
    assert_eq!(batches[0].column(0).as_primitive::<Int64Type>().value(0), 80_000);
}

/// Batches of which no row is scored do not pile up behind one that takes long.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_are_not_scored_do_not_pile_up() {
    let pool = Arc::new(datafusion::execution::memory_pool::GreedyMemoryPool::new(60 << 20));
    let environment = datafusion::execution::runtime_env::RuntimeEnvBuilder::new().with_memory_pool(pool);
    let config = SessionConfig::new().with_target_partitions(2).set_str("datafusion.execution.batch_size", "8192");
    let context = SessionContext::new_with_config_rt(config, environment.build_arc().expect("a runtime"));
    let slow = Arc::new(Script { run_time: Duration::from_secs(2), ..Script::default() });
    let context =
        context.with_predict(Arc::new(PredictRuntime::builder().with_engine(Arc::new(Scripted(slow))).build()));
    for set in ["SET predict.engine = 'scripted'", "SET predict.bytes_in_flight = '8m'"] {
        context.predict_sql(set).await.expect("an option");
    }
    context.predict_sql(&format!("CREATE MODEL slow FROM '{MODEL}'")).await.expect("a model");
    let sql = format!(
        "SELECT count(p) FROM (SELECT CASE WHEN value <= 5 THEN predict('slow', {FEATURES}) END AS p FROM generate_series(1, 5000000))"
    );
    let batches = context.predict_sql(&sql).await.expect("a plan").collect().await.expect("rows");
    assert_eq!(batches[0].column(0).as_primitive::<Int64Type>().value(0), 5);
}

#[tokio::test]
async fn a_column_of_several_models_names_none() {
    let context = session(PredictRuntime::default());
    for (name, model) in [("m", "types/scalar_double"), ("n", "types/scalar_double")] {
        let create = format!("CREATE MODEL {name} FROM 'tests/models/{model}.onnx'");
        context.predict_sql(&create).await.expect("a model");
    }
    let rows = "FROM (SELECT CAST(value AS DOUBLE) AS x FROM generate_series(1, 2))";
    let named = async |sql: String| -> Option<String> {
        let batches = context.predict_sql(&sql).await.expect(&sql).collect().await.expect(&sql);
        batches[0].schema().field(0).metadata().get("predict.model").cloned()
    };
    assert_eq!(named(format!("SELECT predict('m', x) {rows}")).await.as_deref(), Some("m"));
    assert_eq!(
        named(format!("SELECT predict('m', x) AS y {rows} UNION ALL SELECT predict('n', x) {rows}")).await,
        None
    );
    assert_eq!(named(format!("SELECT predict('m', x) AS y {rows} UNION ALL SELECT x {rows}")).await, None);
    // Other metadata than ours is none of our business.
    let tagged = Field::new("x", DataType::Float64, true).with_metadata(HashMap::from([("unit".into(), "m".into())]));
    let column: ArrayRef = Arc::new(Float64Array::from(vec![1.0]));
    let batch = RecordBatch::try_new(Arc::new(Schema::new(vec![tagged])), vec![column]).expect("a batch");
    context.register_batch("tagged", batch).expect("a table");
    let union = "SELECT x FROM tagged UNION ALL SELECT predict('m', x) FROM tagged UNION ALL SELECT x FROM tagged";
    let batches = context.predict_sql(union).await.expect("a plan").collect().await.expect("rows");
    assert_eq!(batches[0].schema().field(0).metadata().get("unit").map(String::as_str), Some("m"));
    let same = format!("SELECT predict('m', x) AS y {rows} UNION ALL SELECT predict('m', x + 1) {rows}");
    assert_eq!(named(same).await.as_deref(), Some("m"));
    assert_eq!(
        named("SELECT * FROM (VALUES (predict('m', 1.0)), (5.0), (predict('n', 2.0))) AS v(y)".into()).await,
        None
    );
}

#[tokio::test]
async fn a_model_that_was_not_run_is_called_anywhere() {
    let context = session(PredictRuntime::default());
    let create = "CREATE MODEL l FROM 'tests/models/queries/lookup.onnx' OPTIONS (validate false)";
    for sql in [
        "SELECT value FROM generate_series(0, 3) WHERE predict('l', value) > 2",
        "SELECT CASE WHEN predict('l', value) > 2 THEN value END FROM generate_series(0, 3) WHERE value > 1",
        "SELECT value FROM generate_series(0, 3) ORDER BY predict('l', value) LIMIT 2",
    ] {
        context.predict_sql(create).await.expect("a model");
        let rows = context.predict_sql(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
        assert_eq!(rows.count().await.expect("rows"), 2, "{sql}");
        context.predict_sql("DROP MODEL l").await.expect("gone");
    }
}
