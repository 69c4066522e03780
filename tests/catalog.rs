//! The catalog from Rust: what it asks of a store, what it says of damage, and what sessions see while it changes.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use datafusion::arrow::array::AsArray;
use datafusion::arrow::datatypes::{Float64Type, Int64Type};
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion_predict::{
    CatalogSnapshot, Change, Error, Interface, ModelCatalog, ObjectStoreCatalog, PredictExt, PredictRuntime,
    PredictSql, VersionRecord, VersionReference,
};
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path as StorePath;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result as StoreResult,
};
use proptest::prelude::*;

/// A store that counts what is asked of it.
#[derive(Debug, Default)]
struct CountingStore {
    inner: InMemory,
    requests: AtomicUsize,
    listings: AtomicUsize,
}

impl std::fmt::Display for CountingStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a store that counts")
    }
}

impl CountingStore {
    fn count(&self) {
        self.requests.fetch_add(1, Ordering::SeqCst);
    }

    /// Requests and listings since the last call.
    fn take(&self) -> (usize, usize) {
        (self.requests.swap(0, Ordering::SeqCst), self.listings.swap(0, Ordering::SeqCst))
    }
}

#[async_trait]
impl ObjectStore for CountingStore {
    async fn put_opts(&self, path: &StorePath, payload: PutPayload, options: PutOptions) -> StoreResult<PutResult> {
        self.count();
        self.inner.put_opts(path, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        path: &StorePath,
        options: PutMultipartOptions,
    ) -> StoreResult<Box<dyn MultipartUpload>> {
        self.count();
        self.inner.put_multipart_opts(path, options).await
    }

    async fn get_opts(&self, path: &StorePath, options: GetOptions) -> StoreResult<GetResult> {
        self.count();
        self.inner.get_opts(path, options).await
    }

    async fn get_ranges(&self, path: &StorePath, ranges: &[Range<u64>]) -> StoreResult<Vec<Bytes>> {
        self.count();
        self.inner.get_ranges(path, ranges).await
    }

    fn delete_stream(
        &self,
        paths: BoxStream<'static, StoreResult<StorePath>>,
    ) -> BoxStream<'static, StoreResult<StorePath>> {
        self.count();
        self.inner.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&StorePath>) -> BoxStream<'static, StoreResult<ObjectMeta>> {
        self.listings.fetch_add(1, Ordering::SeqCst);
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&StorePath>) -> StoreResult<ListResult> {
        self.listings.fetch_add(1, Ordering::SeqCst);
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &StorePath, to: &StorePath, options: CopyOptions) -> StoreResult<()> {
        self.count();
        self.inner.copy_opts(from, to, options).await
    }
}

fn record(sha256: &str) -> Box<VersionRecord> {
    Box::new(VersionRecord {
        ready: None,
        uri: "m.onnx".into(),
        sha256: sha256.into(),
        size: 1,
        external_files: vec![],
        copied: true,
        names_given: false,
        options: Default::default(),
        producer: "a test".into(),
        opset: "ai.onnx 17".into(),
    })
}

fn create(model: &str) -> Change {
    Change::Create {
        model: model.into(),
        record: record(&"0".repeat(64)),
        interface: Box::new(Interface::default()),
        replace: true,
        activate: true,
        allow_signature_change: true,
    }
}

async fn open(store: &Arc<CountingStore>) -> Result<ObjectStoreCatalog, Error> {
    ObjectStoreCatalog::open_in(store.clone(), StorePath::from("some/where"), "test").await
}

/// A session of a process of its own, as far as models are concerned.
fn session(catalog: ObjectStoreCatalog) -> SessionContext {
    with_cache(catalog, &std::env::temp_dir().join("not-used"))
}

fn with_cache(catalog: ObjectStoreCatalog, cache: &Path) -> SessionContext {
    let runtime = PredictRuntime::builder().with_catalog(Arc::new(catalog)).with_cache_folder(cache.to_owned()).build();
    let context = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(2));
    context.with_predict(Arc::new(runtime))
}

