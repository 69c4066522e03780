//! Normalization with numbers that training has left behind.

use crate::builder::{Node, Operand, ProgramBuilder, Result, Scalar, Value, invalid, unsupported};
use crate::program::{Buffer, Kernel, Kind, Slice};
use crate::tensor::ElementType;
use crate::trees::TreeScratch;

/// `x * factor + shift`, each column with its own two.
#[derive(Debug)]
struct Affine {
    singles: Vec<(f32, f32)>,
    doubles: Vec<(f64, f64)>,
}

impl Kernel for Affine {
    fn run(
        &self,
        rows: usize,
        inputs: &[Slice<'_>],
        outputs: &mut [Buffer],
        _: &mut TreeScratch,
    ) -> Result<(), String> {
        for (column, (input, output)) in inputs.iter().zip(outputs).enumerate() {
            match input {
                Slice::F64(x) => {
                    let (factor, shift) = self.doubles[column];
                    output.f64s_mut()[..rows].iter_mut().zip(*x).for_each(|(to, x)| *to = x * factor + shift);
                }
                x => {
                    let (factor, shift) = self.singles[column];
                    output.f32s_mut()[..rows].iter_mut().zip(x.f32s()).for_each(|(to, x)| *to = x * factor + shift);
                }
            }
        }
        Ok(())
    }
}

/// A constant for each channel.
fn channels(value: &Value, count: usize) -> Result<Vec<f64>> {
    let Some(scalars) = value.scalars().filter(|_| value.rows.is_none()) else {
        unsupported!("normalizes by numbers that are not constant");
    };
    if scalars.len() != count {
        invalid!("has {} numbers for {count} channels", scalars.len());
    }
    let number = |scalar: &Scalar| match scalar {
        Scalar::F32(number) => Ok(f64::from(*number)),
        Scalar::F64(number) => Ok(*number),
        _ => unsupported!("normalizes by what are no floats"),
    };
    scalars.into_iter().map(number).collect()
}

/// The second dimension is that of the channels.
pub(super) fn batch_normalization(builder: &mut ProgramBuilder, node: &Node<'_>) -> Result<Vec<Value>> {
    if node.int_or("training_mode", 0) != 0 {
        unsupported!("normalizes by the rows of a run");
    }
    if node.int_or("spatial", 1) != 1 {
        unsupported!("normalizes each place by itself");
    }
    let value = node.input(0)?;
    if value.rows != Some(0) || value.rank() < 2 {
        unsupported!("normalizes what has no rows first");
    }
    let count = value.dims[1];
    let numbers = (1..5).map(|input| channels(node.input(input)?, count)).collect::<Result<Vec<_>>>()?;
    let [scale, bias, mean, variance] = numbers.as_slice() else { invalid!("has too few inputs") };
    let epsilon = node.float_or("epsilon", 1e-5);
    let kind = match value.element {
        ElementType::Float32 => Kind::F32,
        ElementType::Float64 => Kind::F64,
        element => unsupported!("normalizes {element}"),
    };
    let places: usize = value.dims[2..].iter().product();
    let of_items = |channel: usize| std::iter::repeat_n(channel, places);
    let order: Vec<_> = (0..count).flat_map(of_items).collect();
    // As ONNX Runtime folds the four numbers into two.
    let single = |channel: usize| {
        let factor = scale[channel] as f32 / (variance[channel] as f32 + epsilon).sqrt();
        (factor, bias[channel] as f32 - mean[channel] as f32 * factor)
    };
    let double = |channel: usize| {
        let factor = scale[channel] / (variance[channel] + f64::from(epsilon)).sqrt();
        (factor, bias[channel] - mean[channel] * factor)
    };
    let kernel = Affine {
        singles: order.iter().map(|channel| single(*channel)).collect(),
        doubles: order.iter().map(|channel| double(*channel)).collect(),
    };
    let items: Vec<Operand> = builder.emit(kernel, &value.items, &vec![kind; value.items.len()])?;
    Ok(vec![value.with_items(value.dims.clone(), value.rows, items)])
}
