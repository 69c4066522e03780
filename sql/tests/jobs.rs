//! Jobs that processes share: every row once, whoever is killed, for readers of the job and for listers of its folder.
//!
//! `JOB_KILLS` says how many runs one of the processes is killed in; `make jobs` has 100 of them in a folder, and 20 on S3.

mod common;
mod python_server;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use common::shell;
use datafusion::arrow::array::AsArray;
use datafusion::arrow::datatypes::Int64Type;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion_predict::{ObjectStoreCatalog, PredictExt, PredictRuntime, PredictSql};
use python_server::PythonServer;

const FILES: u64 = 200;
const ROWS: u64 = 20;

/// A place for a lake, a catalog and an output, and how a shell reaches it.
struct Place {
    root: String,
    environment: Vec<(&'static str, String)>,
}

impl Place {
    fn sql(&self, sql: &str) -> String {
        let mut command = shell();
        let catalog = format!("{}/catalog", self.root);
        command.args(["-q", "--format", "csv", "--catalog", &catalog, "-c", &sql.replace("{root}", &self.root)]);
        let ran = command.envs(self.environment.iter().cloned()).output().expect("the shell starts");
        assert!(ran.status.success(), "{sql}: {}", String::from_utf8_lossy(&ran.stderr));
        String::from_utf8(ran.stdout).expect("CSV")
    }

    fn run(&self) -> Child {
        let mut command = shell();
        let catalog = format!("{}/catalog", self.root);
        command.args(["run", "nightly", "--json", "--catalog", &catalog]).envs(self.environment.iter().cloned());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the shell starts")
    }

    fn fill(&self, from: u64, files: u64) {
        let copy = |file: u64| {
            let (first, last) = (file * ROWS, (file + 1) * ROWS - 1);
            format!(
                "COPY (SELECT value AS id, value * 0.5 AS a, 1.0 AS b FROM generate_series({first}, {last}) AS g(value))
                 TO '{{root}}/in/f{file:04}.parquet';"
            )
        };
        self.sql(&(from..from + files).map(copy).collect::<String>());
    }

