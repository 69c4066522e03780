//! Jobs from Rust: every row once, whatever changes or fails.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use async_trait::async_trait;
use datafusion::arrow::array::AsArray;
use datafusion::arrow::datatypes::Int64Type;
use datafusion::error::Result as DFResult;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion_predict::{
    Job, JobEvent, ObjectStoreCatalog, PredictExt, PredictRuntime, PredictSql, RunReason, RunStatus, RunSummary,
};
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path as StorePath;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, Result as StoreResult,
};

const MODEL: &str = "CREATE OR REPLACE MODEL linear FROM 'tests/models/queries/linear.onnx'";

/// A lake, a catalog and a session, gone with it.
struct Lake {
    folder: tempfile::TempDir,
    context: SessionContext,
}

impl Lake {
    async fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let context = session(folder.path()).await;
        std::fs::create_dir(folder.path().join("in")).expect("a folder");
        let lake = Self { folder, context };
        lake.sql(MODEL).await;
        lake
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_string_lossy().into_owned()
    }

    /// `{name}` stands for the path of `name`.
    async fn try_sql(&self, sql: &str) -> DFResult<Vec<datafusion::arrow::array::RecordBatch>> {
        let mut text = sql.to_owned();
        while let (Some(start), Some(end)) = (text.find('{'), text.find('}')) {
            text = format!("{}{}{}", &text[..start], self.path(&text[start + 1..end]), &text[end + 1..]);
        }
        self.context.predict_sql(&text).await?.collect().await
    }

    async fn sql(&self, sql: &str) -> Vec<datafusion::arrow::array::RecordBatch> {
        self.try_sql(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    async fn error(&self, sql: &str) -> String {
        match self.try_sql(sql).await {
            Ok(_) => panic!("{sql}: no error"),
            Err(error) => error.to_string(),
        }
    }

    /// A file of the lake with `rows` rows from `first` on.
    async fn file(&self, name: &str, first: i64, rows: i64) {
        let place = self.path(&format!("in/{name}.parquet"));
        let folder = Path::new(&place).parent().expect("a folder").to_owned();
        std::fs::create_dir_all(folder).expect("a folder");
        // Beside it, and then moved: a writer of a lake leaves no half of a file.
        let fresh = self.path(&format!("fresh-{}.parquet", uuid(name)));
        let select = format!(
            "SELECT value AS id, value * 0.5 AS a, (value % 7) * 1.0 AS b
             FROM generate_series({first}, {}) AS g(value)",
            first + rows - 1
        );
        self.sql(&format!("COPY ({select}) TO '{fresh}'")).await;
        std::fs::rename(fresh, place).expect("moved");
    }

    async fn job(&self, query: &str, clauses: &str) {
        self.sql(&format!("CREATE JOB j AS COPY ({query}) TO '{{out}}' STORED AS PARQUET {clauses}")).await;
    }

    async fn run(&self) -> RunSummary {
        self.run_for(RunReason::New).await.expect("the run succeeds")
    }

    async fn run_for(&self, reason: RunReason) -> DFResult<RunSummary> {
        Job::open(&self.context, "j").await?.run(&self.context, reason).finish().await
    }

    /// Begins a run, and drops it when the first split is done.
    async fn interrupted(&self) {
        self.interrupt(RunReason::New).await;
    }

    async fn interrupted_full(&self) {
        self.interrupt(RunReason::Full).await;
    }

    async fn interrupt(&self, reason: RunReason) {
        let job = Job::open(&self.context, "j").await.expect("the job");
        let mut run = job.run(&self.context, reason);
        while let Some(event) = run.next().await {
            if matches!(event, JobEvent::Split { .. }) {
                return;
            }
        }
        panic!("it has ended");
    }

    async fn rows(&self, sql: &str) -> Vec<String> {
        let batches = self.sql(sql).await;
        let table = datafusion::arrow::util::pretty::pretty_format_batches(&batches).expect("a table").to_string();
        let mut rows: Vec<_> = table.lines().skip(3).filter(|line| !line.starts_with('+')).map(str::to_owned).collect();
        rows.sort();
        rows
    }

    /// The output, as a reader of the job and as a lister of its folder find it, is that of `query`.
    async fn check(&self, query: &str) {
        let expected = self.rows(query).await;
        assert_eq!(self.rows("SELECT * FROM job_output('j')").await, expected);
        let folder = self.sql("SELECT folder FROM predict.jobs").await;
        let folder = folder[0].column(0).as_string::<i32>().value(0).to_owned();
        if !expected.is_empty() {
            assert_eq!(self.rows(&format!("SELECT * FROM '{folder}'")).await, expected, "{folder}");
        }
        let staged = walk(&self.folder.path().join("out.job/staged"));
        assert!(staged.is_empty(), "{staged:?}");
    }

    async fn number(&self, sql: &str) -> i64 {
        let batches = self.sql(sql).await;
        batches.iter().map(|batch| batch.column(0).as_primitive::<Int64Type>().value(0)).sum()
    }
}

async fn session(folder: &Path) -> SessionContext {
    let catalog = ObjectStoreCatalog::open(&folder.join("catalog").to_string_lossy()).await.expect("a catalog");
    let runtime = PredictRuntime::builder().with_catalog(Arc::new(catalog)).build();
    let config = SessionConfig::new().with_target_partitions(2).with_information_schema(true);
    // What a plain query sees of a folder is what is there, not what was there when it was first listed.
    let environment = RuntimeEnvBuilder::new().with_object_list_cache_limit(0).build_arc().expect("an environment");
    let context = SessionContext::new_with_config_rt(config, environment);
    context.enable_url_table().with_predict(Arc::new(runtime))
}

fn uuid(name: &str) -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("{}-{}", name.replace(['/', '='], "-"), NEXT.fetch_add(1, Ordering::Relaxed))
}

fn walk(folder: &Path) -> Vec<String> {
    let mut files = vec![];
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.path() {
            path if path.is_dir() => files.extend(walk(&path)),
            path => files.push(path.to_string_lossy().into_owned()),
        }
    }
    files
}

