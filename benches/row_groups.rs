//! Does a file of one row group keep all cores busy?
//!
//! pyarrow writes up to a million rows into one group, and DataFusion cuts a file into ranges, one for each partition: all
//! rows come out of one of them. Time = max(scan, (cost of a row) × rows / cores). Each group compares one and two
//! partitions, with the file cut into ranges (`cut`) or dealt out by batches (`dealt`), and the scan alone.

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use datafusion::dataframe::DataFrameWriteOptions;
use datafusion::prelude::{ParquetReadOptions, SessionConfig, SessionContext};
use datafusion_predict::{PredictExt, PredictRuntime, PredictSql};
use tokio::runtime::Runtime;

const ROWS: usize = 500_000;
const FEATURES: usize = 10;

async fn write(path: &str) {
    let columns: Vec<_> = (0..FEATURES)
        .map(|i| format!("CAST((value * {}) % 100003 AS FLOAT) / 100003 AS f{i}", 7919 * i + 13))
        .collect();
    let config = SessionConfig::new().with_target_partitions(1);
    let sql = format!("SELECT value AS id, {} FROM generate_series(1, {ROWS})", columns.join(", "));
    let frame = SessionContext::new_with_config(config).sql(&sql).await.expect("rows");
    let options = DataFrameWriteOptions::new().with_single_file_output(true);
    frame.write_parquet(path, options, None).await.expect("a file"); // DataFusion's row groups have a million rows
}

async fn session(
    path: &str,
    runtime: &Arc<PredictRuntime>,
    partitions: usize,
    cut: bool,
    engine: &str,
) -> SessionContext {
    let config = SessionConfig::new().with_target_partitions(partitions).with_repartition_file_scans(cut);
    let context = SessionContext::new_with_config(config).with_predict(runtime.clone());
    context.register_parquet("t", path, ParquetReadOptions::default()).await.expect("a table");
    context.predict_sql(&format!("SET predict.engine = '{engine}'")).await.expect("an engine");
    context
}

async fn run(context: &SessionContext, sql: &str) {
    black_box(context.predict_sql(sql).await.expect("a query").collect().await.expect("rows"));
}

fn row_groups(criterion: &mut Criterion) {
    let workers = Runtime::new().expect("a runtime");
    let folder = tempfile::tempdir().expect("a folder");
    let path = Path::new(folder.path()).join("t.parquet");
    let path = path.to_str().expect("a path");
    workers.block_on(write(path));
    let runtime = Arc::new(PredictRuntime::default());
    let names: Vec<_> = (0..FEATURES).map(|i| format!("f{i}")).collect();
    for (model, engine) in [
        ("boosters/lightgbm_diabetes", "native"),
        ("boosters/lightgbm_diabetes", "onnxruntime"),
        ("neural/diabetes_mlp", "onnxruntime"),
    ] {
        let mut group = criterion.benchmark_group(format!("one row group, {model} by {engine}"));
        group.sample_size(10);
        for (partitions, cut) in [(1, true), (2, true), (2, false)] {
            let context = workers.block_on(session(path, &runtime, partitions, cut, engine));
            let create = format!("CREATE OR REPLACE MODEL m FROM 'tests/models/{model}.onnx'");
            workers.block_on(run(&context, &create));
            let how = if cut { "cut" } else { "dealt" };
            let sql = format!("SELECT sum(predict('m', {})) FROM t", names.join(", "));
            group.bench_function(BenchmarkId::new(how, partitions), |bencher| {
                bencher.iter(|| workers.block_on(run(&context, &sql)));
            });
            if partitions == 1 {
                let sql = format!("SELECT sum({}) FROM t", names.join(" + "));
                group
                    .bench_function("the scan alone", |bencher| bencher.iter(|| workers.block_on(run(&context, &sql))));
            }
        }
        group.finish();
    }
}

criterion_group!(benches, row_groups);
criterion_main!(benches);
