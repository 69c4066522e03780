//! How fast does each engine score, on one core, with the data in memory?
//!
//! Our own engine reads columns; ONNX Runtime is given a matrix that is ready, in batches of the size that suits it, and
//! one thread. Of linear models the measure is the memory: how long a plain sum of the same columns takes.
//!
//! Needs the models and data of `tests/models/make_bench.py` in the folder that `BENCH` names; `make bench` makes them.

use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use datafusion::arrow::array::{Array, ArrayRef, AsArray};
use datafusion::arrow::compute::concat_batches;
use datafusion::arrow::datatypes::{DataType, Float32Type, Int32Type, Int64Type};
use datafusion::prelude::{ParquetReadOptions, SessionConfig, SessionContext};
use datafusion_predict::{
    CoreBudget, Engine, Executable, Model, NativeEngine, OrtEngine, PrepareRequest, Prepared, RunContext, Tensor,
    TensorData,
};

/// Rows that a tree model scores in one measurement.
const TREE_ROWS: usize = 65_536;

/// The batches in which DataFusion's streams come.
const BATCH: usize = 8192;

/// The batch in which ONNX Runtime is fastest on these trees: larger ones are no faster.
const ORT_BATCH: usize = 1024;

fn folder() -> PathBuf {
    std::env::var_os("BENCH").map(PathBuf::from).expect("BENCH names the folder of models and data: use `make bench`")
}

/// The columns of a Parquet file whose names begin with one of `prefixes`, each in one piece.
fn columns(file: &str, prefixes: &[&str]) -> Vec<ArrayRef> {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let path = folder().join(file);
    let batches = runtime.block_on(async {
        let context = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(1));
        let path = path.to_str().expect("a path");
        let frame = context.read_parquet(path, ParquetReadOptions::default()).await.expect("a Parquet file");
        frame.collect().await.expect("rows")
    });
    let data = concat_batches(&batches[0].schema(), &batches).expect("equal batches");
    let of_prefix = |name: &str| prefixes.iter().any(|p| name.strip_prefix(p).is_some_and(|n| n.parse::<u8>().is_ok()));
    let fields = data.schema();
    let wanted = fields.fields().iter().enumerate().filter(|(_, field)| of_prefix(field.name()));
    wanted.map(|(i, _)| data.column(i).clone()).collect()
}

fn load(engine: &dyn Engine, path: &Path) -> Arc<dyn Executable> {
    prepare(engine, &Model::read(path.to_str().expect("a path")).expect("a model"))
}

fn prepare(engine: &dyn Engine, model: &Arc<Model>) -> Arc<dyn Executable> {
    let signature = model.signature();
    let request = PrepareRequest {
        label: "bench".into(),
        inputs: signature.inputs.clone(),
        outputs: vec![signature.outputs.last().expect("an output").name.clone()],
        chosen: true,
        ..Default::default()
    };
    match engine.prepare(model, &request).expect("the model loads") {
        Prepared::Ready(executable) => executable,
        Prepared::Refused(reason) => panic!("{}: {reason}", engine.name()),
    }
}

fn slices(inputs: &[Vec<ArrayRef>], rows: usize, batch: usize) -> Vec<(Vec<Vec<ArrayRef>>, usize)> {
    let slice = |start: usize| {
        let count = batch.min(rows - start);
        let cut = |column: &ArrayRef| column.slice(start, count);
        (inputs.iter().map(|columns| columns.iter().map(cut).collect()).collect(), count)
    };
    (0..rows).step_by(batch).map(slice).collect()
}

/// The columns side by side.
fn matrix(columns: &[ArrayRef], start: usize, count: usize) -> Tensor {
    let columns: Vec<_> = columns.iter().map(|column| column.as_primitive::<Float32Type>().values()).collect();
    let data: Vec<f32> = (start..start + count).flat_map(|row| columns.iter().map(move |column| column[row])).collect();
    Tensor { shape: vec![count, columns.len()], data: TensorData::Float32(data.into()) }
}

