//! How queries share a device: an engine of the test that has one, and runs models on it as slowly as the tests need.

mod statements;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use datafusion::arrow::array::AsArray;
use datafusion::arrow::datatypes::{Float64Type, Int64Type};
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::execution::SessionStateBuilder;
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion_predict::{
    Device, DeviceQueue, Engine, Error, ErrorKind, Executable, Model, NativeEngine, ObjectStoreCatalog, Placement,
    PredictExt, PredictRuntime, PredictSql, PrepareRequest, Prepared, Result, RunContext, Tensor,
};
use futures::StreamExt;
use statements::{error, session, sql};

/// Two devices that are not there: runs are the CPU's, one at a time on each.
#[derive(Debug, Default)]
struct Fake {
    queue: DeviceQueue,
    /// Of the other one: `cuda:1`.
    other: DeviceQueue,
    /// Runs of each.
    of_each: [AtomicUsize; 2],
    /// Runs that were made.
    runs: AtomicUsize,
    /// Of those, the ones during which the next run came to the line, encoded.
    followed: AtomicUsize,
    /// Runs at this moment, and the most there ever were.
    at_once: AtomicUsize,
    most_at_once: AtomicUsize,
    /// Whether a run waits for the next one to come to the line.
    looks_for_next: AtomicBool,
    /// Whether a run goes on until it is cancelled.
    is_endless: AtomicBool,
    /// Whether each run takes some milliseconds.
    is_slow: AtomicBool,
    /// Whether runs fail.
    fails: AtomicBool,
    /// Whether the run on the device stays there.
    is_held: AtomicBool,
    /// The models of which runs have come to the line.
    asked: Mutex<BTreeSet<String>>,
    /// The models of the runs, in their order.
    order: Mutex<Vec<String>>,
    /// Copies of models that were made ready.
    loaded: AtomicUsize,
}

#[derive(Debug, Clone)]
struct FakeEngine(Arc<Fake>);

impl Engine for FakeEngine {
    fn name(&self) -> &str {
        "fake"
    }

    fn devices(&self) -> Vec<&'static str> {
        vec!["webgpu", "cuda"]
    }

    fn prepare(&self, model: &Arc<Model>, request: &PrepareRequest) -> Result<Prepared> {
        if request.device == Device::Cpu {
            return Ok(Prepared::Refused("it has no CPU".to_owned()));
        }
        let on_cpu = PrepareRequest { device: Device::Cpu, chosen: true, ..request.clone() };
        self.0.loaded.fetch_add(1, Ordering::SeqCst);
        Ok(match NativeEngine.prepare(model, &on_cpu)? {
            Prepared::Ready(inner) => Prepared::Ready(Arc::new(OnFake {
                inner,
                label: request.label.clone(),
                number: request.device.number().unwrap_or(0).into(),
                device: self.0.clone(),
            })),
            refused => refused,
        })
    }
}

#[derive(Debug)]
struct OnFake {
    inner: Arc<dyn Executable>,
    label: String,
    /// Which one of the two.
    number: usize,
    device: Arc<Fake>,
}

impl OnFake {
    fn on_device(&self, inputs: &[Tensor], context: &RunContext) -> Result<Vec<Tensor>> {
        let fake = &self.device;
        let now = fake.at_once.fetch_add(1, Ordering::SeqCst) + 1;
        fake.most_at_once.fetch_max(now, Ordering::SeqCst);
        fake.runs.fetch_add(1, Ordering::SeqCst);
        fake.of_each[self.number].fetch_add(1, Ordering::SeqCst);
        fake.order.lock().expect("no panic").push(self.label.clone());
        let start = Instant::now();
        while fake.looks_for_next.load(Ordering::SeqCst) && start.elapsed() < Duration::from_millis(500) {
            if fake.queue.waiting() > 0 {
                fake.followed.fetch_add(1, Ordering::SeqCst);
                break;
            }
            std::thread::yield_now();
        }
        while fake.is_held.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
        while fake.is_endless.load(Ordering::SeqCst) && !context.cancel.is_cancelled() {
            std::thread::yield_now();
        }
        if fake.is_slow.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(20));
        }
        let outputs = match fake.fails.load(Ordering::SeqCst) {
            true => Err(Error::new(ErrorKind::EngineFailed, format!("model '{}': the device is gone", self.label))),
            false => self.inner.run(inputs, context),
        };
        fake.at_once.fetch_sub(1, Ordering::SeqCst);
        outputs
    }
}

