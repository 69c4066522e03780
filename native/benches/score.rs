//! How long does a row take, by trees of different sizes and by a pipeline of scikit-learn, on one core?
//!
//! The cost is per row and tree: a run has no fixed cost that counts from some hundred rows on, so each measurement scores
//! 65,536 of them, whose columns are in memory.

use std::hint::black_box;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float32Array, RecordBatch};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use datafusion_predict_native::trees::{Branch, Combine, CompiledEnsemble, Ensemble, Node, Test, Tree};
use datafusion_predict_native::{CompileOptions, Compiled, CompiledModel, Model};

const ROWS: usize = 65_536;
const COLUMNS: usize = 28;

/// A complete tree of `depth` levels with random tests: rows spread over all leaves.
fn tree(random: &mut fastrand::Rng, depth: u32) -> Tree<f32> {
    let branches = (1 << depth) - 1;
    let mut tree = Tree::default();
    for number in 0..2 * branches + 1 {
        if number < branches {
            let (column, test) = (random.u32(0..COLUMNS as u32), Test::AtMost(random.f32()));
            let (pass, fail) = (2 * number + 1, 2 * number + 2);
            tree.nodes.push(Node::Branch(Branch { column, test, missing_passes: false, pass, fail }));
        } else {
            let weight = tree.weights.len() as u32;
            tree.nodes.push(Node::Leaf(weight, weight + 1));
            tree.weights.push((0, random.f32()));
        }
    }
    tree
}

fn trees(criterion: &mut Criterion) {
    let mut random = fastrand::Rng::with_seed(42);
    let columns: Vec<Vec<f32>> = (0..COLUMNS).map(|_| (0..ROWS).map(|_| random.f32()).collect()).collect();
    let columns: Vec<&[f32]> = columns.iter().map(Vec::as_slice).collect();
    let mut group = criterion.benchmark_group("trees");
    group.throughput(Throughput::Elements(ROWS as u64)).sample_size(10);
    for (count, depth) in [(100, 5), (100, 8), (20, 14)] {
        let trees = (0..count).map(|_| tree(&mut random, depth)).collect();
        let ensemble = Ensemble { trees, columns: COLUMNS, targets: 1 };
        let compiled = CompiledEnsemble::compile(&ensemble, Combine::Sum).expect("well-formed trees");
        let name = BenchmarkId::from_parameter(format!("{count} of depth {depth}"));
        group.bench_function(name, |bencher| {
            bencher.iter(|| compiled.score_columns(black_box(&columns)).expect("scores"))
        });
    }
    group.finish();
}

fn pipeline(criterion: &mut Criterion) {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/models/sklearn/breast_cancer_logistic.onnx");
    let model = Model::read(path).expect("a model of the repository");
    let width = model.signature().inputs[0].row_elements().expect("a matrix of known width");
    let Compiled::Ready(compiled) = CompiledModel::compile(&model, &CompileOptions::of(&model)).expect("a model")
    else {
        panic!("the pipeline is compiled");
    };
    let mut random = fastrand::Rng::with_seed(42);
    let columns = (0..width).map(|i| {
        let values: Float32Array = (0..ROWS).map(|_| Some(random.f32())).collect();
        (format!("c{i}"), Arc::new(values) as ArrayRef)
    });
    let batch = RecordBatch::try_from_iter(columns).expect("columns of one length");
    let mut group = criterion.benchmark_group("pipeline");
    group.throughput(Throughput::Elements(ROWS as u64));
    group.bench_function("scaler and logistic regression", |bencher| {
        bencher.iter(|| compiled.score(black_box(&batch)).expect("scores"));
    });
    group.finish();
}

criterion_group!(benches, trees, pipeline);
criterion_main!(benches);
