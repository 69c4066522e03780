//! Is a prediction made on the better side of a join, and does planning stay quick?
//!
//! A fact table joins a dimension whose columns are the model's features, with a condition on the prediction. Cost = (cost
//! of a row) × (rows scored) + the join. Below the join every row of the dimension is scored, above it every row that the
//! join gives. For five ratios of sizes the plan that the rule chooses is compared with both placements, in one run.
//!
//! The second group plans a CASE of many branches with the same call in each, or with another call in each, beside the same
//! CASE over arithmetic.

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use datafusion::dataframe::DataFrameWriteOptions;
use datafusion::prelude::{ParquetReadOptions, SessionConfig, SessionContext};
use datafusion_predict::{PredictExt, PredictRuntime, PredictSql};
use tokio::runtime::Runtime;

const FACTS: usize = 1_000_000;
const FEATURES: usize = 10;

/// Rows of the dimension, and of a thousand facts those that the query takes.
const RATIOS: [(usize, usize); 5] = [(442, 1000), (10_000, 1000), (200_000, 1000), (500_000, 100), (1_000_000, 5)];

async fn session(folder: &Path) -> SessionContext {
    let config = SessionConfig::new().with_target_partitions(2);
    let context = SessionContext::new_with_config(config).with_predict(Arc::new(PredictRuntime::default()));
    let model = "CREATE MODEL m FROM 'tests/models/boosters/lightgbm_diabetes.onnx'";
    context.predict_sql(model).await.expect("the model");
    for (rows, _) in RATIOS {
        let features: Vec<_> =
            (0..FEATURES).map(|i| format!("CAST((value * {}) % 1000 AS FLOAT) / 1000 AS f{i}", 7 * i + 3)).collect();
        let dimension = format!("SELECT value AS id, {} FROM generate_series(0, {})", features.join(", "), rows - 1);
        write(&context, folder, &format!("dimension_{rows}"), &dimension).await;
        let facts = format!(
            "SELECT (value * 7919) % {rows} AS k, (value * 104729) % 1000 AS v FROM generate_series(0, {})",
            FACTS - 1
        );
        write(&context, folder, &format!("facts_{rows}"), &facts).await;
    }
    context
}

async fn write(context: &SessionContext, folder: &Path, name: &str, sql: &str) {
    let path = folder.join(format!("{name}.parquet"));
    let path = path.to_str().expect("a path");
    let frame = context.sql(sql).await.expect("rows");
    let options = DataFrameWriteOptions::new().with_single_file_output(true);
    frame.write_parquet(path, options, None).await.expect("a file");
    context.register_parquet(name, path, ParquetReadOptions::default()).await.expect("a table");
}

async fn run(context: &SessionContext, sql: &str) {
    black_box(context.predict_sql(sql).await.expect("a query").collect().await.expect("rows"));
}

fn placement(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let folder = tempfile::tempdir().expect("a folder");
    let context = runtime.block_on(session(folder.path()));
    let features: Vec<_> = (0..FEATURES).map(|i| format!("f{i}")).collect();
    let call = format!("predict('m', {})", features.join(", "));
    for (rows, taken) in RATIOS {
        let mut group = criterion.benchmark_group(format!("dimension of {rows}, {taken} of 1,000 facts"));
        group.sample_size(10);
        let from = format!("facts_{rows} JOIN dimension_{rows} ON k = id WHERE v < {taken} AND {call} > 150");
        let free = format!("SELECT count(*), sum(v) FROM {from}");
        let below = format!(
            "SELECT count(*), sum(v) FROM facts_{rows} JOIN (SELECT id, {call} AS p FROM dimension_{rows}) ON k = id
             WHERE v < {taken} AND p > 150"
        );
        for (name, by_rows, sql) in [("chosen", true, &free), ("above", false, &free), ("below", false, &below)] {
            let set = format!("SET predict.place_by_rows = {by_rows}");
            runtime.block_on(async { run(&context, &set).await });
            group.bench_function(BenchmarkId::from_parameter(name), |bencher| {
                bencher.iter(|| runtime.block_on(run(&context, sql)));
            });
        }
        group.finish();
    }
}

fn planning(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let context = SessionContext::new().with_predict(Arc::new(PredictRuntime::default()));
    runtime.block_on(async {
        run(&context, "CREATE MODEL twice FROM 'tests/models/types/scalar_double.onnx'").await;
        run(&context, "CREATE TABLE t AS SELECT 1 AS id, 2.0 AS x").await;
    });
    let mut group = criterion.benchmark_group("planning a CASE");
    group.sample_size(10);
    for branches in [8, 50, 200] {
        let forms =
            [("one call", "predict('twice', x)"), ("calls", "predict('twice', x + #)"), ("arithmetic", "(x + x)")];
        for (name, value) in forms {
            let branch = |i: usize| format!(" WHEN {i} THEN {} * {i}", value.replace('#', &i.to_string()));
            let sql =
                format!("SELECT sum(CASE id % {branches}{} END) FROM t", (0..branches).map(branch).collect::<String>());
            group.bench_function(BenchmarkId::new(name, branches), |bencher| {
                bencher.iter(|| {
                    runtime.block_on(async {
                        let frame = context.predict_sql(&sql).await.expect("a query");
                        black_box(frame.create_physical_plan().await.expect("a plan"));
                    });
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, placement, planning);
criterion_main!(benches);