impl Executable for OnFake {
    fn run(&self, inputs: &[Tensor], context: &RunContext) -> Result<Vec<Tensor>> {
        self.device.asked.lock().expect("no panic").insert(self.label.clone());
        let queue = if self.number == 0 { &self.device.queue } else { &self.device.other };
        match queue.run(context, || self.on_device(inputs, context)) {
            Some(outputs) => outputs,
            None => Err(Error::new(ErrorKind::Cancelled, "the query was cancelled")),
        }
    }

    fn device(&self) -> String {
        "webgpu".to_owned()
    }

    fn placement(&self) -> Option<Placement> {
        Some(Placement { on_device: 9, on_cpu: [("Cast".to_owned(), 1), ("Shape".to_owned(), 2)].into() })
    }
}

/// A session of so many partitions, on so many cores, and its device.
async fn with_device(partitions: usize, cores: usize) -> (SessionContext, Arc<Fake>) {
    let fake = Arc::new(Fake::default());
    let runtime = PredictRuntime::builder().with_cores(cores).with_engine(Arc::new(FakeEngine(fake.clone()))).build();
    let config = SessionConfig::new().with_target_partitions(partitions).with_batch_size(256);
    let state = SessionStateBuilder::new().with_default_features().with_config(config);
    let ctx = SessionContext::new_with_state(state.with_predict(Arc::new(runtime)).build());
    for name in ["first", "second", "third"] {
        let create = format!(
            "CREATE MODEL {name} FEATURES (a, b) FROM 'tests/models/queries/linear.onnx' OPTIONS (device 'webgpu', batch_size 256)"
        );
        sql(&ctx, &create).await;
    }
    (ctx, fake)
}

/// Rows of a table in as many partitions as the session has.
const ROWS: &str = "(SELECT value * 1.0 AS a, value * 0.5 AS b FROM generate_series(1, 20000) AS g(value))";