async fn number(context: &SessionContext, sql: &str) -> Result<f64, Error> {
    let batches = match context.predict_sql(sql).await {
        Ok(frame) => frame.collect().await?,
        Err(error) => return Err(error.into()),
    };
    Ok(batches[0].column(0).as_primitive::<Float64Type>().value(0))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_asks_the_store_once_and_lists_nothing() {
    let store = Arc::new(CountingStore::default());
    let catalog = open(&store).await.expect("an empty catalog");
    for i in 0..200 {
        catalog.commit(create(["a", "b"][i % 2])).await.expect("a version");
    }
    // Of three checkpoints, the last two are kept.
    let checkpoints = store.inner.list(Some(&StorePath::from("some/where/checkpoints")));
    assert_eq!(checkpoints.count().await, 2 + 1);
    store.take();
    let cache = tempfile::tempdir().expect("a folder");
    let context = with_cache(open(&store).await.expect("it opens"), cache.path());
    // The marker, where the checkpoint is, the checkpoint, and 200 - 192 commits with those that are not there.
    let (requests, listings) = store.take();
    assert!(requests <= 3 + 1 + 16, "{requests}");
    assert_eq!(listings, 0);

    context.predict_sql("CREATE MODEL m FROM 'tests/models/types/scalar_double.onnx'").await.expect("a model");
    let query = "SELECT predict('m', 1.5) + predict('m/1', 1.0) + predict('m@default', 1.0)";
    assert_eq!(number(&context, query).await.expect("a number"), 7.0);
    store.take();
    for _ in 0..10 {
        assert_eq!(number(&context, query).await.expect("a number"), 7.0);
    }
    assert_eq!(store.take(), (10, 0));
    // A statement that has nothing to do with models asks nothing.
    assert_eq!(number(&context, "SELECT CAST(1 AS DOUBLE)").await.expect("a number"), 1.0);
    assert_eq!(store.take(), (0, 0));
    // Nor does a plain `sql`, which sees the models as of the last look.
    let frame = context.sql(query).await.expect("a plan");
    assert_eq!(frame.collect().await.expect("a row")[0].num_rows(), 1);
    assert_eq!(store.take(), (0, 0));
    // A view asks when it is used.
    context.predict_sql("CREATE VIEW v AS SELECT predict('m', 1.5) AS p").await.expect("a view");
    store.take();
    assert_eq!(number(&context, "SELECT p FROM v").await.expect("a number"), 3.0);
    assert_eq!(store.take(), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn others_versions_are_seen_between_queries_and_loaded_when_called() {
    let folder = tempfile::tempdir().expect("a folder");
    let uri = folder.path().to_str().expect("a path");
    let writer = session(ObjectStoreCatalog::open(uri).await.expect("a catalog"));
    let reader = session(ObjectStoreCatalog::open(uri).await.expect("a catalog"));
    let create = "CREATE MODEL m FROM 'tests/models/types/scalar_double.onnx'";
    writer.predict_sql(create).await.expect("a model");
    // The names that a view calls may be new to the process that uses it.
    reader.predict_sql("CREATE VIEW v AS SELECT predict('m', 1.5) AS p").await.expect("a view");
    assert_eq!(number(&reader, "SELECT p FROM v").await.expect("a number"), 3.0);
    let identity = "CREATE OR REPLACE MODEL m FROM 'tests/models/types/identity_double.onnx' OPTIONS (allow_signature_change true)";
    writer.predict_sql(identity).await.expect("a version");
    assert_eq!(
        number(&reader, "SELECT CAST(count(engine) AS DOUBLE) FROM predict.versions").await.expect("a count"),
        1.0
    );
    // A prepared statement, and a view of the catalog's tables.
    reader.predict_sql("CREATE VIEW w AS SELECT CAST(count(*) AS DOUBLE) FROM predict.versions").await.expect("a view");
    writer.predict_sql("ROLLBACK MODEL m").await.expect("rolled back");
    assert_eq!(number(&reader, "SELECT predict('m', 1.5)").await.expect("a number"), 3.0);
    // What EXECUTE binds moves with the name, too.
    for model in ["sklearn/iris_logistic", "boosters/lightgbm_iris"] {
        let sql = format!("CREATE OR REPLACE MODEL p FROM 'tests/models/{model}.onnx' OPTIONS (class '0')");
        writer.predict_sql(&sql).await.expect("a version");
    }
    let call = |name: &str| format!("SELECT CAST(predict('{name}', 5.0, 3.0, 2.0, 0.5) AS DOUBLE)");
    reader.predict_sql(&format!("PREPARE s AS {}", call("p"))).await.expect("a statement");
    let [first, second] = ["p/1", "p/2"].map(call);
    let (first, second) =
        (number(&writer, &first).await.expect("a score"), number(&writer, &second).await.expect("a score"));
    assert!(first != second);
    assert_eq!(number(&reader, "EXECUTE s").await.expect("a score"), second);
    writer.predict_sql("ROLLBACK MODEL p").await.expect("rolled back");
    assert_eq!(number(&reader, "EXECUTE s").await.expect("a score"), first);
    assert_eq!(number(&reader, "SELECT * FROM w").await.expect("a count"), 4.0);
}

/// Over the limit, the least recently used models are unloaded; they come back when they are called.
#[tokio::test(flavor = "multi_thread")]
async fn models_are_unloaded_over_the_limit() {
    let folder = tempfile::tempdir().expect("a folder");
    let uri = folder.path().to_str().expect("a path");
    let context = async |model_memory| {
        let catalog = Arc::new(ObjectStoreCatalog::open(uri).await.expect("a catalog"));
        let runtime = PredictRuntime::builder().with_catalog(catalog).with_model_memory(model_memory).build();
        SessionContext::new().with_predict(Arc::new(runtime))
    };
    let loaded = async |context: &SessionContext| -> BTreeSet<String> {
        let batches = context.predict_sql("SELECT model FROM predict.loaded").await.expect("a plan");
        let batches = batches.collect().await.expect("rows");
        batches
            .iter()
            .flat_map(|batch| batch.column(0).as_string::<i32>().iter().flatten().map(str::to_owned))
            .collect()
    };
    let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
    let call = |name| format!("SELECT CAST(predict('{name}', 0.,0.,0.,0.,0.,0.,0.,0.,0.,0.) AS DOUBLE)");

    let all = context(0).await;
    for name in ["a", "b", "c"] {
        let sql = format!("CREATE MODEL {name} FROM 'tests/models/sklearn/diabetes_forest.onnx'");
        all.predict_sql(&sql).await.expect("a model");
    }
    assert_eq!(loaded(&all).await, set(&["a", "b", "c"]));
    let before = number(&all, &call("a")).await.expect("a prediction");
    let size = "SELECT CAST(max(bytes) AS DOUBLE) FROM predict.loaded";
    let size = number(&all, size).await.expect("a size");

    // One that is loaded is not unloaded by its own call; the next that is loaded makes room.
    let one = context(1024).await;
    for name in ["b", "a"] {
        assert_eq!(number(&one, &call(name)).await.expect("a prediction"), before);
        assert_eq!(loaded(&one).await, set(&[name]));
    }
    // With room for two, those that a query calls stay, and the one that is idle goes. They are the same file, whose weights
    // they share, so two take less than twice as much.
    let both =
        format!("SELECT {} - {}", call("a").trim_start_matches("SELECT "), call("b").trim_start_matches("SELECT "));
    let mut kept = vec![];
    for tenth in 10..=20 {
        let room = context((size * f64::from(tenth) / 10.0) as u64).await;
        number(&room, &call("c")).await.expect("a prediction");
        number(&room, &both).await.expect("two predictions");
        kept.push(loaded(&room).await);
    }
    assert_eq!(kept[0].len(), 1, "there is room for one: {kept:?}");
    assert!(kept.contains(&set(&["a", "b"])), "{kept:?}");
}

/// A catalog that the release before this format wrote opens, is planned from, scores, and takes new versions.
#[tokio::test(flavor = "multi_thread")]
async fn a_catalog_of_the_format_before_opens_and_scores() {
    let folder = tempfile::tempdir().expect("a folder");
    copy_all(Path::new("tests/catalogs/format1"), folder.path());
    let open = async || {
        let catalog = ObjectStoreCatalog::open(folder.path().to_str().expect("a path")).await.expect("a catalog");
        session(catalog)
    };
    let text = async |context: &SessionContext, sql: &str| {
        context.predict_sql(sql).await.expect(sql).to_string().await.expect(sql)
    };
    let context = open().await;
    let explain =
        "EXPLAIN SELECT predict('twice', x), predict('iris', 1.0 + x, 3.0, 4.0, 1.0) FROM (VALUES (1.0)) AS v(x)";
    let plan = text(&context, explain).await;
    assert_eq!(plan.matches("engine=not loaded").count(), 2, "{plan}");
    let iris = "SELECT predict('iris', 5.1 + x, 3.5, 1.4, 0.2)['output_label'] AS l, predict('twice@first', x) AS t
        FROM (VALUES (0.0)) AS v(x)";
    let scored = text(&context, iris).await;
    assert!(scored.contains("| setosa | 0.0 |"), "{scored}");
    // Of a version that was never run, the types are learned when it is first called.
    let untried = text(&context, "SELECT predict('untried', 1.0, x) AS y FROM (VALUES (2.0)) AS v(x)").await;
    assert!(untried.contains("| 8.0 |"), "{untried}");
    let replace = "CREATE OR REPLACE MODEL twice FROM 'tests/models/types/scalar_double.onnx'";
    context.predict_sql(replace).await.expect("a version");
    let again = open().await;
    let versions = text(&again, "SELECT version FROM predict.versions WHERE model = 'twice' ORDER BY version").await;
    assert_eq!(versions.matches('|').count(), 8, "{versions}");
    let plan = text(&again, "EXPLAIN SELECT predict('twice', x) FROM (VALUES (1.0)) AS v(x)").await;
    assert!(plan.contains("model=twice/3, engine=native, device=cpu, batch_size=8192"), "{plan}");
}

fn copy_all(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        match entry.path().is_dir() {
            true => copy_all(&entry.path(), &target),
            false => drop(std::fs::copy(entry.path(), target).expect("a file")),
        }
    }
}

/// Calls of the model in one statement.
const CALLS: usize = 30;

/// Queries run while the name moves a thousand times; each result is wholly of one version, wherever it calls the model.
#[tokio::test(flavor = "multi_thread")]
async fn a_result_belongs_to_one_version_while_the_name_moves() {
    let folder = tempfile::tempdir().expect("a folder");
    let uri = folder.path().to_str().expect("a path");
    let writer = session(ObjectStoreCatalog::open(uri).await.expect("a catalog"));
    for model in ["sklearn/iris_logistic", "boosters/lightgbm_iris"] {
        let sql = format!("CREATE OR REPLACE MODEL m FROM 'tests/models/{model}.onnx' OPTIONS (class '0')");
        writer.predict_sql(&sql).await.expect("a version");
    }
    let moving = Arc::new(AtomicBool::new(true));
    let seen = Arc::new(Mutex::new([0usize; 2]));
    let mut readers = vec![];
    let shared = session(ObjectStoreCatalog::open(uri).await.expect("a catalog"));
    for plain in [false, true, false] {
        // A plain `sql` sees what another query of its process has learned.
        let reader = match plain || readers.is_empty() {
            true => shared.clone(),
            false => session(ObjectStoreCatalog::open(uri).await.expect("a catalog")),
        };
        let table = "CREATE TABLE t AS SELECT value / 100.0 AS x FROM generate_series(1, 500)";
        if reader.table("t").await.is_err() {
            reader.predict_sql(table).await.expect("a table").collect().await.expect("rows");
        }
        let (moving, seen) = (moving.clone(), seen.clone());
        readers.push(tokio::spawn(async move {
            // Many calls, so that the name moves while one statement is planned.
            let call = |model: &str, i: usize| format!("predict('{model}', x, 3.0, x / 2, 0.{i})");
            let is_first = (0..CALLS).map(|i| format!("CAST({} = {} AS BIGINT)", call("m", i), call("m/1", i)));
            let sql = format!(
                "SELECT {} AS first, count(*) AS rows FROM t WHERE {} IN ({}, {}) GROUP BY 1",
                is_first.collect::<Vec<_>>().join(" + "),
                call("m", 0),
                call("m/1", 0),
                call("m/2", 0)
            );
            while moving.load(Ordering::SeqCst) {
                let frame = match plain {
                    false => reader.predict_sql(&sql).await,
                    true => reader.sql(&sql).await,
                };
                let batches = frame.expect("a plan").collect().await.expect("rows");
                let groups: usize = batches.iter().map(|batch| batch.num_rows()).sum();
                assert_eq!(groups, 1, "rows of both versions in one result");
                let batch = batches.iter().find(|batch| batch.num_rows() > 0).expect("a group");
                let column = |i: usize| batch.column(i).as_primitive::<Int64Type>().value(0);
                assert_eq!(column(1), 500);
                assert!([0, CALLS as i64].contains(&column(0)), "{} of {CALLS} calls by version 1", column(0));
                seen.lock().expect("no reader panics here")[usize::from(column(0) > 0)] += 1;
            }
        }));
    }
    // A thousand times, and until the readers have met both.
    let both = || seen.lock().expect("no reader panics here").iter().all(|seen| *seen > 2);
    for i in (0..100_000).take_while(|i| *i < 1000 || !both()) {
        let sql = format!("ALTER MODEL m SET ALIAS default TO {}", i % 2 + 1);
        writer.predict_sql(&sql).await.expect("moved");
    }
    moving.store(false, Ordering::SeqCst);
    for reader in readers {
        reader.await.expect("no reader fails");
    }
    assert!(both(), "the readers have met one version only");
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_is_said_and_what_can_be_read_is_read() {
    let store = Arc::new(CountingStore::default());
    let catalog = open(&store).await.expect("an empty catalog");
    for _ in 0..70 {
        catalog.commit(create("m")).await.expect("a version");
    }
    let at = |path: &str| StorePath::from(format!("some/where/{path}"));
    let put = async |path: &str, text: &str| {
        let before = store.inner.get(&at(path)).await.expect(path).bytes().await.expect(path);
        store.inner.put(&at(path), PutPayload::from(text.to_owned())).await.expect("room for it");
        before
    };
    let back = async |path: &str, bytes: Bytes| {
        store.inner.put(&at(path), PutPayload::from(bytes)).await.expect("room for it");
    };
    let versions = |snapshot: &CatalogSnapshot| snapshot.get("m").map_or(0, |model| model.versions.len());

    // Checkpoints are conveniences: the log says the same.
    for (path, text) in [
        ("checkpoints/latest.json", "{}"),
        ("checkpoints/latest.json", r#"{"format":1,"sequence":999}"#),
        ("checkpoints/00000000000000000064.json", "{\"format\":1,"),
    ] {
        let before = put(path, text).await;
        let opened = open(&store).await.expect(text);
        assert_eq!(versions(&opened.snapshot()), 70, "{path}: {text}");
        assert_eq!(opened.history().await.expect("a history").len(), 140);
        back(path, before).await;
    }
    // The log and the marker are not.
    for (path, text, expected) in [
        ("catalog.json", "", "catalog 'test': catalog.json is damaged"),
        ("catalog.json", r#"{"format":3}"#, "catalog.json has format 3, which is newer than this program reads (2)"),
        ("log/00000000000000000066.json", "{\"format\":1", "log/00000000000000000066.json is damaged"),
        ("log/00000000000000000066.json", r#"{"format":3,"actions":"other"}"#, "66.json has format 3, which is newer"),
        (
            "log/00000000000000000066.json",
            r#"{"format":1,"id":"x","at":0,"by":"x","actions":[{"drop_version":{"model":"n","version":1}}]}"#,
            "catalog 'test': commit 66 does not fit what was before it",
        ),
    ] {
        let before = put(path, text).await;
        let error = open(&store).await.expect_err(text).to_string();
        assert!(error.contains(expected), "{error}");
        back(path, before).await;
    }
    assert_eq!(versions(&open(&store).await.expect("as it was").snapshot()), 70);
    // A commit that was removed is missed, and its number is not given away.
    let behind = open(&store).await.expect("as it was");
    let path = at("log/00000000000000000067.json");
    let commit = store.inner.get(&path).await.expect("a commit").bytes().await.expect("its text");
    store.inner.delete(&path).await.expect("it is there");
    let error = open(&store).await.expect_err("a gap").to_string();
    assert_eq!(error, "catalog 'test': log/00000000000000000067.json is missing: there are commits behind it");
    back("log/00000000000000000067.json", commit).await;
    // Nor where a checkpoint ends, or where a writer is.
    for (sequence, more) in [(65, 0), (71, 3)] {
        for _ in 0..more {
            open(&store).await.expect("as it was").commit(create("m")).await.expect("a version");
        }
        let path = at(&format!("log/{sequence:020}.json"));
        let commit = store.inner.get(&path).await.expect("a commit").bytes().await.expect("its text");
        store.inner.delete(&path).await.expect("it is there");
        let error = match more {
            0 => open(&store).await.map(drop),
            _ => behind.commit(create("m")).await.map(drop),
        };
        let error = error.expect_err("a gap").to_string();
        assert_eq!(error, format!("catalog 'test': log/{sequence:020}.json is missing: there are commits behind it"));
        store.inner.put(&path, PutPayload::from(commit)).await.expect("room for it");
    }
    assert_eq!(behind.commit(create("m")).await.expect("a version").created, Some(74));
}

/// A store that loses the answer to a commit, as networks do.
#[derive(Debug, Default)]
struct ForgetfulStore {
    inner: CountingStore,
    /// Whether it is asked again, as object stores' clients do where they can; else the commit seems to fail.
    again: bool,
}

impl std::fmt::Display for ForgetfulStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a store that forgets")
    }
}

#[async_trait]
impl ObjectStore for ForgetfulStore {
    async fn put_opts(&self, path: &StorePath, payload: PutPayload, options: PutOptions) -> StoreResult<PutResult> {
        let first = self.inner.put_opts(path, payload.clone(), options.clone()).await;
        match first.is_ok() && path.as_ref().contains("log/") {
            true if self.again => self.inner.put_opts(path, payload, options).await,
            true => Err(object_store::Error::Generic { store: "test", source: "the line is dead".into() }),
            false => first,
        }
    }

    async fn put_multipart_opts(
        &self,
        path: &StorePath,
        options: PutMultipartOptions,
    ) -> StoreResult<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(path, options).await
    }

    async fn get_opts(&self, path: &StorePath, options: GetOptions) -> StoreResult<GetResult> {
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
        self.inner.copy_opts(from, to, options).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_whose_answer_was_lost_is_made_once() {
    for again in [true, false] {
        let store = Arc::new(ForgetfulStore { again, ..ForgetfulStore::default() });
        let catalog = ObjectStoreCatalog::open_in(store, StorePath::default(), "test").await.expect("a catalog");
        for version in 1..=5 {
            assert_eq!(catalog.commit(create("m")).await.expect("a version").created, Some(version));
        }
        assert_eq!(catalog.snapshot().get("m").expect("the model").versions.len(), 5);
    }
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let model = || prop_oneof!["a", "b"];
    let version = || 1u64..6;
    let alias = || prop_oneof!["champion", "default"];
    let reference = || version().prop_map(VersionReference::Number);
    let change = prop_oneof![
        4 => (model(), any::<bool>(), any::<bool>()).prop_map(|(model, replace, activate)| match create(&model) {
            Change::Create { model, record, interface, allow_signature_change, .. } =>
                Change::Create { model, record, interface, replace, activate, allow_signature_change },
            other => other,
        }),
        1 => model().prop_map(|model| Change::DropModel { model }),
        2 => (model(), version()).prop_map(|(model, version)| Change::DropVersion { model, version }),
        2 => (model(), alias(), reference())
            .prop_map(|(model, alias, to)| Change::SetAliases { model, aliases: vec![(alias, to)] }),
        1 => (model(), alias()).prop_map(|(model, alias)| Change::DropAlias { model, alias }),
        2 => (model(), prop::option::of(reference())).prop_map(|(model, to)| Change::Rollback { model, to }),
        1 => (model(), prop::option::of(reference()), prop::option::of("[a-z]{0,3}"))
            .prop_map(|(model, version, comment)| Change::SetComment { model, version, comment }),
        1 => (model(), prop::option::of(reference()), prop::option::of("[a-z]{0,3}"))
            .prop_map(|(model, version, value)| Change::SetTags { model, version, tags: vec![("t".into(), value)] }),
        1 => (model(), version(), version()).prop_map(|(model, one, other)| Change::SetTraffic {
            model,
            traffic: (one != other).then(|| datafusion_predict::Traffic { shares: vec![(one, 1), (other, 9)], by: None }),
        }),
    ];
    prop::collection::vec(change, 1..150)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    /// Two catalogs that write by turns, one that only reads, and one that opens at the end say the same; what points to
    /// a version points to one that is there.
    #[test]
    fn all_who_read_a_log_say_the_same(changes in changes()) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(async {
            let store = Arc::new(CountingStore::default());
            let writers = [open(&store).await.expect("opens"), open(&store).await.expect("opens")];
            let reader = open(&store).await.expect("opens");
            for (i, change) in changes.into_iter().enumerate() {
                let _ = writers[i % 2].commit(change).await; // refused where it does not fit
                if i % 7 == 0 {
                    reader.refresh().await.expect("refreshes");
                }
                for model in writers[i % 2].snapshot().models() {
                    let traffic = model.traffic.iter().flat_map(|traffic| traffic.shares.iter().map(|(version, _)| version));
                    for version in model.aliases.values().chain(traffic) {
                        assert!(model.versions.contains_key(version), "{model:?}");
                    }
                    assert!(model.default_version().is_some());
                }
            }
            for catalog in writers.iter().chain([&reader]) {
                catalog.refresh().await.expect("refreshes");
            }
            let opened = open(&store).await.expect("opens");
            for catalog in writers.iter().chain([&reader]) {
                assert_eq!(catalog.snapshot(), opened.snapshot());
                assert_eq!(catalog.history().await.expect("a history"), opened.history().await.expect("a history"));
            }
        });
    }
}

/// Whoever can write a catalog's log can't make its readers write or read elsewhere.
#[tokio::test(flavor = "multi_thread")]
async fn names_in_a_log_are_not_trusted() {
    let store = Arc::new(CountingStore::default());
    let good = create("m");
    open(&store).await.expect("an empty catalog").commit(good).await.expect("a version");
    let at = StorePath::from("some/where/log/00000000000000000001.json");
    let bytes = store.inner.get(&at).await.expect("a commit").bytes().await.expect("its text");
    let text = String::from_utf8(bytes.to_vec()).expect("JSON");
    let zeros = "0".repeat(64);
    let external = |name: &str| text.replace("\"size\":1", &format!("\"size\":1,\"external_files\":[\"{name}\"]"));
    for hostile in [
        external("/tmp/x"),
        external("../x"),
        external("a/../../x"),
        text.replace(&zeros, "../../etc"),
        text.replace("\"model\":\"m\"", "\"model\":\"../m\""),
    ] {
        assert_ne!(hostile, text);
        store.inner.put(&at, PutPayload::from(hostile.clone())).await.expect("room for it");
        let error = open(&store).await.expect_err(&hostile).to_string();
        assert!(error.contains("commit 1 does not fit"), "{error}");
    }
    store.inner.put(&at, PutPayload::from(external("a/./weights.bin"))).await.expect("room for it");
    assert!(open(&store).await.is_ok());
}

/// A model with its weights, from a store that is no folder; and what the cache keeps of it.
#[tokio::test(flavor = "multi_thread")]
async fn damaged_copies_are_fetched_again_and_damaged_originals_are_named() {
    let store = Arc::new(CountingStore::default());
    let cache = tempfile::tempdir().expect("a folder");
    let context = with_cache(open(&store).await.expect("a catalog"), cache.path());
    context.predict_sql("CREATE MODEL m FROM 'tests/models/types/external'").await.expect("a model");
    let sql = "SELECT CAST(predict('m', 1.0, 2.0, 3.0)[1] AS DOUBLE)";
    let fresh = async || with_cache(open(&store).await.expect("a catalog"), cache.path());
    assert_eq!(number(&fresh().await, sql).await.expect("with its weights"), 22.5);
    store.take();
    assert_eq!(number(&fresh().await, sql).await.expect("from the cache"), 22.5);
    // The marker, the checkpoint that is not there, two looks at the log to open, one for the query: no file.
    assert!(store.take().0 <= 2 + 1 + 16 + 1);
    let entry = || std::fs::read_dir(cache.path()).expect("the cache").next().expect("an entry").expect("it").path();
    std::fs::write(entry().join("files/weights.bin"), "damaged").expect("room for it");
    assert_eq!(number(&fresh().await, sql).await.expect("fetched again"), 22.5);
    std::fs::remove_file(entry().join("files/model.onnx")).expect("it is there");
    assert_eq!(number(&fresh().await, sql).await.expect("fetched again"), 22.5);
    std::fs::remove_dir_all(entry()).expect("it is there");
    let paths: Vec<_> =
        futures::TryStreamExt::try_collect(store.inner.list(Some(&StorePath::from("some/where/models"))))
            .await
            .expect("files");
    let paths: Vec<ObjectMeta> = paths;
    let weights =
        &paths.iter().find(|it| it.location.as_ref().ends_with("weights.bin")).expect("they are there").location;
    store.inner.put(weights, PutPayload::from("damaged")).await.expect("room for it");
    let error = number(&fresh().await, sql).await.expect_err("damaged").to_string();
    assert!(
        error.contains("model 'm/1': the catalog's file 'some/where/models/")
            && error.contains("is damaged: its sha256 is"),
        "{error}"
    );
}

/// A thread that waits for a model must not be the one that loads it.
#[tokio::test(flavor = "current_thread")]
async fn one_thread_can_plan_several_queries() {
    let folder = tempfile::tempdir().expect("a folder");
    let uri = folder.path().to_str().expect("a path");
    let writer = session(ObjectStoreCatalog::open(uri).await.expect("a catalog"));
    writer.predict_sql("CREATE MODEL m FROM 'tests/models/sklearn/diabetes_forest.onnx'").await.expect("a model");
    let sql = "SELECT predict('m', 0.,0.,0.,0.,0.,0.,0.,0.,0.,0.)";
    for _ in 0..20 {
        let reader = session(ObjectStoreCatalog::open(uri).await.expect("a catalog"));
        let (one, other, third) = tokio::join!(reader.predict_sql(sql), reader.sql(sql), reader.predict_sql(sql));
        assert!(one.is_ok() && other.is_ok() && third.is_ok());
    }
}

/// Queries that wait for a look at the log share the next one.
#[tokio::test(flavor = "multi_thread")]
async fn looks_at_the_log_are_shared() {
    let store = Arc::new(CountingStore::default());
    let catalog = Arc::new(open(&store).await.expect("a catalog"));
    store.take();
    let refreshes = (0..1000).map(|_| {
        let catalog = catalog.clone();
        tokio::spawn(async move { catalog.refresh().await.expect("a look") })
    });
    for refresh in refreshes.collect::<Vec<_>>() {
        refresh.await.expect("it ends");
    }
    let (requests, _) = store.take();
    assert!(requests < 1000, "{requests}");
}
