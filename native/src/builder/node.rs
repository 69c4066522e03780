//! A node of the graph, read with errors that say what is wrong.

use std::sync::Arc;

use super::value::{Result, Scalar, Value, invalid, unsupported};
use crate::model::proto::{AttributeProto, NodeProto, TensorProto};
use crate::model::{Weight, WeightData};
use crate::tensor::ElementType;

/// A node and the values of its inputs.
pub(crate) struct Node<'a> {
    proto: &'a NodeProto,
    /// The version of the operator set that the node's operator is from.
    pub opset: i64,
    /// `None` for an optional input that is left out.
    pub inputs: Vec<Option<Value>>,
}

impl<'a> Node<'a> {
    pub(crate) fn new(proto: &'a NodeProto, opset: i64, inputs: Vec<Option<Value>>) -> Self {
        Self { proto, opset, inputs }
    }

    pub(crate) fn operator(&self) -> &str {
        &self.proto.op_type
    }

    pub(crate) fn outputs(&self) -> usize {
        self.proto.output.len()
    }

    /// An input that the operator can't do without.
    pub(crate) fn input(&self, position: usize) -> Result<&Value> {
        match self.optional(position) {
            Some(value) => Ok(value),
            None => invalid!("has no input {}", position + 1),
        }
    }

    pub(crate) fn optional(&self, position: usize) -> Option<&Value> {
        self.inputs.get(position).and_then(Option::as_ref)
    }

    pub(crate) fn attribute(&self, name: &str) -> Option<&'a AttributeProto> {
        self.proto.attribute(name)
    }

    pub(crate) fn int(&self, name: &str) -> Option<i64> {
        self.attribute(name).and_then(|attribute| attribute.i)
    }

    pub(crate) fn int_or(&self, name: &str, default: i64) -> i64 {
        self.int(name).unwrap_or(default)
    }

    pub(crate) fn flag(&self, name: &str, default: bool) -> bool {
        self.int(name).map_or(default, |value| value != 0)
    }

    pub(crate) fn float(&self, name: &str) -> Option<f32> {
        self.attribute(name).and_then(|attribute| attribute.f)
    }

    pub(crate) fn float_or(&self, name: &str, default: f32) -> f32 {
        self.float(name).unwrap_or(default)
    }

    /// A list that is empty where it is absent.
    pub(crate) fn floats(&self, name: &str) -> &'a [f32] {
        self.attribute(name).map_or(&[], |attribute| &attribute.floats)
    }

    pub(crate) fn ints(&self, name: &str) -> &'a [i64] {
        self.attribute(name).map_or(&[], |attribute| &attribute.ints)
    }

    pub(crate) fn text(&self, name: &str) -> Option<String> {
        let bytes = self.attribute(name)?.s.as_ref()?;
        Some(String::from_utf8_lossy(bytes).into_owned())
    }

    pub(crate) fn text_or(&self, name: &str, default: &str) -> String {
        self.text(name).unwrap_or_else(|| default.to_owned())
    }

    pub(crate) fn texts(&self, name: &str) -> Vec<Arc<str>> {
        let strings = self.attribute(name).map_or(&[][..], |attribute| &attribute.strings);
        strings.iter().map(|bytes| String::from_utf8_lossy(bytes).into()).collect()
    }

    pub(crate) fn tensor(&self, name: &str) -> Result<Option<Value>> {
        self.attribute(name).and_then(|attribute| attribute.t.as_ref()).map(constant).transpose()
    }

    /// Integers that newer operators take as an input and older ones as an attribute.
    pub(crate) fn integers(&self, input: usize, attribute: &str) -> Result<Option<Vec<i64>>> {
        if let Some(value) = self.optional(input) {
            return value.integers().map(Some);
        }
        Ok(self.attribute(attribute).map(|attribute| attribute.ints.clone()))
    }
}

/// Elements of a constant, at most: what the engine spreads over registers and kernels is small.
const LARGEST_CONSTANT: usize = 1 << 22;

fn dims_of(dims: &[i64], name: &str) -> Result<Vec<usize>> {
    let dims: Option<Vec<usize>> = dims.iter().map(|dim| usize::try_from(*dim).ok()).collect();
    let Some(dims) = dims else { invalid!("tensor '{name}' has a negative dimension") };
    let without_zeros = dims.iter().filter(|dim| **dim > 0).try_fold(1usize, |size, dim| size.checked_mul(*dim));
    match without_zeros {
        Some(count) if count <= LARGEST_CONSTANT && dims.len() <= 16 => Ok(dims),
        _ => unsupported!("tensor '{name}' of {dims:?} is large"),
    }
}