#[tokio::test(flavor = "multi_thread")]
async fn eight_partitions_share_one_copy_and_one_run_at_a_time() {
    let (ctx, fake) = with_device(8, 2).await;
    let loaded = fake.loaded.load(Ordering::SeqCst);
    let query = format!("SELECT count(p) AS n, sum(p) AS s FROM (SELECT predict('first', a, b) AS p FROM {ROWS})");
    let batches = sql(&ctx, &query).await;
    assert_eq!(batches[0].column(0).as_primitive::<Int64Type>().value(0), 20_000);
    assert_eq!(fake.loaded.load(Ordering::SeqCst), loaded, "what was created is at work already");
    assert_eq!(fake.most_at_once.load(Ordering::SeqCst), 1);
    let on_cpu = session(1);
    sql(&on_cpu, "CREATE MODEL first FEATURES (a, b) FROM 'tests/models/queries/linear.onnx'").await;
    let alone = sql(&on_cpu, &query).await;
    let sum = |batches: &[datafusion::arrow::array::RecordBatch]| {
        let sum =
            datafusion::arrow::compute::cast(batches[0].column(1), &datafusion::arrow::datatypes::DataType::Float64);
        sum.expect("numbers").as_primitive::<Float64Type>().value(0)
    };
    assert!((sum(&batches) / sum(&alone) - 1.0).abs() < 1e-6);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_batch_is_encoded_while_one_is_on_the_device() {
    for (partitions, cores) in [(1, 1), (1, 2), (4, 2)] {
        let (ctx, fake) = with_device(partitions, cores).await;
        let before = fake.runs.load(Ordering::SeqCst);
        fake.looks_for_next.store(true, Ordering::SeqCst);
        sql(&ctx, &format!("SELECT sum(predict('first', a, b)) FROM {ROWS}")).await;
        let runs = fake.runs.load(Ordering::SeqCst) - before;
        let followed = fake.followed.load(Ordering::SeqCst);
        assert!(runs >= 20, "{runs}");
        // Behind the last one nothing comes; behind the first, perhaps not yet.
        assert!(followed + 3 >= runs, "{partitions} partitions, {cores} cores: {followed} of {runs}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn several_devices_share_the_batches() {
    for partitions in [1, 4] {
        let (ctx, fake) = with_device(partitions, 2).await;
        let create = |name: &str, device: &str| {
            format!(
                "CREATE MODEL {name} FEATURES (a, b) FROM 'tests/models/queries/linear.onnx' OPTIONS (device '{device}', batch_size 256)"
            )
        };
        sql(&ctx, &create("both", "cuda:0,1")).await;
        fake.of_each.iter().for_each(|runs| runs.store(0, Ordering::SeqCst));
        fake.most_at_once.store(0, Ordering::SeqCst);
        fake.is_slow.store(true, Ordering::SeqCst);
        let rows = sql(&ctx, &format!("SELECT count(predict('both', a, b)) FROM {ROWS}")).await;
        assert_eq!(rows[0].column(0).as_primitive::<Int64Type>().value(0), 20_000);
        assert_eq!(fake.most_at_once.load(Ordering::SeqCst), 2, "{partitions} partitions");
        let of_each = fake.of_each.each_ref().map(|runs| runs.load(Ordering::SeqCst));
        assert!(of_each.iter().all(|runs| *runs >= 20), "{of_each:?}");
        let described = ctx.predict_sql("DESCRIBE MODEL both").await.expect("a model").to_string().await.expect("rows");
        assert!(described.contains("cuda:0,1"), "{described}");
        let problem = error(&ctx, &create("twice", "cuda:0,0")).await;
        assert!(problem.contains("option 'device' is 'cuda:0,0': it names cuda:0 twice"), "{problem}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn models_take_turns() {
    let (ctx, fake) = with_device(4, 2).await;
    fake.order.lock().expect("no panic").clear();
    fake.asked.lock().expect("no panic").clear();
    fake.is_held.store(true, Ordering::SeqCst);
    let models = ["first", "second", "third"];
    let queries = models.map(|model| {
        let (ctx, query) = (ctx.clone(), format!("SELECT sum(predict('{model}', a, b)) FROM {ROWS}"));
        tokio::spawn(async move { sql(&ctx, &query).await })
    });
    while fake.asked.lock().expect("no panic").len() < models.len() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    fake.is_held.store(false, Ordering::SeqCst);
    for query in queries {
        query.await.expect("no panic");
    }
    // A query has few runs under way, so none waits until another is done with all of its rows.
    let order = fake.order.lock().expect("no panic").clone();
    let all = |model: &str| order.iter().filter(|ran| *ran == model).count();
    for model in models {
        assert!(all(model) > 70, "{model}: {}", all(model));
        let first = order.iter().position(|ran| ran == model).expect("it ran");
        assert!(first < 50, "{model} waited for {first} runs of {}", order.len());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_query_leaves_the_device_to_others() {
    let (ctx, fake) = with_device(4, 2).await;
    fake.is_endless.store(true, Ordering::SeqCst);
    let query = format!("SELECT predict('first', a, b) FROM {ROWS}");
    for _ in 0..3 {
        let before = fake.runs.load(Ordering::SeqCst);
        let mut stream = ctx.predict_sql(&query).await.expect("a plan").execute_stream().await.expect("a stream");
        let next = stream.next();
        tokio::select! {
            batch = next => panic!("no batch is done: {batch:?}"),
            () = async { while fake.runs.load(Ordering::SeqCst) == before { tokio::task::yield_now().await } } => {}
        }
        drop(stream);
    }
    fake.is_endless.store(false, Ordering::SeqCst);
    let rows = sql(&ctx, &format!("SELECT count(predict('second', a, b)) FROM {ROWS}")).await;
    assert_eq!(rows[0].column(0).as_primitive::<Int64Type>().value(0), 20_000);
    assert_eq!(fake.queue.waiting(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_fails_is_an_error_and_the_next_query_works() {
    let (ctx, fake) = with_device(4, 2).await;
    fake.fails.store(true, Ordering::SeqCst);
    let query = format!("SELECT count(predict('first', a, b)) FROM {ROWS}");
    let problem = error(&ctx, &query).await;
    assert!(problem.contains("model 'first': the device is gone"), "{problem}");
    fake.fails.store(false, Ordering::SeqCst);
    let rows = sql(&ctx, &query).await;
    assert_eq!(rows[0].column(0).as_primitive::<Int64Type>().value(0), 20_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn auto_leaves_a_device_that_is_slower_or_fails() {
    let (ctx, fake) = with_device(1, 1).await;
    let create =
        "CREATE OR REPLACE MODEL m FEATURES (a, b) FROM 'tests/models/queries/linear.onnx' OPTIONS (device 'auto')";
    for (flag, why) in [
        (&fake.is_slow, "device 'auto' has tried webgpu and left it: a row costs"),
        (&fake.fails, "on which the model fails"),
    ] {
        flag.store(true, Ordering::SeqCst);
        let made = ctx.predict_sql(create).await.expect("a model").to_string().await.expect("a row");
        assert!(made.contains(why) && made.contains("| native | cpu    |"), "{made}");
        flag.store(false, Ordering::SeqCst);
    }
    sql(&ctx, "SELECT predict('m', 1.0, 2.0)").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fewer_digits_change_is_said_when_a_model_is_created() {
    let ctx = session(1);
    let create = "CREATE MODEL m FROM 'tests/models/precision/layers.onnx' OPTIONS (precision 'fp16')";
    let made = ctx.predict_sql(create).await.expect("a model").to_string().await.expect("a row");
    assert!(made.contains("precision 'fp16': on made-up rows the outputs differ by at most"), "{made}");
    assert!(made.contains("makes nothing faster on the CPU"), "{made}");
    let told = ctx.predict_sql("DESCRIBE MODEL m").await.expect("a model").to_string().await.expect("rows");
    // They are: rounded floats may say otherwise.
    assert!(told.contains("| rows independent | true"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_catalog_keeps_precision_and_devices() {
    let folder = tempfile::tempdir().expect("a folder");
    let uri = folder.path().to_str().expect("UTF-8");
    let open = || async {
        let catalog = Arc::new(ObjectStoreCatalog::open(uri).await.expect("a catalog"));
        let fake = Arc::new(Fake::default());
        let runtime = PredictRuntime::builder().with_catalog(catalog).with_engine(Arc::new(FakeEngine(fake.clone())));
        let ctx = SessionContext::new().with_predict(Arc::new(runtime.build()));
        let rows = "CREATE EXTERNAL TABLE rows STORED AS PARQUET LOCATION 'tests/models/precision/layers.parquet'";
        sql(&ctx, rows).await;
        (ctx, fake)
    };
    let scores = "SELECT sum(predict('half', x)['wide'][3]) AS s, sum(expected_wide[3]) AS e FROM rows";
    let (ctx, _) = open().await;
    sql(&ctx, "CREATE MODEL half FROM 'tests/models/precision/layers.onnx' OPTIONS (precision 'fp16')").await;
    let create =
        "CREATE MODEL both FEATURES (a, b) FROM 'tests/models/queries/linear.onnx' OPTIONS (device 'cuda:0,1')";
    sql(&ctx, create).await;
    let sums = |batches: &[RecordBatch]| [0, 1].map(|i| batches[0].column(i).as_primitive::<Float64Type>().value(0));
    let before = sums(&sql(&ctx, scores).await);
    let (ctx, fake) = open().await;
    let after = sums(&sql(&ctx, scores).await);
    assert_eq!(before, after);
    assert!(after[0] != after[1] && (after[0] - after[1]).abs() < 0.1, "{after:?}");
    sql(&ctx, "SELECT predict('both', 1.0, 2.0)").await;
    assert_eq!(fake.loaded.load(Ordering::SeqCst), 2, "one for each device");
    let told = ctx.predict_sql("DESCRIBE MODEL both").await.expect("a model").to_string().await.expect("rows");
    assert!(told.contains("cuda:0,1"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_are_not_on_the_device_are_told() {
    let (ctx, _) = with_device(1, 1).await;
    let told = ctx.predict_sql("DESCRIBE MODEL first").await.expect("a model").to_string().await.expect("rows");
    assert!(told.contains("9 of 12 nodes run on device 'webgpu', the others on the CPU: Cast, Shape (2)"), "{told}");
    assert!(told.contains("nodes on device"), "{told}");
    let plan = format!("EXPLAIN ANALYZE SELECT predict('first', a, b) FROM {ROWS}");
    let plan = ctx.predict_sql(&plan).await.expect("a plan").to_string().await.expect("rows");
    assert!(plan.contains("device=webgpu, nodes=9 of 12"), "{plan}");
}
