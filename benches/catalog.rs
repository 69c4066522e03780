//! What does a catalog cost a query?
//!
//! - `open`: is a catalog of 10,000 versions there in under 50 ms?
//! - `refresh`: what does the look for others' changes, before each query, take where there are none?
//! - `commit`: what does a change take, with the state of 10,000 versions behind it?
//! - `traffic`: what does the split of 1,000,000 rows between two versions add to the scores of one?

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion_predict::{
    Change, Feature, Interface, ModelCatalog, ObjectStoreCatalog, PredictExt, PredictRuntime, PredictSql, TensorNote,
    VersionRecord, VersionReference,
};
use tokio::runtime::Runtime;

/// 100 models with 28 features of their own, each with 100 versions.
fn version(i: u64) -> Change {
    let model = i % 100;
    let feature = |f| Feature { name: Some(format!("feature_{model}_{f}")), value_type: "float".into(), input: None };
    let interface = Interface {
        features: (0..28).map(feature).collect(),
        inputs: vec![TensorNote { name: "X".into(), tensor_type: "float[N,28]".into() }],
        outputs: vec![TensorNote { name: "probabilities".into(), tensor_type: "float[N,2]".into() }],
        returns: Some("FixedSizeList(2 x Float32)".into()),
    };
    let record = VersionRecord {
        ready: None,
        uri: format!("s3://models/training/2026/{i}/model_{model}.onnx"),
        sha256: format!("{i:064x}"),
        size: 1 << 20,
        external_files: vec![],
        copied: true,
        names_given: true,
        options: Default::default(),
        producer: "skl2onnx 1.20.0".into(),
        opset: "ai.onnx 17, ai.onnx.ml 1".into(),
    };
    Change::Create {
        model: format!("model_{model}"),
        record: Box::new(record),
        interface: Box::new(interface),
        replace: true,
        activate: true,
        allow_signature_change: false,
    }
}

fn catalog(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let folder = tempfile::tempdir().expect("a folder");
    let uri = folder.path().to_str().expect("a path");
    let open = || runtime.block_on(ObjectStoreCatalog::open(uri)).expect("the catalog opens");
    let catalog = open();
    for i in 0..10_000 {
        runtime.block_on(catalog.commit(version(i))).expect("a version");
    }
    // Behind a checkpoint, as a catalog mostly is.
    for i in 0..32u64 {
        let aliases = vec![("champion".to_owned(), VersionReference::Number(i % 100 + 1))];
        let change = Change::SetAliases { model: "model_7".into(), aliases };
        runtime.block_on(catalog.commit(change)).expect("an alias");
    }
    let count =
        |catalog: &ObjectStoreCatalog| -> usize { catalog.snapshot().models().map(|model| model.versions.len()).sum() };
    let mut group = criterion.benchmark_group("catalog of 10,000 versions");
    group.sample_size(20);
    group.bench_function("open", |bencher| bencher.iter(|| assert_eq!(count(&open()), 10_000)));
    let other = open();
    group.bench_function("refresh", |bencher| {
        bencher.iter(|| runtime.block_on(other.refresh()).expect("nothing is new"));
    });
    let mut i = 0;
    group.bench_function("commit", |bencher| {
        bencher.iter(|| {
            i += 1;
            let aliases = vec![("champion".to_owned(), VersionReference::Number(i % 100 + 1))];
            runtime.block_on(catalog.commit(Change::SetAliases { model: "model_7".into(), aliases })).expect("an alias")
        });
    });
    group.finish();
}

fn traffic(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let config = SessionConfig::new().with_target_partitions(1);
    let context = SessionContext::new_with_config(config).with_predict(Arc::new(PredictRuntime::default()));
    let run = |sql: &str| {
        let collect = async { context.predict_sql(sql).await?.collect().await };
        black_box(runtime.block_on(collect).expect(sql))
    };
    run(
        "CREATE TABLE t AS SELECT value AS id, random() * 4 + 4 AS a, random() * 2 + 2 AS b, random() * 6 + 1 AS c, random() * 2 AS d FROM generate_series(1, 1000000)",
    );
    for model in ["one", "split"] {
        run(&format!(
            "CREATE MODEL {model} FEATURES (a, b, c, d) FROM 'tests/models/sklearn/iris_logistic.onnx' OPTIONS (class '1')"
        ));
    }
    run(
        "CREATE OR REPLACE MODEL split FEATURES (a, b, c, d) FROM 'tests/models/sklearn/iris_logistic.onnx' OPTIONS (class '1', batch_size 8192)",
    );
    run("ALTER MODEL split SET TRAFFIC (v1 90, v2 10)");
    let mut group = criterion.benchmark_group("scores of 1,000,000 rows");
    group.sample_size(10);
    for model in ["one", "split"] {
        let sql = format!("SELECT sum(predict('{model}', a, b, c, d)) FROM t");
        group.bench_function(model, |bencher| bencher.iter(|| run(&sql)));
    }
    group.finish();
}

criterion_group!(benches, catalog, traffic);
criterion_main!(benches);
