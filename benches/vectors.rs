//! How near does a search for the nearest vectors come to the bandwidth of the memory?
//!
//! `sum` adds up a million vectors of 384 floats on all cores, with Arrow's kernel: nothing that reads them all is much faster. `search`
//! is `ORDER BY cosine_similarity(v, q) DESC LIMIT 10` over the same arrays, in as many partitions as there are cores.

use std::sync::Arc;
use std::thread::{available_parallelism, scope};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use datafusion::arrow::array::{ArrayRef, FixedSizeListArray, Float32Array, Int64Array, RecordBatch};
use datafusion::arrow::compute::sum;
use datafusion::arrow::datatypes::{DataType, Field};
use datafusion::datasource::MemTable;
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion_predict::{PredictExt, PredictRuntime};

const ROWS: usize = 1_000_000;
const WIDTH: usize = 384;
const BATCH: usize = 8192;

fn vectors(start: usize, rows: usize) -> Float32Array {
    let mut state = start as u32 | 1;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 24) as f32 - 0.5
    };
    std::iter::repeat_with(next).take(rows * WIDTH).collect::<Vec<_>>().into()
}

fn batch(start: usize) -> (Float32Array, RecordBatch) {
    let rows = BATCH.min(ROWS - start);
    let values = vectors(start, rows);
    let item = Arc::new(Field::new_list_field(DataType::Float32, true));
    let lists = FixedSizeListArray::new(item, WIDTH as i32, Arc::new(values.clone()), None);
    let ids: Int64Array = (start as i64..(start + rows) as i64).collect();
    let columns = [("id", Arc::new(ids) as ArrayRef), ("v", Arc::new(lists) as ArrayRef)];
    (values, RecordBatch::try_from_iter(columns).expect("columns of one length"))
}

fn search(c: &mut Criterion) {
    let cores = available_parallelism().map_or(1, |cores| cores.get());
    let mut parts = vec![(vec![], vec![]); cores];
    for (number, start) in (0..ROWS).step_by(BATCH).enumerate() {
        let (values, batch) = batch(start);
        let part = &mut parts[number % cores];
        part.0.push(values);
        part.1.push(batch);
    }
    let (values, batches): (Vec<_>, Vec<_>) = parts.into_iter().unzip();
    let config = SessionConfig::new().with_target_partitions(cores);
    let ctx = SessionContext::new_with_config(config).with_predict(Arc::new(PredictRuntime::default()));
    let table = MemTable::try_new(batches[0][0].schema(), batches).expect("a table");
    ctx.register_table("docs", Arc::new(table)).expect("a new name");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(cores).build().expect("a runtime");
    let query = "SELECT id FROM docs ORDER BY cosine_similarity(v, (SELECT v FROM docs WHERE id = 7)) DESC LIMIT 10";
    let vector = "(SELECT v AS q FROM docs WHERE id = 7)";
    let join = format!("SELECT id FROM docs, {vector} ORDER BY cosine_similarity(v, q) DESC LIMIT 10");
    let literal = {
        let seven: Vec<_> =
            values[0][0].values()[7 * WIDTH..8 * WIDTH].iter().map(|value| format!("{value}")).collect();
        format!(
            "SELECT id FROM docs ORDER BY cosine_similarity(v, arrow_cast([{}], 'FixedSizeList({WIDTH}, Float32)')) DESC LIMIT 10",
            seven.join(", ")
        )
    };
    let mut group = c.benchmark_group("vectors");
    group.sample_size(10).throughput(Throughput::Bytes((ROWS * WIDTH * 4) as u64));
    group.bench_function("sum", |b| {
        b.iter(|| {
            scope(|scope| {
                let sums: Vec<_> = values
                    .iter()
                    .map(|part| scope.spawn(|| part.iter().filter_map(sum).map(f64::from).sum::<f64>()))
                    .collect();
                sums.into_iter().map(|sum| sum.join().expect("no panic")).sum::<f64>()
            })
        });
    });
    for (name, query) in [("search", literal.as_str()), ("search by subquery", query), ("search by join", &join)] {
        group.bench_function(name, |b| {
            b.iter(|| {
                runtime.block_on(async {
                    let rows = ctx.sql(query).await.expect("a query").collect().await.expect("rows");
                    assert_eq!(rows.iter().map(RecordBatch::num_rows).sum::<usize>(), 10);
                })
            });
        });
    }
    group.finish();
}

criterion_group!(benches, search);
criterion_main!(benches);
