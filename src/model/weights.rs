//! The large weights of a graph, taken out of it.

use bytes::Bytes;
use half::f16;

use super::proto::{DataLocation, GraphProto, StringStringEntryProto, TensorProto};
use super::source::{ModelSource, is_external};
use crate::error::{Result, bail};
use crate::tensor::ElementType;

/// From this size on, in bytes, a weight is taken out of the graph.
const LARGE: usize = 16 * 1024;

/// A weight tensor that sessions share.
#[derive(Debug)]
pub(crate) struct Weight {
    pub name: String,
    pub shape: Vec<i64>,
    pub data: WeightData,
}

/// Elements in row-major order, aligned for their type.
#[derive(Debug, Clone)]
pub(crate) enum WeightData {
    Float32(Box<[f32]>),
    Float64(Box<[f64]>),
    Float16(Box<[f16]>),
    Int8(Box<[i8]>),
    UInt8(Box<[u8]>),
    Int32(Box<[i32]>),
    Int64(Box<[i64]>),
}

impl WeightData {
    /// Bytes in memory.
    pub(crate) fn size(&self) -> usize {
        match self {
            Self::Float32(data) => size_of_val(&**data),
            Self::Float64(data) => size_of_val(&**data),
            Self::Float16(data) => size_of_val(&**data),
            Self::Int8(data) => size_of_val(&**data),
            Self::UInt8(data) => size_of_val(&**data),
            Self::Int32(data) => size_of_val(&**data),
            Self::Int64(data) => size_of_val(&**data),
        }
    }

    fn from_le_bytes(element: ElementType, bytes: &[u8]) -> Option<Self> {
        macro_rules! elements {
            ($type:ty) => {
                bytes
                    .chunks_exact(size_of::<$type>())
                    .map(|chunk| <$type>::from_le_bytes(chunk.try_into().expect("a chunk of its size")))
                    .collect()
            };
        }
        Some(match element {
            ElementType::Float32 => Self::Float32(elements!(f32)),
            ElementType::Float64 => Self::Float64(elements!(f64)),
            ElementType::Float16 => Self::Float16(elements!(f16)),
            ElementType::Int8 => Self::Int8(elements!(i8)),
            ElementType::UInt8 => Self::UInt8(elements!(u8)),
            ElementType::Int32 => Self::Int32(elements!(i32)),
            ElementType::Int64 => Self::Int64(elements!(i64)),
            _ => return None,
        })
    }
}

/// Takes the large and the external initializers out of `graph`, which keeps their names, types and shapes.
///
/// External data anywhere else (in a node's attribute, or of a type that has no place here) moves into the graph.
pub(super) fn split_off(uri: &str, graph: &mut GraphProto, source: &ModelSource) -> Result<Vec<Weight>> {
    let mut weights = vec![];
    for tensor in &mut graph.initializer {
        let external = is_external(tensor);
        let bytes = match &tensor.raw_data {
            _ if external => source.external(uri, tensor)?,
            Some(raw) if raw.len() >= LARGE => raw.clone(),
            _ => continue,
        };
        check_size(uri, tensor, &bytes)?;
        let element = ElementType::from_onnx(tensor.data_type);
        match element.and_then(|element| WeightData::from_le_bytes(element, &bytes)) {
            Some(data) if bytes.len() >= LARGE => {
                weights.push(Weight { name: tensor.name.clone(), shape: tensor.dims.clone(), data });
                tensor.raw_data = None;
                tensor.data_location = Some(DataLocation::External as i32);
                let location = StringStringEntryProto { key: "location".into(), value: "held in memory".into() };
                tensor.external_data = vec![location];
            }
            _ => embed(tensor, bytes),
        }
    }
    let mut result = Ok(());
    super::graph::visit_node_tensors_mut(graph, &mut |tensor| {
        if result.is_ok() && is_external(tensor) {
            result = source.external(uri, tensor).map(|bytes| embed(tensor, bytes));
        }
    });
    result.map(|()| weights)
}

fn embed(tensor: &mut TensorProto, bytes: Bytes) {
    tensor.raw_data = Some(bytes);
    tensor.external_data.clear();
    tensor.data_location = None;
}

fn check_size(uri: &str, tensor: &TensorProto, bytes: &[u8]) -> Result<()> {
    let Some(size) = ElementType::from_onnx(tensor.data_type).and_then(ElementType::size) else {
        return Ok(()); // a type without an Arrow counterpart: the engine checks it
    };
    let elements = tensor.dims.iter().try_fold(1usize, |n, &dim| n.checked_mul(usize::try_from(dim).ok()?));
    match elements.and_then(|n| n.checked_mul(size)) {
        Some(expected) if expected == bytes.len() => Ok(()),
        _ => bail!(
            InvalidModel,
            "'{uri}': weight '{}' of shape {:?} has {} bytes",
            tensor.name,
            tensor.dims,
            bytes.len()
        ),
    }
}
