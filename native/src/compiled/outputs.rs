//! Outputs of a program, block by block, as tensors.

use arrow::array::StringArray;
use half::{bf16, f16};

use crate::program::{Kind, Output, Slice};
use crate::tensor::{ElementType, Tensor, TensorData};

/// An output in the making: its elements in row-major order.
pub(super) enum OutputBuffer {
    F32(Vec<f32>, usize),
    F64(Vec<f64>, usize),
    I64(Vec<i64>, usize),
}

impl OutputBuffer {
    /// A buffer for `rows` rows, filled with zeros; `None` if that is more memory than can be addressed.
    pub(super) fn new(output: &Output, rows: usize) -> Option<Self> {
        let width = output.columns.len();
        let elements =
            rows.checked_mul(width).filter(|elements| *elements <= isize::MAX as usize / size_of::<i64>())?;
        Some(match output.columns.first().map(|(kind, _)| *kind) {
            Some(Kind::F32) => Self::F32(vec![0.0; elements], width),
            Some(Kind::F64) => Self::F64(vec![0.0; elements], width),
            Some(Kind::I64) | None => Self::I64(vec![0; elements], width),
        })
    }

    pub(super) fn write(&mut self, number: usize, start: usize, column: Slice<'_>) {
        fn copy<T: Copy>(to: &mut [T], width: usize, number: usize, start: usize, column: &[T]) {
            if width == 1 {
                to[start..start + column.len()].copy_from_slice(column);
                return;
            }
            let to = to[start * width + number..].iter_mut().step_by(width);
            to.zip(column).for_each(|(to, value)| *to = *value);
        }
        match self {
            Self::F32(to, width) => copy(to, *width, number, start, column.f32s()),
            Self::F64(to, width) => copy(to, *width, number, start, column.f64s()),
            Self::I64(to, width) => copy(to, *width, number, start, column.i64s()),
        }
    }

    pub(super) fn into_tensor(self, output: &Output, rows: usize) -> Tensor {
        let shape = std::iter::once(rows).chain(output.dims.iter().copied()).collect();
        let data = match self {
            Self::F32(data, _) => TensorData::Float32(data.into()),
            Self::F64(data, _) => TensorData::Float64(data.into()),
            Self::I64(data, _) => match &output.texts {
                Some(texts) => {
                    let text = |code: &i64| texts.get(*code as usize).map_or("", |text| text.as_ref());
                    TensorData::String(StringArray::from_iter_values(data.iter().map(text)))
                }
                None => integers(data, output.element),
            },
        };
        Tensor { shape, data }
    }
}

/// Integers as elements of their type, which holds them: each operation has made sure of that.
fn integers(data: Vec<i64>, element: ElementType) -> TensorData {
    macro_rules! narrow {
        ($variant:ident, $native:ty) => {
            TensorData::$variant(data.into_iter().map(|value| value as $native).collect())
        };
    }
    match element {
        ElementType::Int32 => narrow!(Int32, i32),
        ElementType::Int16 => narrow!(Int16, i16),
        ElementType::Int8 => narrow!(Int8, i8),
        ElementType::UInt8 => narrow!(UInt8, u8),
        ElementType::UInt16 => narrow!(UInt16, u16),
        ElementType::UInt32 => narrow!(UInt32, u32),
        ElementType::UInt64 => narrow!(UInt64, u64),
        ElementType::Bool => TensorData::Bool(data.into_iter().map(|value| value != 0).collect()),
        ElementType::Float16 => {
            TensorData::Float16(data.into_iter().map(|value| f16::from_f64(value as f64)).collect())
        }
        ElementType::BFloat16 => {
            TensorData::BFloat16(data.into_iter().map(|value| bf16::from_f64(value as f64)).collect())
        }
        _ => TensorData::Int64(data.into()),
    }
}
