//! Scores an Arrow record batch with a model of scikit-learn: no DataFusion, no ONNX Runtime.
//!
//!     cargo run -p datafusion-predict-native --example score_record_batch

use std::error::Error;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float32Array, RecordBatch};
use datafusion_predict_native::{CompileOptions, Compiled, CompiledModel, Model, TensorData};

fn main() -> Result<(), Box<dyn Error>> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/models/sklearn/iris_forest.onnx");
    let model = Model::read(path)?;
    println!("{}: {}", model.metadata().producer, model.signature().inputs[0]);

    let forest = match CompiledModel::compile(&model, &CompileOptions::of(&model))? {
        Compiled::Ready(forest) => forest,
        Compiled::Refused(reason) => return Err(reason.into()),
        other => return Err(format!("{other:?}").into()),
    };

    let column = |values: [f32; 3]| Arc::new(Float32Array::from(values.to_vec())) as ArrayRef;
    let flowers = RecordBatch::try_from_iter([
        ("sepal_length", column([5.1, 6.0, 6.7])),
        ("sepal_width", column([3.5, 2.9, 3.0])),
        ("petal_length", column([1.4, 4.5, 5.2])),
        ("petal_width", column([0.2, 1.5, 2.3])),
    ])?;
    let outputs = forest.score(&flowers)?;
    let TensorData::String(species) = &outputs[0].data else { return Err("labels are texts".into()) };
    for species in species.iter().flatten() {
        println!("{species}");
    }
    Ok(())
}