/// A tensor of the file.
pub(crate) fn constant(tensor: &TensorProto) -> Result<Value> {
    let name = &tensor.name;
    let Some(element) = ElementType::from_onnx(tensor.data_type) else {
        unsupported!("tensor '{name}' of type {}", tensor.data_type);
    };
    let dims = dims_of(&tensor.dims, name)?;
    let items: Vec<Scalar> = match (&tensor.raw_data, element) {
        (_, ElementType::String) => {
            tensor.string_data.iter().map(|text| Scalar::Text(String::from_utf8_lossy(text).into())).collect()
        }
        (Some(raw), _) => from_bytes(element, raw)?,
        (None, ElementType::Float32) => tensor.float_data.iter().map(|value| Scalar::F32(*value)).collect(),
        (None, ElementType::Float64) => tensor.double_data.iter().map(|value| Scalar::F64(*value)).collect(),
        (None, ElementType::Int64) => tensor.int64_data.iter().map(|value| Scalar::I64(*value)).collect(),
        (None, ElementType::UInt32) => tensor.uint64_data.iter().map(|value| Scalar::I64(*value as i64)).collect(),
        (None, ElementType::Float16 | ElementType::BFloat16 | ElementType::UInt64) => {
            unsupported!("tensor '{name}' of type {element}")
        }
        (None, _) => tensor.int32_data.iter().map(|value| Scalar::I64((*value).into())).collect(),
    };
    let count: usize = dims.iter().product();
    if items.len() != count {
        invalid!("tensor '{name}' of {dims:?} holds {} elements", items.len());
    }
    Ok(Value::constant(element, dims, items))
}

fn from_bytes(element: ElementType, raw: &[u8]) -> Result<Vec<Scalar>> {
    macro_rules! read {
        ($native:ty, $scalar:expr) => {{
            let chunks = raw.chunks_exact(size_of::<$native>());
            Ok(chunks.map(|bytes| $scalar(<$native>::from_le_bytes(bytes.try_into().unwrap_or_default()))).collect())
        }};
    }
    match element {
        ElementType::Float32 => read!(f32, Scalar::F32),
        ElementType::Float64 => read!(f64, Scalar::F64),
        ElementType::Int64 => read!(i64, Scalar::I64),
        ElementType::Int32 => read!(i32, |value: i32| Scalar::I64(value.into())),
        ElementType::Int16 => read!(i16, |value: i16| Scalar::I64(value.into())),
        ElementType::Int8 => read!(i8, |value: i8| Scalar::I64(value.into())),
        ElementType::UInt8 => read!(u8, |value: u8| Scalar::I64(value.into())),
        ElementType::UInt16 => read!(u16, |value: u16| Scalar::I64(value.into())),
        ElementType::UInt32 => read!(u32, |value: u32| Scalar::I64(value.into())),
        ElementType::Bool => read!(u8, |value: u8| Scalar::I64((value != 0).into())),
        ElementType::String
        | ElementType::Bytes
        | ElementType::Float16
        | ElementType::BFloat16
        | ElementType::UInt64 => {
            unsupported!("elements of type {element}")
        }
    }
}

/// A weight that stands apart from the file.
pub(crate) fn weight(weight: &Weight) -> Result<Value> {
    let dims = dims_of(&weight.shape, &weight.name)?;
    let (element, items) = match &weight.data {
        WeightData::Float32(data) => (ElementType::Float32, data.iter().map(|value| Scalar::F32(*value)).collect()),
        WeightData::Float64(data) => (ElementType::Float64, data.iter().map(|value| Scalar::F64(*value)).collect()),
        WeightData::Int64(data) => (ElementType::Int64, data.iter().map(|value| Scalar::I64(*value)).collect()),
        WeightData::Int32(data) => {
            (ElementType::Int32, data.iter().map(|value| Scalar::I64((*value).into())).collect())
        }
        WeightData::Int8(data) => (ElementType::Int8, data.iter().map(|value| Scalar::I64((*value).into())).collect()),
        WeightData::UInt8(data) => {
            (ElementType::UInt8, data.iter().map(|value| Scalar::I64((*value).into())).collect())
        }
        WeightData::Float16(_) | WeightData::BFloat16(_) => unsupported!("weight '{}' of half precision", weight.name),
    };
    Ok(Value::constant(element, dims, items))
}