    fn create(&self) {
        self.sql(
            "CREATE OR REPLACE MODEL linear FROM 'tests/models/queries/linear.onnx';
             CREATE EXTERNAL TABLE lake STORED AS PARQUET LOCATION '{root}/in/';
             CREATE JOB nightly AS COPY (SELECT id, predict('linear', l.*) AS p FROM lake l) TO '{root}/out'
             OPTIONS (split_size 1, lease '2s')",
        );
    }
}

/// A number that is not the same twice.
fn random() -> u64 {
    static STATE: AtomicU64 = AtomicU64::new(88_172_645_463_325_252);
    let mut x = STATE.load(Ordering::Relaxed) ^ (u64::from(std::process::id()) << 20);
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    STATE.store(x, Ordering::Relaxed);
    x
}

fn kills(default: u64) -> u64 {
    std::env::var("JOB_KILLS").ok().and_then(|number| number.parse().ok()).unwrap_or(default)
}

async fn session(root: &str) -> SessionContext {
    let catalog = ObjectStoreCatalog::open(&format!("{root}/catalog")).await.expect("the catalog");
    let runtime = PredictRuntime::builder().with_catalog(Arc::new(catalog)).build();
    let environment = RuntimeEnvBuilder::new().with_object_list_cache_limit(0).build_arc().expect("an environment");
    let context = SessionContext::new_with_config_rt(SessionConfig::new().with_target_partitions(1), environment);
    context.enable_url_table().with_predict(Arc::new(runtime))
}

/// How many rows `table` has, and how many ids.
async fn counted(context: &SessionContext, table: &str) -> datafusion::error::Result<(i64, i64)> {
    let sql = format!("SELECT count(*), count(DISTINCT id) FROM {table}");
    let batches = context.predict_sql(&sql).await?.collect().await?;
    let number = |column: usize| batches[0].column(column).as_primitive::<Int64Type>().value(0);
    Ok((number(0), number(1)))
}

/// Counts the rows of the job, and of its folder, again and again: no row twice, and never fewer than before.
async fn read_until(stop: Arc<AtomicBool>, root: String) -> u64 {
    let context = session(&root).await;
    let (mut before, mut listed_before, mut looks) = (0, 0, 0);
    while !stop.load(Ordering::SeqCst) {
        let (rows, ids) = counted(&context, "job_output('nightly')").await.expect("the job is read");
        assert_eq!(rows, ids, "a reader of the job sees a row twice");
        assert!(rows >= before, "a reader of the job misses rows: {rows} after {before}");
        before = rows;
        if Path::new(&root).join("out/g000001").is_dir() {
            let (rows, ids) = counted(&context, &format!("'{root}/out/g000001/'")).await.expect("the folder is listed");
            assert_eq!(rows, ids, "a lister sees a row twice");
            assert!(rows >= listed_before, "a lister misses rows: {rows} after {listed_before}");
            listed_before = rows;
        }
        looks += 1;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    looks
}

/// Three processes score `splits` splits, one of which is killed within `time`; gives how many splits were scored in vain.
fn three_with_a_kill(place: &Place, time: Duration) -> (u64, Duration) {
    let start = Instant::now();
    let mut processes: Vec<Child> = (0..3).map(|_| place.run()).collect();
    std::thread::sleep(Duration::from_micros(random() % u64::try_from(time.as_micros()).expect("a short time")));
    let mut killed = processes.swap_remove((random() % 3) as usize);
    killed.kill().expect("SIGKILL");
    killed.wait().expect("it ends");
    let mut lost = 0;
    for process in processes {
        let ran = process.wait_with_output().expect("it ends");
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
        let summary: serde_json::Value = serde_json::from_slice(&ran.stdout).expect("a summary");
        assert_eq!(summary["status"], "done", "{summary}");
        lost += summary["splits_lost"].as_u64().expect("a number");
    }
    (lost, start.elapsed())
}

fn files_below(folder: &Path) -> BTreeSet<String> {
    let mut files = BTreeSet::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.path() {
            path if path.is_dir() => files.extend(files_below(&path)),
            path => _ = files.insert(path.to_string_lossy().into_owned()),
        }
    }
    files
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_that_are_killed_lose_no_row_and_score_none_twice_in_a_folder() {
    let mut within = 0;
    let runs = kills(4);
    let mut time = Duration::from_secs(2);
    for run in 0..runs {
        let folder = tempfile::tempdir().expect("a folder");
        let place = Place { root: folder.path().to_string_lossy().into_owned(), environment: vec![] };
        place.fill(0, FILES);
        place.create();
        let stop = Arc::new(AtomicBool::new(false));
        let reader = tokio::spawn(read_until(stop.clone(), place.root.clone()));
        let (lost, took) = tokio::task::block_in_place(|| three_with_a_kill(&place, time));
        // What the killed one had under way is scored again: no more than it works at at once.
        assert!(lost <= FILES / 20, "{lost} of {FILES} splits were scored in vain");
        // An append, with nobody killed.
        place.fill(FILES, 3);
        let ran = place.run().wait_with_output().expect("it ends");
        let summary: serde_json::Value = serde_json::from_slice(&ran.stdout).expect("a summary");
        assert_eq!((&summary["rows_in"], &summary["splits"]), (&(3 * ROWS).into(), &3.into()), "{summary}");
        stop.store(true, Ordering::SeqCst);
        let looks = reader.await.expect("the reader has seen nothing wrong");

        let expected = place.sql("SELECT id, predict('linear', l.*) AS p FROM '{root}/in/' l ORDER BY id");
        assert_eq!(expected.lines().count() as u64, (FILES + 3) * ROWS + 1);
        assert_eq!(place.sql("SELECT * FROM job_output('nightly') ORDER BY id"), expected);
        assert_eq!(place.sql("SELECT * FROM '{root}/out/g000001/' ORDER BY id"), expected);
        let below = files_below(&folder.path().join("out"));
        assert_eq!(below.len() as u64, FILES + 3);
        assert!(files_below(&folder.path().join("out.job/staged")).is_empty());
        let workers = place.sql("SELECT count(DISTINCT worker) FROM predict.job_splits WHERE run = 1");
        within += u64::from(workers.trim().ends_with('3'));
        eprintln!(
            "run {run}: {lost} splits in vain, {looks} looks, {took:?}, workers {}",
            workers.trim().replace('\n', " ")
        );
        time = took.min(Duration::from_secs(4)).max(Duration::from_millis(300));
    }
    assert!(within > 0, "no process was killed after it had scored something");
}

#[test]
fn processes_that_are_killed_lose_no_row_and_score_none_twice_on_s3() {
    for _ in 0..kills(5).div_ceil(5) {
        let server = PythonServer::start("s3.py", &[]);
        let cache = tempfile::tempdir().expect("a folder");
        let environment = vec![
            ("AWS_ENDPOINT_URL", format!("http://127.0.0.1:{}", server.line)),
            ("AWS_ALLOW_HTTP", "true".to_owned()),
            ("AWS_ACCESS_KEY_ID", "key".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", "not-to-be-seen".to_owned()),
            ("AWS_REGION", "us-east-1".to_owned()),
            ("DATAFUSION_PREDICT_CACHE", cache.path().to_string_lossy().into_owned()),
        ];
        let place = Place { root: "s3://models/lake".to_owned(), environment };
        place.fill(0, FILES);
        place.create();
        let (lost, took) = three_with_a_kill(&place, Duration::from_secs(10));
        assert!(lost <= FILES / 20, "{lost} of {FILES} splits were scored in vain");
        eprintln!("{lost} splits in vain, {took:?}");
        let expected = place.sql("SELECT id, predict('linear', l.*) AS p FROM '{root}/in/' l ORDER BY id");
        assert_eq!(expected.lines().count() as u64, FILES * ROWS + 1);
        assert_eq!(place.sql("SELECT * FROM job_output('nightly') ORDER BY id"), expected);
        assert_eq!(place.sql("SELECT * FROM '{root}/out/g000001/' ORDER BY id"), expected);
    }
}
