//! Any bytes: the reader of graphs and the compiler refuse them, or give a program that runs.

#![no_main]

use datafusion_predict_native::{CompileOptions, Compiled, CompiledModel, ElementType, Model, Tensor, TensorData};
use libfuzzer_sys::fuzz_target;

/// Values of an input, at most: the inputs are made up here, not by the engine.
const MOST_VALUES: usize = 1 << 14;

/// A tensor of the values at which operators part.
fn tensor(element: ElementType, shape: Vec<usize>, values: usize) -> Tensor {
    const FLOATS: [f32; 8] = [0.0, 1.0, -1.5, f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e30, -0.0];
    const INTS: [i64; 7] = [0, 1, -1, 7, i64::MAX, i64::MIN, 1 << 33];
    let data = match element {
        ElementType::Float32 => TensorData::Float32(FLOATS.iter().copied().cycle().take(values).collect()),
        ElementType::Float64 => {
            TensorData::Float64(FLOATS.iter().copied().map(f64::from).cycle().take(values).collect())
        }
        ElementType::Int64 => TensorData::Int64(INTS.iter().copied().cycle().take(values).collect()),
        other => return Tensor::zeros(other, shape),
    };
    Tensor { shape, data }
}

fuzz_target!(|bytes: &[u8]| {
    let Ok(model) = Model::from_bytes("fuzzed", bytes.to_vec().into()) else { return };
    let signature = model.signature();
    let Ok(Compiled::Ready(compiled)) = CompiledModel::compile(&model, &CompileOptions::of(&model)) else { return };
    // Fewer rows than a vector holds, and more than a block.
    for rows in [1, 3, 40, 600] {
        let inputs = signature.inputs.iter().map(|input| {
            let row = input.shape[1..].iter().map(|dim| dim.size().unwrap_or(1));
            let shape: Vec<usize> = std::iter::once(rows).chain(row).collect();
            let values = shape.iter().try_fold(1usize, |values, dim| values.checked_mul(*dim));
            values.filter(|values| *values <= MOST_VALUES).map(|values| tensor(input.element, shape, values))
        });
        let Some(inputs) = inputs.collect::<Option<Vec<_>>>() else { return };
        let _ = compiled.run(&inputs, &|| false);
    }
});