const QUERY: &str = "SELECT id, predict('linear', t.*) AS p FROM '{in}' t WHERE id % 3 <> 0";

#[tokio::test(flavor = "multi_thread")]
async fn the_next_run_scores_what_is_new_or_changed_and_retires_what_is_gone() {
    let lake = Lake::new().await;
    for i in 0..4 {
        lake.file(&format!("f{i}"), i * 1000, 1000).await;
    }
    lake.job(QUERY, "OPTIONS (split_size 1)").await;
    let first = lake.run().await;
    assert_eq!((first.splits, first.rows_in, first.rows_out), (4, 4000, 2666));
    lake.check(QUERY).await;
    let nothing = lake.run().await;
    assert_eq!((nothing.run, nothing.splits, nothing.rows_in), (2, 0, 0));

    lake.file("f4", 9000, 10).await;
    let new = lake.run().await;
    assert_eq!((new.splits, new.rows_in), (1, 10));
    lake.check(QUERY).await;

    lake.file("f1", 20_000, 50).await;
    std::fs::remove_file(lake.path("in/f2.parquet")).expect("gone");
    let changed = lake.run().await;
    assert_eq!((changed.splits, changed.rows_in), (1, 50));
    lake.check(QUERY).await;

    let full = lake.run_for(RunReason::Full).await.expect("scored");
    assert_eq!((full.rows_in, full.generation), (2060, 2));
    lake.check(QUERY).await;
    assert_eq!(lake.number("SELECT count(*) FROM predict.job_runs WHERE status = 'done'").await, 5);
    let scored = "SELECT count(*) FROM predict.job_splits s JOIN predict.job_runs r ON s.run = r.run
                  WHERE s.path LIKE '%f4.parquet' AND array_has(map_keys(r.models), 'linear/1')";
    assert_eq!(lake.number(scored).await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_of_small_files_stays_one() {
    let lake = Lake::new().await;
    for i in 0..20 {
        lake.file(&format!("f{i:02}"), i * 10, 10).await;
    }
    lake.job(QUERY, "").await;
    assert_eq!(lake.run().await.splits, 1);
    lake.file("f00a", 1000, 10).await;
    let new = lake.run().await;
    assert_eq!((new.splits, new.rows_in), (1, 10));
    std::fs::remove_file(lake.path("in/f03.parquet")).expect("gone");
    let rest = lake.run().await;
    assert_eq!((rest.splits, rest.rows_in), (1, 190));
    lake.check(QUERY).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_removes_what_earlier_runs_have_left_on_its_way_and_nothing_of_later_ones() {
    let lake = Lake::new().await;
    lake.file("a", 0, 10).await;
    lake.job(QUERY, "").await;
    lake.run().await;
    let place = |run: u64| lake.path(&format!("out.job/staged/{run}/left.parquet"));
    for run in [1, 3] {
        std::fs::create_dir_all(Path::new(&place(run)).parent().expect("a folder")).expect("a folder");
        std::fs::write(place(run), "half of a file").expect("written");
    }
    lake.file("b", 10, 10).await;
    lake.run().await;
    assert!(!Path::new(&place(1)).exists() && Path::new(&place(3)).exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_come_later_may_hold_nulls_and_lack_columns() {
    let lake = Lake::new().await;
    // Literals and series are columns without NULL.
    lake.file("a", 0, 10).await;
    let query = "SELECT id, predict('linear', t.*) AS p FROM '{in}' t";
    lake.job(query, "").await;
    lake.run().await;
    lake.sql("COPY (SELECT 10 AS id, CAST(NULL AS DOUBLE) AS a, 1.0 AS b) TO '{in/b.parquet}'").await;
    lake.sql("COPY (SELECT 11 AS id, 2.0 AS a) TO '{in/c.parquet}'").await;
    let run = lake.run().await;
    assert_eq!((run.status, run.rows_out), (RunStatus::Done, 2));
    let nulls = lake.number("SELECT count(*) FROM job_output('j') WHERE p IS NULL").await;
    assert_eq!((nulls, lake.number("SELECT count(*) FROM job_output('j')").await), (2, 12));
}

#[tokio::test(flavor = "multi_thread")]
async fn large_files_are_cut_at_row_groups() {
    let lake = Lake::new().await;
    lake.sql("SET datafusion.execution.parquet.max_row_group_size = 20000").await;
    lake.file("large", 0, 600_000).await;
    lake.job(QUERY, "OPTIONS (split_size '1m')").await;
    let run = lake.run().await;
    assert!(run.splits > 2, "{}", run.splits);
    assert_eq!((run.rows_in, run.rows_out), (600_000, 400_000));
    lake.check("SELECT id, predict('linear', t.*) AS p FROM '{in}' t WHERE id % 3 <> 0").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn large_files_of_text_are_cut_at_lines() {
    let lake = Lake::new().await;
    let rows = "SELECT value AS id, value * 0.5 AS a, 1.0 AS b FROM generate_series(1, 150000) AS g(value)";
    for (format, options) in [("csv", "OPTIONS ('format.has_header' true)"), ("json", "")] {
        lake.sql(&format!("COPY ({rows}) TO '{{{format}/all.{format}}}' STORED AS {format} {options}")).await;
        let location = format!("STORED AS {format} LOCATION '{{{format}/}}' {options}");
        lake.sql(&format!("CREATE EXTERNAL TABLE {format} {location}")).await;
        let query = format!("SELECT id, predict('linear', t.a, t.b) AS p FROM {format} t WHERE id % 3 <> 0");
        lake.sql("DROP JOB IF EXISTS j").await;
        lake.sql(&format!("CREATE JOB j AS COPY ({query}) TO '{{out_{format}}}' OPTIONS (split_size '1m')")).await;
        let run = lake.run().await;
        assert!(run.splits > 2, "{format}: {}", run.splits);
        assert_eq!((run.rows_in, run.rows_out), (150_000, 100_000));
        assert_eq!(lake.rows("SELECT * FROM job_output('j')").await, lake.rows(&query).await, "{format}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_version_of_the_model_is_seen_all_at_once() {
    let lake = Lake::new().await;
    for i in 0..30 {
        lake.file(&format!("f{i:02}"), i * 10, 10).await;
    }
    lake.job(QUERY, "KEEP 2 OPTIONS (split_size 1)").await;
    lake.run().await;
    let old = lake.rows("SELECT * FROM job_output('j')").await;
    lake.sql("CREATE OR REPLACE MODEL linear FROM 'tests/models/queries/linear.onnx' OPTIONS (batch_size 7)").await;
    let reader = session(lake.folder.path()).await;
    let job = Job::open(&lake.context, "j").await.expect("the job");
    let mut run = job.run(&lake.context, RunReason::New);
    let mut seen = 0;
    while let Some(event) = run.next().await {
        if let JobEvent::Split { .. } = event {
            let rows = reader.predict_sql("SELECT * FROM job_output('j')").await.expect("planned");
            assert_eq!(rows.count().await.expect("read"), old.len());
            seen += 1;
        }
    }
    assert!(seen > 10, "{seen}");
    assert_eq!(run.finish().await.expect("scored").generation, 2);
    lake.check(QUERY).await;

    lake.sql("ROLLBACK JOB j").await;
    assert_eq!(lake.rows("SELECT * FROM job_output('j')").await, old);
    lake.sql("ROLLBACK JOB j TO 2").await;
    assert!(lake.error("ROLLBACK JOB j TO 7").await.contains("no generation 7: there are 1, 2"));
    lake.run_for(RunReason::Full).await.expect("scored");
    assert!(walk(&lake.folder.path().join("out/g000001")).is_empty());
    lake.check(QUERY).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_cannot_be_read_fail_the_run_or_are_set_aside() {
    let lake = Lake::new().await;
    for i in 0..3 {
        lake.file(&format!("f{i}"), i * 100, 100).await;
    }
    lake.job(QUERY, "").await;
    let whole = std::fs::read(lake.path("in/f1.parquet")).expect("read");
    std::fs::write(lake.path("in/f1.parquet"), &whole[..whole.len() / 2]).expect("truncated");
    lake.sql("COPY (SELECT 'x' AS id, true AS a) TO '{in/other.parquet}'").await;
    let error = lake.run_for(RunReason::New).await.expect_err("a file is truncated").to_string();
    assert!(error.contains("job 'j', run 1") && error.contains("f1.parquet"), "{error}");

    lake.sql("ALTER JOB j SET (on_file_error set_aside)").await;
    let run = lake.run().await;
    assert_eq!((run.status, run.files_failed, run.rows_out), (RunStatus::DoneWithErrors, 2, 133));
    let errors = lake.rows("SELECT path, error FROM predict.job_errors WHERE run = 2").await;
    assert!(errors[0].contains("f1.parquet") && errors[0].to_lowercase().contains("parquet"), "{errors:?}");
    assert!(errors[1].contains("other.parquet"), "{errors:?}");

    // Nothing has changed: what could not be read is not tried again, unless it is asked for.
    assert_eq!(lake.run().await.splits, 0);
    std::fs::write(lake.path("in/f1.parquet"), &whole).expect("whole again");
    std::fs::remove_file(lake.path("in/other.parquet")).expect("gone");
    let again = lake.run_for(RunReason::Retry).await.expect("scored");
    assert_eq!((again.status, again.rows_in), (RunStatus::Done, 300));
    lake.check(QUERY).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_the_model_refuses_fail_the_run_or_become_null_or_are_set_aside() {
    let lake = Lake::new().await;
    lake.sql("CREATE MODEL strict FROM 'tests/models/queries/linear.onnx' OPTIONS (on_null 'error')").await;
    lake.file("f0", 0, 100).await;
    lake.sql(
        "COPY (SELECT 500 AS id, NULL::DOUBLE AS a, 1.0 AS b UNION ALL SELECT 501, 1.0, 2.0) TO '{in/f1.parquet}'",
    )
    .await;
    lake.job("SELECT id, predict('strict', t.a, t.b) AS p FROM '{in}' t", "").await;
    let error = lake.run_for(RunReason::New).await.expect_err("a row is refused").to_string();
    assert!(error.contains("model 'strict/1': argument 1") && error.contains("is NULL"), "{error}");
    assert_eq!(lake.number("SELECT count(*) FROM job_output('j')").await, 0);

    lake.sql("ALTER JOB j SET (on_row_error null)").await;
    lake.run().await;
    lake.check("SELECT id, try_predict('strict', t.a, t.b) AS p FROM '{in}' t").await;

    lake.sql("ALTER JOB j SET (on_row_error set_aside)").await;
    let run = lake.run().await;
    assert_eq!((run.status, run.rows_in, run.rows_out), (RunStatus::DoneWithErrors, 102, 101));
    lake.check("SELECT id, try_predict('strict', t.a, t.b) AS p FROM '{in}' t WHERE a IS NOT NULL").await;
    let aside = lake.rows("SELECT path FROM predict.job_errors WHERE kind = 'rows'").await;
    let path = aside[0].trim_matches(['|', ' ']).to_owned();
    let rows = lake.rows(&format!("SELECT id, model, version, error FROM '{path}'")).await;
    assert!(rows.len() == 1 && rows[0].contains("500") && rows[0].contains("strict"), "{rows:?}");
    assert!(rows[0].contains("is NULL"), "{rows:?}");

    lake.sql("ALTER JOB j SET (error_threshold 0.001)").await;
    let before = lake.rows("SELECT * FROM job_output('j')").await;
    lake.file("f2", 1000, 10).await;
    lake.sql("COPY (SELECT 600 AS id, NULL::DOUBLE AS a, 1.0 AS b) TO '{in/f3.parquet}'").await;
    let error = lake.run_for(RunReason::New).await.expect_err("too many").to_string();
    assert!(error.contains("1 of 11 rows were set aside (error_threshold 0.001)"), "{error}");
    assert_eq!(lake.rows("SELECT * FROM job_output('j')").await, before);
    lake.sql("ALTER JOB j SET (error_threshold 0.5)").await;
    lake.run().await;
    lake.check("SELECT id, try_predict('strict', t.a, t.b) AS p FROM '{in}' t WHERE a IS NOT NULL").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn output_that_fails_a_check_is_not_published() {
    let lake = Lake::new().await;
    lake.file("f0", 0, 100).await;
    lake.job(QUERY, "CHECK (count(*) > 0, max(id) < 1000, avg(p) IS NOT NULL)").await;
    lake.run().await;
    lake.check(QUERY).await;
    let before = lake.rows("SELECT * FROM job_output('j')").await;
    lake.file("f1", 2000, 100).await;
    let error = lake.run_for(RunReason::New).await.expect_err("too large").to_string();
    assert!(error.contains("CHECK (max(id) < 1000) is not true: max(id) is 2099"), "{error}");
    assert_eq!(lake.rows("SELECT * FROM job_output('j')").await, before);
    assert!(walk(&lake.folder.path().join("out.job/staged")).is_empty());
    lake.file("f1", 200, 100).await;
    lake.run().await;
    lake.check(QUERY).await;
    // No row at all: `count(*) > 0` is not true, but `max(id) < 1000` may be NULL.
    lake.sql("COPY (SELECT 3 AS id, 1.0 AS a, 1.0 AS b) TO '{in/f2.parquet}'").await;
    let error = lake.run_for(RunReason::New).await.expect_err("no rows").to_string();
    assert!(error.contains("CHECK (count(*) > 0) is not true"), "{error}");
    let error = lake.error("CREATE JOB k AS COPY (SELECT 1 AS x FROM '{in}') TO '{k}' CHECK (max(y) > 0)").await;
    assert!(error.contains("CHECK (max(y) > 0)"), "{error}");
    let error = lake.error("CREATE JOB k AS COPY (SELECT 1 AS x FROM '{in}') TO '{k}' CHECK (x > 0)").await;
    assert!(error.contains("expected an aggregate"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn queries_that_depend_on_all_rows_are_refused_by_name_or_run_as_one_split() {
    let lake = Lake::new().await;
    lake.file("f0", 0, 100).await;
    lake.file("f1", 100, 100).await;
    for (query, what) in [
        ("SELECT id FROM '{in}' ORDER BY id", "ORDER BY"),
        ("SELECT id FROM '{in}' LIMIT 3", "LIMIT"),
        ("SELECT b, count(*) AS n FROM '{in}' GROUP BY b", "GROUP BY"),
        ("SELECT count(*) AS n FROM '{in}'", "an aggregate"),
        ("SELECT DISTINCT b FROM '{in}'", "DISTINCT"),
        ("SELECT id, row_number() OVER (ORDER BY id) AS n FROM '{in}'", "a window function"),
        ("SELECT x.id FROM '{in}' x FULL JOIN '{in}' y ON x.id = y.id + 1", "FULL JOIN"),
        ("SELECT x.id FROM (SELECT max(id) AS id FROM '{in}') x LEFT JOIN '{in}' y ON x.id = y.id", "an aggregate"),
    ] {
        let error = lake.error(&format!("CREATE JOB k AS COPY ({query}) TO '{{k}}'")).await;
        let expected = format!("can't be cut into splits: {what} needs all rows at once");
        assert!(error.contains(&expected), "{query}: {error}");
    }
    let query = "SELECT b, avg(predict('linear', t.*)) AS p FROM '{in}' t GROUP BY b";
    lake.job(query, "OPTIONS (one_split true)").await;
    let run = lake.run().await;
    assert_eq!((run.splits, run.rows_in), (1, 200));
    lake.check(query).await;
    assert_eq!(lake.run().await.splits, 0);
    lake.file("f2", 200, 100).await;
    assert_eq!(lake.run().await.splits, 1);
    lake.check(query).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unions_and_joins_give_the_rows_of_the_plain_query() {
    let lake = Lake::new().await;
    for i in 0..3 {
        lake.file(&format!("f{i}"), i * 100, 100).await;
    }
    lake.sql("COPY (SELECT value AS b, 'plan ' || value AS plan FROM generate_series(0, 4) AS g(value)) TO '{plans.parquet}'")
        .await;
    for (i, query) in [
        "SELECT id, plan, predict('linear', t.a, t.b) AS p FROM '{in}' t JOIN '{plans.parquet}' s ON t.b = s.b",
        "SELECT id, plan, predict('linear', t.a, t.b) AS p FROM '{in}' t LEFT JOIN '{plans.parquet}' s ON t.b = s.b",
        "SELECT id, plan, predict('linear', t.a, t.b) AS p FROM '{plans.parquet}' s RIGHT JOIN '{in}' t ON t.b = s.b",
        "SELECT id, predict('linear', t.a, t.b) AS p FROM '{in}' t WHERE b IN (SELECT b FROM '{plans.parquet}')",
        "SELECT id, predict('linear', t.a, t.b) AS p FROM '{in}' t
         WHERE NOT EXISTS (SELECT 1 FROM '{plans.parquet}' s WHERE s.b = t.b)",
        "SELECT id, predict('linear', t.a, t.b) AS p FROM '{in}' t WHERE a > (SELECT avg(a) FROM '{in}')",
        "SELECT id, predict('linear', t.a, t.b) AS p FROM '{in}' t WHERE id < 50
         UNION ALL SELECT -id, predict('linear', t.b, t.a) FROM '{in}' t WHERE predict('linear', t.a, t.b) > 10",
        "SELECT id, n, predict('linear', t.a, n) AS p FROM (SELECT id, a, unnest([1.0, 2.0]) AS n FROM '{in}') t",
    ]
    .into_iter()
    .enumerate()
    {
        lake.sql("DROP JOB IF EXISTS j").await;
        let out = format!("CREATE JOB j AS COPY ({query}) TO '{{out{i}}}' OPTIONS (split_size 1)");
        lake.sql(&out).await;
        let run = lake.run().await;
        assert!(run.splits >= 3, "{query}: {run:?}");
        assert_eq!(lake.rows("SELECT * FROM job_output('j')").await, lake.rows(query).await, "{query}");
    }
    // A table that is read whole has changed: what was scored with it is not what the query gives.
    let query = "SELECT id, plan FROM '{in}' t JOIN '{plans.parquet}' s ON t.b = s.b";
    lake.sql("DROP JOB j").await;
    lake.sql(&format!("CREATE JOB j AS COPY ({query}) TO '{{out9}}'")).await;
    let before = lake.run().await.generation;
    lake.sql("COPY (SELECT 3 AS b, 'new' AS plan) TO '{plans.parquet}'").await;
    assert_eq!(lake.run().await.generation, before + 1);
    assert_eq!(lake.rows("SELECT * FROM job_output('j')").await, lake.rows(query).await);
    lake.sql("ALTER JOB j SET (on_lookup_change keep)").await;
    lake.run().await;
    lake.sql("COPY (SELECT 4 AS b, 'newer' AS plan) TO '{plans.parquet}'").await;
    assert_eq!(lake.run().await.splits, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn folders_of_partitions_are_read_and_written() {
    let lake = Lake::new().await;
    for (i, country) in ["de", "fr", "pt"].iter().enumerate() {
        lake.file(&format!("country={country}/f{i}"), i as i64 * 100, 100).await;
    }
    lake.sql("CREATE EXTERNAL TABLE visits STORED AS PARQUET PARTITIONED BY (country) LOCATION '{in/}'").await;
    let query = "SELECT id, predict('linear', t.a, t.b) AS p, b, country FROM visits t WHERE country <> 'fr'";
    lake.job(query, "PARTITIONED BY (country, b) OPTIONS (split_size 1)").await;
    let run = lake.run().await;
    assert_eq!((run.splits, run.rows_out), (2, 200));
    let expected =
        "SELECT id, p, country, b FROM (SELECT id, predict('linear', t.a, t.b) AS p, b, country FROM visits t
                    WHERE country <> 'fr')";
    let expected = lake.rows(expected).await;
    assert_eq!(lake.rows("SELECT id, p, country, b FROM job_output('j')").await, expected);
    assert_eq!(lake.rows("SELECT * FROM job_output('j') WHERE country = 'pt' AND b = 3.0").await.len(), 14);
    let places = walk(&lake.folder.path().join("out/g000001"));
    assert!(places.len() == 14 && places.iter().all(|file| file.contains("country=") && file.contains("b=")));

    let nulls = "CREATE JOB n AS COPY (SELECT id, nullif(b, 3) AS b FROM visits) TO '{nulls}' PARTITIONED BY (b)";
    lake.sql(nulls).await;
    assert!(lake.error("RUN JOB n").await.contains("PARTITIONED BY: column 'b' is NULL in a row"));
    lake.sql("DROP JOB j").await;
    lake.sql(
        "CREATE JOB j AS COPY (SELECT id, b FROM visits) TO '{csv}' STORED AS CSV OPTIONS ('format.has_header' true)",
    )
    .await;
    lake.run().await;
    assert_eq!(lake.rows("SELECT * FROM job_output('j')").await, lake.rows("SELECT id, b FROM visits").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn folders_whose_names_stores_encode_lose_no_row() {
    let lake = Lake::new().await;
    lake.sql(
        "COPY (SELECT value AS id, value * 1.0 AS a, 1.0 AS b,
                      CASE value % 4 WHEN 0 THEN 'München' WHEN 1 THEN 'a/b' WHEN 2 THEN '50 %' ELSE 'x?y#z' END AS city
               FROM generate_series(1, 40) AS g(value)) TO '{in/}' STORED AS PARQUET PARTITIONED BY (city)",
    )
    .await;
    lake.sql("CREATE EXTERNAL TABLE t STORED AS PARQUET PARTITIONED BY (city) LOCATION '{in/}'").await;
    let query = "SELECT id, predict('linear', t.a, t.b) AS p, city FROM t";
    lake.job(query, "PARTITIONED BY (city) OPTIONS (split_size 1)").await;
    let run = lake.run().await;
    assert_eq!((run.splits, run.rows_out), (4, 40));
    let expected = lake.rows("SELECT id, predict('linear', t.a, t.b) AS p FROM t").await;
    assert_eq!(lake.rows("SELECT id, p FROM job_output('j')").await, expected);
    assert_eq!(
        lake.rows("SELECT DISTINCT city FROM job_output('j')").await,
        lake.rows("SELECT DISTINCT city FROM t").await
    );
    assert_eq!(lake.run().await.splits, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_jobs_cannot_write_to_one_folder() {
    let lake = Lake::new().await;
    lake.file("f0", 0, 10).await;
    lake.job(QUERY, "").await;
    lake.run().await;
    let error = lake.error("CREATE JOB k AS COPY (SELECT id FROM '{in}') TO '{out}'").await;
    assert!(error.contains("is the output of another job"), "{error}");
    // All input gone is more likely a mistake than meant.
    std::fs::rename(lake.path("in"), lake.path("moved")).expect("moved");
    std::fs::create_dir(lake.path("in")).expect("a folder");
    let error = lake.run_for(RunReason::New).await.expect_err("nothing there").to_string();
    assert!(error.contains("there are no input files any more"), "{error}");
    std::fs::remove_dir(lake.path("in")).expect("empty");
    std::fs::rename(lake.path("moved"), lake.path("in")).expect("moved");
    assert_eq!(lake.run().await.splits, 0);
    // The same job, made again: its generations are counted on.
    lake.sql("DROP JOB j").await;
    lake.job(QUERY, "").await;
    assert_eq!(lake.run().await.generation, 2);
    lake.check(QUERY).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn output_is_read_as_it_was_written() {
    let lake = Lake::new().await;
    lake.file("f0", 0, 10).await;
    lake.job(QUERY, "").await;
    lake.run().await;
    let before = lake.rows("SELECT * FROM job_output('j')").await;
    let other = "SELECT id * 2 AS twice FROM '{in}'";
    lake.sql(&format!(
        "CREATE OR REPLACE JOB j AS COPY ({other}) TO '{{out}}' STORED AS CSV OPTIONS ('format.has_header' true)"
    ))
    .await;
    assert_eq!(lake.rows("SELECT * FROM job_output('j')").await, before);
    lake.run().await;
    assert_eq!(lake.rows("SELECT * FROM job_output('j')").await, lake.rows(other).await);
    lake.sql("ROLLBACK JOB j").await;
    assert_eq!(lake.rows("SELECT * FROM job_output('j')").await, before);

    // A model that gives another type.
    lake.sql("CREATE MODEL m FROM 'tests/models/types/identity_double.onnx'").await;
    let query = "SELECT id, predict('m', [a, b, a]) AS p FROM '{in}'";
    lake.sql(&format!("CREATE OR REPLACE JOB j AS COPY ({query}) TO '{{out}}'")).await;
    lake.run().await;
    lake.sql(
        "CREATE OR REPLACE MODEL m FROM 'tests/models/types/identity_float.onnx' OPTIONS (allow_signature_change true)",
    )
    .await;
    let run = lake.run().await;
    assert_eq!(run.models[0].label, "m/2");
    lake.check(query).await;
    let types = lake.rows("SELECT DISTINCT arrow_typeof(p) FROM job_output('j')").await;
    assert!(types[0].contains("Float32"), "{types:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_for_is_done_after_what_was_under_way() {
    let lake = Lake::new().await;
    for i in 0..40 {
        lake.file(&format!("f{i:02}"), i * 10, 10).await;
    }
    lake.job(QUERY, "OPTIONS (split_size 1, lease '1s')").await;
    lake.interrupted().await;
    let full = lake.run_for(RunReason::Full).await.expect("scored");
    assert_eq!((full.run, full.generation, full.rows_in), (2, 2, 400));
    lake.check(QUERY).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_that_are_read_whole_are_those_of_the_start_of_the_run() {
    let lake = Lake::new().await;
    for i in 0..40 {
        lake.file(&format!("f{i:02}"), i * 10, 10).await;
    }
    lake.sql("COPY (SELECT value * 1.0 AS b FROM generate_series(0, 3) AS g(value)) TO '{some/a.parquet}'").await;
    let query = "SELECT id, predict('linear', t.a, t.b) AS p FROM '{in}' t WHERE b IN (SELECT b FROM '{some}')";
    lake.job(query, "OPTIONS (split_size 1, lease '1s', on_file_error set_aside)").await;
    let before = lake.rows(query).await;
    lake.interrupted().await;
    lake.sql("COPY (SELECT value * 1.0 AS b FROM generate_series(4, 6) AS g(value)) TO '{some/b.parquet}'").await;
    lake.run().await;
    assert_eq!(lake.rows("SELECT * FROM job_output('j')").await, before);
    lake.run().await;
    lake.check(query).await;

    // One that is not there any more is no fault of the files that are split.
    std::fs::remove_file(lake.path("in/f00.parquet")).expect("gone");
    lake.interrupted_full().await;
    std::fs::remove_file(lake.path("some/a.parquet")).expect("gone");
    let error = lake.run_for(RunReason::New).await.expect_err("a table is not whole").to_string();
    assert!(error.contains("some/a.parquet"), "{error}");
    assert_eq!(lake.number("SELECT count(*) FROM predict.job_errors WHERE kind = 'file'").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_job_needs_is_in_its_definition() {
    let lake = Lake::new().await;
    lake.file("f0", 0, 100).await;
    lake.sql("CREATE EXTERNAL TABLE t STORED AS PARQUET LOCATION '{in/}'").await;
    lake.sql("CREATE VIEW even AS SELECT id, a, b, predict('linear', a, b) AS p FROM t WHERE id % 2 = 0").await;
    lake.job("SELECT id, p FROM even", "").await;
    let other = session(lake.folder.path()).await;
    let summary = other.predict_sql("RUN JOB j").await.expect("run").collect().await.expect("a row");
    assert_eq!(summary[0].num_rows(), 1);
    lake.check("SELECT id, p FROM even").await;

    lake.sql("CREATE TABLE memory AS SELECT 1 AS x").await;
    for (sql, expected) in [
        ("CREATE JOB k AS COPY memory TO '{k}'", "table 'memory' can't be part of a job: it is not one of files"),
        ("CREATE JOB k AS COPY nowhere TO '{k}'", "table 'datafusion.public.nowhere' not found"),
        ("CREATE JOB k AS COPY '{no/}' TO '{k}'", "there is no file"),
        ("CREATE JOB k AS COPY t TO '{in}'", "the output '"),
        ("CREATE JOB k AS COPY t TO '{in/out}'", "lies within it"),
        ("CREATE JOB j AS COPY t TO '{k}'", "job 'j' exists already: CREATE OR REPLACE JOB changes it"),
        ("CREATE JOB k AS COPY t TO 's3://bucket/'", "expected a folder within"),
        ("CREATE JOB k AS COPY t TO '{k}' PARTITIONED BY (idd)", "no column 'idd'; did you mean 'id'?"),
        ("CREATE JOB k AS COPY t TO '{k}' STORED AS PARKET", "the format 'parket' is not known"),
        ("CREATE JOB k AS COPY t TO '{k}' OPTIONS (retrys 3)", "did you mean 'retries'?"),
        ("CREATE JOB k AS COPY t TO '{k}' OPTIONS ('aws.secret_access_key' 'x')", "set environment variables instead"),
        ("CREATE JOB k AS COPY t TO '{k}' WHEN", "STORED AS, PARTITIONED BY, CHECK, KEEP or OPTIONS"),
        ("RUN JOB jj", "unknown job 'jj'; did you mean 'j'?"),
        ("RETRY JOB j", "ERRORS"),
        ("ALTER JOB j SET (timeout soon)", "a duration"),
        ("SELECT * FROM job_output('jj')", "unknown job 'jj'"),
        ("SELECT * FROM job_output(1)", "a job's name is a string"),
    ] {
        let error = lake.error(sql).await;
        assert!(error.contains(expected), "{sql}: {error}");
    }
    let memory = SessionContext::new().with_predict(Arc::new(PredictRuntime::default()));
    let error = memory.predict_sql("SHOW JOBS").await.map(|_| ()).err().map(|error| error.to_string());
    assert_eq!(error, None);
    let error = memory.predict_sql("RUN JOB j").await.map(|_| ()).expect_err("no catalog").to_string();
    assert!(error.contains("jobs need a catalog"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_was_dropped_is_resumed_with_what_it_began_with() {
    let lake = Lake::new().await;
    for i in 0..40 {
        lake.file(&format!("f{i:02}"), i * 10, 10).await;
    }
    lake.job(QUERY, "OPTIONS (split_size 1, lease '1s')").await;
    let before = lake.rows(QUERY).await;
    let job = Job::open(&lake.context, "j").await.expect("the job");
    let mut run = job.run(&lake.context, RunReason::New);
    let mut done = 0;
    while let Some(event) = run.next().await {
        if let JobEvent::Split { done: now, .. } = event {
            done = now;
            if now >= 5 {
                break;
            }
        }
    }
    drop(run);
    assert!(done < 40);
    // Neither another model, nor another definition, nor new files: the run goes on as it began.
    lake.sql("CREATE OR REPLACE MODEL linear FROM 'tests/models/queries/linear.onnx' OPTIONS (batch_size 7)").await;
    lake.file("g", 5000, 10).await;
    assert!(lake.error("ALTER JOB j SET (retries 1)").await.contains("job 'j' is running (run 1)"));
    let summary = lake.run().await;
    assert_eq!((summary.run, summary.splits, summary.splits_done, summary.rows_in), (1, 40, 40, 400));
    assert_eq!(summary.models[0].label, "linear/1");
    assert_eq!(lake.rows("SELECT * FROM job_output('j')").await, before);
    assert_eq!(lake.run().await.generation, 2);
    lake.check(QUERY).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_whose_model_was_dropped_ends_and_one_that_is_cancelled_too() {
    let lake = Lake::new().await;
    for i in 0..40 {
        lake.file(&format!("f{i:02}"), i * 10, 10).await;
    }
    lake.job(QUERY, "OPTIONS (split_size 1, lease '1s')").await;
    lake.interrupted().await;
    lake.sql("DROP MODEL linear").await;
    let error = lake.run_for(RunReason::New).await.expect_err("no model").to_string();
    assert!(error.contains("unknown model 'linear'"), "{error}");
    let errors = lake.rows("SELECT error FROM predict.job_runs WHERE status = 'failed'").await;
    assert!(errors.len() == 1 && errors[0].contains("unknown model 'linear'"), "{errors:?}");

    lake.sql(MODEL).await;
    lake.interrupted().await;
    lake.sql("CANCEL JOB j").await;
    let status = lake.rows("SELECT run, status FROM predict.job_runs ORDER BY run").await;
    assert!(status[1].contains("cancelled"), "{status:?}");
    lake.run().await;
    lake.check(QUERY).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_changes_after_the_run_began_is_an_error_of_that_file() {
    let lake = Lake::new().await;
    for i in 0..40 {
        lake.file(&format!("f{i:02}"), i * 10, 10).await;
    }
    lake.job(QUERY, "OPTIONS (split_size 1, on_file_error set_aside, workers 1, lease '1s')").await;
    lake.interrupted().await;
    for i in 0..40 {
        lake.file(&format!("f{i:02}"), 10_000 + i * 10, 10).await;
    }
    let summary = lake.run().await;
    assert_eq!(summary.run, 1);
    assert!(summary.files_failed >= 30, "{summary:?}");
    assert_eq!(summary.rows_out, lake.number("SELECT count(*) FROM job_output('j')").await as u64);
    assert_eq!(lake.number("SELECT count(*) FROM job_output('j') WHERE id >= 10000").await, 0);
    lake.run().await;
    lake.check(QUERY).await;
}

/// Files come, change and go, models and options change, runs are interrupted: after each run the output is what the query gives.
#[tokio::test(flavor = "multi_thread")]
async fn whatever_happens_to_a_lake_the_output_is_what_the_query_gives() {
    for seed in 0..4 {
        let mut random = fastrand::Rng::with_seed(seed);
        let lake = Lake::new().await;
        let mut next = 0;
        for _ in 0..5 {
            lake.file(&format!("f{next}"), next * 100, random.i64(0..50)).await;
            next += 1;
        }
        let clauses = ["", "OPTIONS (split_size 1)", "CHECK (count(*) >= 0)", "OPTIONS (split_size '30k', workers 1)"];
        lake.job(QUERY, clauses[seed as usize]).await;
        lake.sql("ALTER JOB j SET (lease '1s')").await;
        let mut story = vec![];
        for _ in 0..12 {
            let files = walk(&lake.folder.path().join("in"));
            let some = random.choice(&files).cloned();
            let what = random.u8(0..9);
            story.push(what);
            match (what, some) {
                (0 | 1, _) => {
                    lake.file(&format!("f{next}"), next * 100, random.i64(0..50)).await;
                    next += 1;
                }
                (2, Some(file)) => {
                    let name = Path::new(&file).file_stem().expect("a name").to_string_lossy().into_owned();
                    lake.file(&name, 100_000 + next * 100, random.i64(0..50)).await;
                    next += 1;
                }
                (3, Some(file)) if files.len() > 1 => std::fs::remove_file(file).expect("gone"),
                (4, _) => {
                    let sql = format!("{MODEL} OPTIONS (batch_size {})", random.u32(1..100));
                    lake.sql(&sql).await;
                }
                (5, _) => {
                    let size = random.choice(["1", "2k", "default", "1m"]).expect("one");
                    lake.sql(&format!("ALTER JOB j SET (split_size '{size}', workers {})", random.u32(1..4))).await;
                }
                (6, _) => {
                    // It may have ended before it is dropped: then there is nothing to resume.
                    let job = Job::open(&lake.context, "j").await.expect("the job");
                    let mut run = job.run(&lake.context, RunReason::New);
                    let _ = run.next().await;
                    let _ = run.next().await;
                    drop(run);
                    lake.run().await; // to its end, with what it began with
                }
                (7, _) => drop(lake.run_for(RunReason::Full).await.expect("scored")),
                _ => drop(lake.run().await),
            }
            if what > 3 || random.bool() {
                let run = lake.run().await;
                assert_eq!(run.status, RunStatus::Done, "seed {seed}: {story:?}");
                lake.check(QUERY).await;
            }
        }
    }
}

/// A store in memory that fails as it is told.
#[derive(Debug, Default)]
struct FailingStore {
    inner: InMemory,
    requests: AtomicU64,
    /// One in so many requests fails with what may pass.
    one_in: AtomicU64,
    /// Whether writes fail as on a full disk.
    full: AtomicBool,
    /// Whether writes are not allowed.
    read_only: AtomicBool,
}

impl std::fmt::Display for FailingStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a store that fails")
    }
}

impl FailingStore {
    fn ask(&self) -> StoreResult<()> {
        let number = self.requests.fetch_add(1, Ordering::Relaxed) + 1;
        match self.one_in.load(Ordering::Relaxed) {
            0 => Ok(()),
            one_in if number.is_multiple_of(one_in) => {
                Err(object_store::Error::Generic { store: "failing", source: "503 Slow Down".into() })
            }
            _ => Ok(()),
        }
    }

    fn write(&self) -> StoreResult<()> {
        if self.read_only.load(Ordering::Relaxed) {
            return Err(object_store::Error::PermissionDenied { path: "out".into(), source: "AccessDenied".into() });
        }
        if self.full.load(Ordering::Relaxed) {
            let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
            return Err(object_store::Error::Generic { store: "failing", source: Box::new(full) });
        }
        self.ask()
    }
}

#[async_trait]
impl ObjectStore for FailingStore {
    async fn put_opts(&self, path: &StorePath, payload: PutPayload, options: PutOptions) -> StoreResult<PutResult> {
        self.write()?;
        self.inner.put_opts(path, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        path: &StorePath,
        options: PutMultipartOptions,
    ) -> StoreResult<Box<dyn MultipartUpload>> {
        self.write()?;
        self.inner.put_multipart_opts(path, options).await
    }

    async fn get_opts(&self, path: &StorePath, options: GetOptions) -> StoreResult<GetResult> {
        self.ask()?;
        self.inner.get_opts(path, options).await
    }

    fn delete_stream(
        &self,
        paths: BoxStream<'static, StoreResult<StorePath>>,
    ) -> BoxStream<'static, StoreResult<StorePath>> {
        self.inner.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&StorePath>) -> BoxStream<'static, StoreResult<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&StorePath>) -> StoreResult<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &StorePath, to: &StorePath, options: CopyOptions) -> StoreResult<()> {
        self.write()?;
        self.inner.copy_opts(from, to, options).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_of_stores_that_may_pass_are_tried_again_and_others_are_not() {
    let lake = Lake::new().await;
    for i in 0..30 {
        lake.file(&format!("f{i:02}"), i * 10, 10).await;
    }
    let store = Arc::new(FailingStore::default());
    let url = url::Url::parse("failing://lake").expect("a URL");
    lake.context.register_object_store(&url, store.clone());
    lake.sql(&format!(
        "COPY ({}) TO 'failing://lake/in/all.parquet'",
        QUERY.replace("id, predict('linear', t.*) AS p", "*")
    ))
    .await;
    for i in 0..30 {
        lake.sql(&format!("COPY (SELECT * FROM '{{in/f{i:02}.parquet}}') TO 'failing://lake/in/f{i:02}.parquet'"))
            .await;
    }
    lake.sql("CREATE EXTERNAL TABLE far STORED AS PARQUET LOCATION 'failing://lake/in/'").await;
    let query = "SELECT id, predict('linear', t.*) AS p FROM far t";
    lake.sql(&format!("CREATE JOB j AS COPY ({query}) TO 'failing://lake/out' OPTIONS (split_size 1, retries 5)"))
        .await;
    store.one_in.store(10, Ordering::Relaxed);
    let mut runs = BTreeMap::new();
    // A request of a run's own, such as a move, may fail too: the run ends, and the next goes on.
    for _ in 0..20 {
        match lake.run_for(RunReason::New).await {
            Ok(summary) => {
                runs.insert(summary.run, summary);
                break;
            }
            Err(error) => assert!(error.to_string().contains("503 Slow Down"), "{error}"),
        }
    }
    store.one_in.store(0, Ordering::Relaxed);
    assert!(!runs.is_empty());
    assert_eq!(lake.rows("SELECT * FROM job_output('j')").await, lake.rows(query).await);
    assert!(lake.number("SELECT CAST(max(attempts) AS BIGINT) FROM predict.job_splits").await > 1);

    store.full.store(true, Ordering::Relaxed);
    let requests = store.requests.load(Ordering::Relaxed);
    let before = lake.rows("SELECT * FROM job_output('j')").await;
    let error = lake.run_for(RunReason::Full).await.expect_err("the disk is full").to_string();
    assert!(error.contains("failing://lake/out.job/staged") && error.contains("can't be written"), "{error}");
    assert!(store.requests.load(Ordering::Relaxed) < requests + 200);
    assert_eq!(lake.rows("SELECT * FROM job_output('j')").await, before);

    store.full.store(false, Ordering::Relaxed);
    store.read_only.store(true, Ordering::Relaxed);
    let requests = store.requests.load(Ordering::Relaxed);
    let error = lake.run_for(RunReason::Full).await.expect_err("nothing may be written").to_string();
    assert!(error.contains("failing://lake/out.job/staged") && error.contains("can't be written"), "{error}");
    assert!(error.contains("AccessDenied"), "{error}");
    assert!(store.requests.load(Ordering::Relaxed) < requests + 200);
    assert_eq!(lake.rows("SELECT * FROM job_output('j')").await, before);
    let last = lake.rows("SELECT status, error LIKE '%AccessDenied%' FROM predict.job_runs ORDER BY run DESC LIMIT 1");
    assert_eq!(last.await, ["| failed | true                                               |"]);
    let created = lake.error(&format!("CREATE JOB k AS COPY ({query}) TO 'failing://lake/k'")).await;
    assert!(created.contains("can't be written") && created.contains("AccessDenied"), "{created}");
}
