//! What does a call cost beyond the model?
//!
//! An identity model over 8 float columns: cost = (cost of a row) × rows + (cost of a run). Each group compares the
//! plan with a prediction against the same plan that only adds the columns up, in one run.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use datafusion::arrow::array::{ArrayRef, Float32Array, RecordBatch};
use datafusion::arrow::datatypes::{DataType, Field, Schema};
use datafusion::datasource::MemTable;
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion_predict::{PredictExt, PredictRuntime, PredictSql};
use futures::StreamExt;
use tokio::runtime::Runtime;

const COLUMNS: usize = 8;
const ROWS: usize = 1 << 20;
const ARROW_BATCH: usize = 8192;

fn table() -> MemTable {
    let fields: Vec<_> = (0..COLUMNS).map(|i| Field::new(format!("f{i}"), DataType::Float32, false)).collect();
    let schema = Arc::new(Schema::new(fields));
    let batches = (0..ROWS / ARROW_BATCH).map(|batch| {
        let columns = (0..COLUMNS).map(|column| {
            let values = (0..ARROW_BATCH).map(|row| ((batch * 31 + row * 7 + column) % 1000) as f32 / 1000.0);
            Arc::new(Float32Array::from_iter_values(values)) as ArrayRef
        });
        RecordBatch::try_new(schema.clone(), columns.collect()).expect("columns of one length")
    });
    MemTable::try_new(schema.clone(), vec![batches.collect()]).expect("a table")
}

async fn session() -> SessionContext {
    let config = SessionConfig::new().with_target_partitions(1);
    let context = SessionContext::new_with_config(config).with_predict(Arc::new(PredictRuntime::default()));
    context.register_table("t", Arc::new(table())).expect("a table");
    let sql = "CREATE MODEL identity FROM 'tests/models/types/identity8.onnx'";
    context.predict_sql(sql).await.expect("the model");
    context
}

/// Runs the query, and throws its batches away.
async fn drain(context: &SessionContext, sql: &str) -> usize {
    let frame = context.predict_sql(sql).await.expect("a query");
    let mut stream = frame.execute_stream().await.expect("a stream");
    let mut rows = 0;
    while let Some(batch) = stream.next().await {
        rows += black_box(batch.expect("a batch")).num_rows();
    }
    rows
}

fn overhead(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let context = runtime.block_on(session());
    let columns: Vec<_> = (0..COLUMNS).map(|i| format!("f{i}")).collect();
    let mut group = criterion.benchmark_group("identity model, 8 columns");
    group.throughput(Throughput::Elements(ROWS as u64)).sample_size(10);
    let queries = [
        ("columns alone", format!("SELECT {} AS p FROM t", columns.join(" + "))),
        ("predict", format!("SELECT predict('identity', {}) AS p FROM t", columns.join(", "))),
    ];
    for (name, sql) in &queries {
        group.bench_with_input(BenchmarkId::from_parameter(name), sql, |bencher, sql| {
            bencher.iter(|| assert_eq!(runtime.block_on(drain(&context, sql)), ROWS));
        });
    }
    group.finish();
}

criterion_group!(benches, overhead);
criterion_main!(benches);
