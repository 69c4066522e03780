//! Elements of tensors as Arrow arrays.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, PrimitiveArray};
use arrow::datatypes::{
    Float16Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type,
    UInt32Type, UInt64Type,
};

use super::TensorData;

impl TensorData {
    /// The elements in row-major order, of the type that [`ElementType::arrow`](crate::ElementType::arrow) gives. Those that Arrow
    /// stores alike are not copied.
    pub fn to_array(&self) -> ArrayRef {
        macro_rules! primitive {
            ($data:expr, $arrow:ty) => {
                Arc::new(PrimitiveArray::<$arrow>::new($data.clone(), None))
            };
        }
        match self {
            Self::Float32(data) => primitive!(data, Float32Type),
            Self::Float64(data) => primitive!(data, Float64Type),
            Self::Float16(data) => primitive!(data, Float16Type),
            Self::Int8(data) => primitive!(data, Int8Type),
            Self::Int16(data) => primitive!(data, Int16Type),
            Self::Int32(data) => primitive!(data, Int32Type),
            Self::Int64(data) => primitive!(data, Int64Type),
            Self::UInt8(data) => primitive!(data, UInt8Type),
            Self::UInt16(data) => primitive!(data, UInt16Type),
            Self::UInt32(data) => primitive!(data, UInt32Type),
            Self::UInt64(data) => primitive!(data, UInt64Type),
            Self::BFloat16(data) => {
                Arc::new(PrimitiveArray::<Float32Type>::from_iter_values(data.iter().map(|value| value.to_f32())))
            }
            Self::Bool(data) => Arc::new(BooleanArray::from(data.clone())),
            Self::String(data) => Arc::new(data.clone()),
            Self::Bytes(data) => Arc::new(data.clone()),
        }
    }
}