fn trees(criterion: &mut Criterion) {
    let features = columns("data.parquet", &["f"]);
    let context = RunContext::default();
    let ort = OrtEngine::new(None, Arc::new(CoreBudget::default()));
    for name in ["trees", "trees_500x255", "trees_1000x31", "forest_100x16"] {
        let path = folder().join(format!("{name}.onnx"));
        let mut group = criterion.benchmark_group(name);
        group.sampling_mode(SamplingMode::Flat).sample_size(10).warm_up_time(Duration::from_millis(500));

        let native = load(&NativeEngine, &path);
        let batches = slices(std::slice::from_ref(&features), TREE_ROWS, BATCH);
        let columnar = native.columnar().expect("our engine reads columns");
        group.throughput(Throughput::Elements(TREE_ROWS as u64));
        group.bench_function(BenchmarkId::new("native", TREE_ROWS), |bench| {
            bench.iter(|| {
                for (inputs, rows) in &batches {
                    black_box(columnar.run_columns(inputs, *rows, &context).expect("it runs"));
                }
            });
        });
        let (row, _) = &slices(std::slice::from_ref(&features), 1, 1)[0];
        group.throughput(Throughput::Elements(1));
        group.bench_function(BenchmarkId::new("native", "one row"), |bench| {
            bench.iter(|| black_box(columnar.run_columns(row, 1, &context).expect("it runs")));
        });

        // A few batches tell: it takes long.
        let onnxruntime = load(&ort, &path);
        let tensors: Vec<_> = (0..4).map(|i| [matrix(&features, i * ORT_BATCH, ORT_BATCH)]).collect();
        group.throughput(Throughput::Elements(4 * ORT_BATCH as u64));
        group.bench_function(BenchmarkId::new("onnxruntime", 4 * ORT_BATCH), |bench| {
            bench.iter(|| {
                for inputs in &tensors {
                    black_box(onnxruntime.run(inputs, &context).expect("it runs"));
                }
            });
        });
        group.finish();
    }
}

/// Reads each value once.
fn sum(columns: &[ArrayRef]) -> f64 {
    let floats = |values: &[f32]| {
        let mut sums = [0.0f32; 32];
        values.chunks_exact(32).for_each(|chunk| sums.iter_mut().zip(chunk).for_each(|(sum, x)| *sum += x));
        f64::from(sums.iter().sum::<f32>())
    };
    let of_column = |column: &ArrayRef| match column.data_type() {
        DataType::Float32 => floats(column.as_primitive::<Float32Type>().values()),
        DataType::Int64 => column.as_primitive::<Int64Type>().values().iter().sum::<i64>() as f64,
        _ => {
            let keys = column.as_dictionary::<Int32Type>().keys().values();
            f64::from(keys.iter().fold(0i32, |sum, key| sum.wrapping_add(*key)))
        }
    };
    columns.iter().map(of_column).sum()
}

fn linear(criterion: &mut Criterion) {
    let context = RunContext::default();
    let dense = vec![columns("data.parquet", &["f"])];
    let each = |prefixes: &[&str]| columns("categories.parquet", prefixes).into_iter().map(|c| vec![c]).collect();
    for (name, inputs) in [("logistic", dense), ("onehot", each(&["n", "c"])), ("onehot_text", each(&["n", "s"]))] {
        let native = load(&NativeEngine, &folder().join(format!("{name}.onnx")));
        let columnar = native.columnar().expect("our engine reads columns");
        let rows = inputs[0][0].len();
        let batches = slices(&inputs, rows, BATCH);
        let mut group = criterion.benchmark_group(name);
        group.sampling_mode(SamplingMode::Flat).sample_size(20).throughput(Throughput::Elements(rows as u64));
        group.bench_function("native", |bench| {
            bench.iter(|| {
                for (inputs, rows) in &batches {
                    black_box(columnar.run_columns(inputs, *rows, &context).expect("it runs"));
                }
            });
        });
        group.bench_function("sum of the columns", |bench| {
            bench.iter(|| {
                for (inputs, _) in &batches {
                    inputs.iter().for_each(|columns| {
                        black_box(sum(columns));
                    });
                }
            });
        });
        group.finish();
    }
}

/// How fast are ensembles compiled, in bytes of their files? And how much memory do they take then?
fn compile(criterion: &mut Criterion) {
    for name in ["trees", "trees_500x255", "forest_100x16"] {
        let path = folder().join(format!("{name}.onnx"));
        let size = std::fs::metadata(&path).expect("a file").len();
        let in_memory = load(&NativeEngine, &path).size().expect("our engine knows");
        println!("{name}: {size} bytes in the file, {in_memory} in memory");
        let model = Model::read(path.to_str().expect("a path")).expect("a model");
        let mut group = criterion.benchmark_group(format!("compile {name}"));
        group.sampling_mode(SamplingMode::Flat).sample_size(10).throughput(Throughput::Bytes(size));
        group.bench_function("read and compiled", |bench| bench.iter(|| black_box(load(&NativeEngine, &path))));
        group.bench_function("compiled", |bench| bench.iter(|| black_box(prepare(&NativeEngine, &model))));
        group.finish();
    }
}

criterion_group!(benches, trees, linear, compile);
criterion_main!(benches);
