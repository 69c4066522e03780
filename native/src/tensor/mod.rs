//! Tensors, whose elements lie in Arrow's buffers.

mod array;
mod axes;
mod element;

use arrow::array::{Array, BinaryArray, StringArray};
use arrow::buffer::ScalarBuffer;
use half::{bf16, f16};

pub use element::ElementType;

/// A dense tensor in row-major order. Cloning it copies no element.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    /// Dimensions, rows first. Their product is the number of elements.
    pub shape: Vec<usize>,
    /// The elements.
    pub data: TensorData,
}

/// Elements of a tensor. The primitive ones share Arrow's buffers.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum TensorData {
    Float32(ScalarBuffer<f32>),
    Float64(ScalarBuffer<f64>),
    Float16(ScalarBuffer<f16>),
    BFloat16(Vec<bf16>),
    Int8(ScalarBuffer<i8>),
    Int16(ScalarBuffer<i16>),
    Int32(ScalarBuffer<i32>),
    Int64(ScalarBuffer<i64>),
    UInt8(ScalarBuffer<u8>),
    UInt16(ScalarBuffer<u16>),
    UInt32(ScalarBuffer<u32>),
    UInt64(ScalarBuffer<u64>),
    Bool(Vec<bool>),
    /// Without nulls.
    String(StringArray),
    /// Without nulls.
    Bytes(BinaryArray),
}

impl TensorData {
    /// The number of elements.
    pub fn len(&self) -> usize {
        match self {
            Self::Float32(data) => data.len(),
            Self::Float64(data) => data.len(),
            Self::Float16(data) => data.len(),
            Self::BFloat16(data) => data.len(),
            Self::Int8(data) => data.len(),
            Self::Int16(data) => data.len(),
            Self::Int32(data) => data.len(),
            Self::Int64(data) => data.len(),
            Self::UInt8(data) => data.len(),
            Self::UInt16(data) => data.len(),
            Self::UInt32(data) => data.len(),
            Self::UInt64(data) => data.len(),
            Self::Bool(data) => data.len(),
            Self::String(data) => data.len(),
            Self::Bytes(data) => data.len(),
        }
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The type of the elements.
    pub fn element(&self) -> ElementType {
        match self {
            Self::Float32(_) => ElementType::Float32,
            Self::Float64(_) => ElementType::Float64,
            Self::Float16(_) => ElementType::Float16,
            Self::BFloat16(_) => ElementType::BFloat16,
            Self::Int8(_) => ElementType::Int8,
            Self::Int16(_) => ElementType::Int16,
            Self::Int32(_) => ElementType::Int32,
            Self::Int64(_) => ElementType::Int64,
            Self::UInt8(_) => ElementType::UInt8,
            Self::UInt16(_) => ElementType::UInt16,
            Self::UInt32(_) => ElementType::UInt32,
            Self::UInt64(_) => ElementType::UInt64,
            Self::Bool(_) => ElementType::Bool,
            Self::String(_) => ElementType::String,
            Self::Bytes(_) => ElementType::Bytes,
        }
    }
}

impl Tensor {
    /// A tensor of `shape` that holds zeros, empty strings or bytes, or `false`.
    pub fn zeros(element: ElementType, shape: Vec<usize>) -> Self {
        let len = shape.iter().product();
        macro_rules! zeros {
            ($variant:ident) => {
                TensorData::$variant(vec![Default::default(); len].into())
            };
        }
        let data = match element {
            ElementType::Float32 => zeros!(Float32),
            ElementType::Float64 => zeros!(Float64),
            ElementType::Float16 => zeros!(Float16),
            ElementType::BFloat16 => zeros!(BFloat16),
            ElementType::Int8 => zeros!(Int8),
            ElementType::Int16 => zeros!(Int16),
            ElementType::Int32 => zeros!(Int32),
            ElementType::Int64 => zeros!(Int64),
            ElementType::UInt8 => zeros!(UInt8),
            ElementType::UInt16 => zeros!(UInt16),
            ElementType::UInt32 => zeros!(UInt32),
            ElementType::UInt64 => zeros!(UInt64),
            ElementType::Bool => zeros!(Bool),
            ElementType::String => TensorData::String(StringArray::from(vec![""; len])),
            ElementType::Bytes => TensorData::Bytes(BinaryArray::from(vec![b"".as_slice(); len])),
        };
        Self { shape, data }
    }

    /// The number of rows: the first dimension.
    pub fn rows(&self) -> usize {
        self.shape.first().copied().unwrap_or(0)
    }

    /// The same elements in memory of their own, where they may share a column's.
    pub fn detached(self) -> Self {
        macro_rules! copied {
            ($($kind:ident),+) => {
                match self.data {
                    $(TensorData::$kind(data) => TensorData::$kind(data.to_vec().into()),)+
                    TensorData::String(data) => TensorData::String(data.iter().collect()),
                    TensorData::Bytes(data) => TensorData::Bytes(data.iter().collect()),
                    owned @ (TensorData::BFloat16(_) | TensorData::Bool(_)) => owned,
                }
            };
        }
        let data = copied!(Float32, Float64, Float16, Int8, Int16, Int32, Int64, UInt8, UInt16, UInt32, UInt64);
        Self { shape: self.shape, data }
    }

    /// The first `rows` rows.
    pub fn truncated(mut self, rows: usize) -> Self {
        if rows >= self.rows() {
            return self;
        }
        let elements = rows * (self.data.len() / self.rows());
        self.shape[0] = rows;
        self.data = match self.data {
            TensorData::Float32(data) => TensorData::Float32(data.slice(0, elements)),
            TensorData::Float64(data) => TensorData::Float64(data.slice(0, elements)),
            TensorData::Float16(data) => TensorData::Float16(data.slice(0, elements)),
            TensorData::Int8(data) => TensorData::Int8(data.slice(0, elements)),
            TensorData::Int16(data) => TensorData::Int16(data.slice(0, elements)),
            TensorData::Int32(data) => TensorData::Int32(data.slice(0, elements)),
            TensorData::Int64(data) => TensorData::Int64(data.slice(0, elements)),
            TensorData::UInt8(data) => TensorData::UInt8(data.slice(0, elements)),
            TensorData::UInt16(data) => TensorData::UInt16(data.slice(0, elements)),
            TensorData::UInt32(data) => TensorData::UInt32(data.slice(0, elements)),
            TensorData::UInt64(data) => TensorData::UInt64(data.slice(0, elements)),
            TensorData::BFloat16(mut data) => {
                data.truncate(elements);
                TensorData::BFloat16(data)
            }
            TensorData::Bool(mut data) => {
                data.truncate(elements);
                TensorData::Bool(data)
            }
            TensorData::String(data) => TensorData::String(data.slice(0, elements)),
            TensorData::Bytes(data) => TensorData::Bytes(data.slice(0, elements)),
        };
        self
    }
}
