//! Scores an Arrow record batch with a model of scikit-learn: no DataFusion, no ONNX Runtime.
//!
//!     cargo run -p datafusion-predict-native --example score_record_batch

use std::error::Error;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float32Array, RecordBatch};
use arrow::util::display::array_value_to_string;
use datafusion_predict_native::{CompileOptions, Compiled, CompiledModel, Model};

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
    // The first output, one label for each row, beside the columns.
    let scored = flowers.columns().iter().cloned().chain([outputs[0].data.to_array()]);
    let names = ["sepal_length", "sepal_width", "petal_length", "petal_width", "species"];
    let scored = RecordBatch::try_from_iter(names.into_iter().zip(scored))?;
    for row in 0..scored.num_rows() {
        println!("{}", array_value_to_string(scored.column(4), row)?);
    }
    Ok(())
}
