//! Made-up inputs, on which a model is tried before it has seen a row.

use datafusion::arrow::array::{Array, BinaryArray, StringArray};
use datafusion_predict_native::{ElementType, Tensor, TensorData, TensorSpec};
use half::{bf16, f16};

use crate::encode::made_up_image;
use crate::error::{Result, error};

/// Elements of a made-up tensor, at most.
const LARGEST: usize = 1 << 26;

/// Zeros, with `rows` rows and `size` for every other dimension that is not fixed.
///
/// # Errors
/// A tensor that would be too large to be made up.
pub(super) fn zeros(inputs: &[TensorSpec], rows: usize, size: usize) -> Result<Vec<Tensor>> {
    inputs.iter().map(|input| Ok(Tensor::zeros(input.element, shape(input, rows, size)?))).collect()
}

/// Which floats rows are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Floats {
    /// Between 0.1 and 1.1: they have logarithms and roots.
    Positive,
    /// Between -0.05 and 0.05: sums of them saturate no sigmoid.
    Small,
}

/// Rows that differ from each other, with `size` for every dimension that is not fixed: one tensor of `rows` rows for each
/// input. They are the same each time. Integers are 0 or 1, since they may be positions in a table.
///
/// # Errors
/// As [`zeros`].
pub(super) fn rows(inputs: &[TensorSpec], rows: usize, size: usize, floats: Floats) -> Result<Vec<Tensor>> {
    let each = inputs.iter().enumerate();
    each.map(|(number, input)| varied(input, number, shape(input, rows, size)?, floats)).collect()
}

/// Puts words in place of empty texts: one more in each row, so that rows differ in length, too.
pub(super) fn with_words(tensor: &mut Tensor) {
    const WORDS: [&str; 8] = ["the", "quick", "brown", "fox", "jumps", "over", "lazy", "dogs"];
    if let TensorData::String(texts) = &tensor.data {
        let text =
            |row: usize| WORDS.iter().cycle().skip(row).take(row % 16 + 1).copied().collect::<Vec<_>>().join(" ");
        tensor.data = TensorData::String(StringArray::from_iter_values((0..texts.len()).map(text)));
    }
}

/// Puts the files of pictures in place of no bytes: another in each row.
pub(super) fn with_images(tensor: &mut Tensor) {
    if let TensorData::Bytes(bytes) = &tensor.data {
        tensor.data = TensorData::Bytes(BinaryArray::from_iter_values((0..bytes.len()).map(made_up_image)));
    }
}

fn shape(input: &TensorSpec, rows: usize, size: usize) -> Result<Vec<usize>> {
    let row = input.row_shape().iter().map(|dim| dim.size().unwrap_or(size));
    let shape: Vec<usize> = std::iter::once(rows).chain(row).collect();
    match shape.iter().try_fold(1usize, |n, size| n.checked_mul(*size)) {
        Some(elements) if elements <= LARGEST => Ok(shape),
        _ => Err(error!(EngineFailed, "input {input} is too large to be tried with made-up values")),
    }
}

fn varied(input: &TensorSpec, number: usize, shape: Vec<usize>, floats: Floats) -> Result<Tensor> {
    let (start, width) = match floats {
        Floats::Positive => (0.1, 1.0),
        Floats::Small => (-0.05, 0.1),
    };
    let mut state = 2 * number as u64 + u64::from(floats == Floats::Small);
    let mut next = move || {
        // SplitMix64, by Sebastiano Vigna: <https://prng.di.unimi.it/splitmix64.c>
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    let elements: usize = shape.iter().product();
    let mut share = || (next() >> 40) as f32 / (1 << 24) as f32;
    macro_rules! floats {
        ($variant:ident, $of:expr) => {
            TensorData::$variant((0..elements).map(|_| $of(start + width * share())).collect::<Vec<_>>().into())
        };
    }
    macro_rules! integers {
        ($variant:ident) => {
            TensorData::$variant((0..elements).map(|_| (share() > 0.5).into()).collect::<Vec<_>>().into())
        };
    }
    let data = match input.element {
        ElementType::Float32 => floats!(Float32, |value| value),
        ElementType::Float64 => floats!(Float64, f64::from),
        ElementType::Float16 => floats!(Float16, f16::from_f32),
        ElementType::BFloat16 => {
            TensorData::BFloat16((0..elements).map(|_| bf16::from_f32(start + width * share())).collect())
        }
        ElementType::Int8 => integers!(Int8),
        ElementType::Int16 => integers!(Int16),
        ElementType::Int32 => integers!(Int32),
        ElementType::Int64 => integers!(Int64),
        ElementType::UInt8 => integers!(UInt8),
        ElementType::UInt16 => integers!(UInt16),
        ElementType::UInt32 => integers!(UInt32),
        ElementType::UInt64 => integers!(UInt64),
        ElementType::Bool => TensorData::Bool((0..elements).map(|_| share() > 0.5).collect()),
        ElementType::String => TensorData::String(StringArray::from(vec![""; elements])),
        ElementType::Bytes => TensorData::Bytes(BinaryArray::from(vec![b"".as_slice(); elements])),
    };
    Ok(Tensor { shape, data })
}
