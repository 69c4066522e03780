//! The large weights of a graph, taken out of it.

use arrow::buffer::{Buffer, ScalarBuffer};
use arrow::datatypes::ArrowNativeType;
use bytes::Bytes;
use half::{bf16, f16};

use super::file::{ModelFile, is_external};
use super::proto::{DataLocation, ModelProto, StringStringEntryProto, TensorProto};
use crate::error::{Result, bail};
use crate::tensor::ElementType;

/// From this size on, in bytes, a weight is taken out of the graph.
pub(super) const LARGE: usize = 16 * 1024;

/// A weight tensor that sessions share.
#[derive(Debug)]
pub struct Weight {
    /// The name in the graph.
    pub name: String,
    /// Its dimensions.
    pub shape: Vec<i64>,
    /// The elements.
    pub data: WeightData,
    /// Where they stand in a file, as they do here, if they do.
    pub place: Option<WeightPlace>,
}

/// Where a weight's elements stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WeightPlace {
    /// The file, from the model's folder on.
    pub file: String,
    /// Where in the file they begin, in bytes.
    pub offset: u64,
    /// How many bytes they are.
    pub length: u64,
}

impl WeightPlace {
    /// As ONNX describes external data.
    fn entries(&self) -> Vec<StringStringEntryProto> {
        let Self { file, offset, length } = self;
        let pairs = [("location", file.clone()), ("offset", offset.to_string()), ("length", length.to_string())];
        pairs.map(|(key, value)| StringStringEntryProto { key: key.into(), value }).into()
    }
}

/// Says of the weights in `proto`, which were [split off](split_off), where they stand in files; false if one does not.
pub(super) fn point_to_files(proto: &mut ModelProto, weights: &[Weight]) -> bool {
    let mut initializers = proto.graph.iter_mut().flat_map(|graph| &mut graph.initializer);
    // Weights are in the order of the initializers that they were.
    weights.iter().all(|weight| {
        let initializer = initializers.find(|tensor| is_in_memory(tensor) && tensor.name == weight.name);
        match (initializer, &weight.place) {
            (Some(tensor), Some(place)) => {
                tensor.external_data = place.entries();
                true
            }
            _ => false,
        }
    })
}

fn is_in_memory(tensor: &TensorProto) -> bool {
    tensor.external_data.first().is_some_and(|entry| entry.value == IN_MEMORY)
}

/// Elements in row-major order, aligned for their type.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "the names say it")]
pub enum WeightData {
    Float32(ScalarBuffer<f32>),
    Float64(ScalarBuffer<f64>),
    Float16(ScalarBuffer<f16>),
    BFloat16(Vec<bf16>),
    Int8(ScalarBuffer<i8>),
    UInt8(ScalarBuffer<u8>),
    Int32(ScalarBuffer<i32>),
    Int64(ScalarBuffer<i64>),
}

impl WeightData {
    /// Bytes in memory.
    pub fn size(&self) -> usize {
        match self {
            Self::Float32(data) => data.inner().len(),
            Self::Float64(data) => data.inner().len(),
            Self::Float16(data) => data.inner().len(),
            Self::BFloat16(data) => size_of_val(data.as_slice()),
            Self::Int8(data) => data.inner().len(),
            Self::UInt8(data) => data.inner().len(),
            Self::Int32(data) => data.inner().len(),
            Self::Int64(data) => data.inner().len(),
        }
    }

    /// The number of elements.
    pub fn len(&self) -> usize {
        match self {
            Self::Float32(data) => data.len(),
            Self::Float64(data) => data.len(),
            Self::Float16(data) => data.len(),
            Self::BFloat16(data) => data.len(),
            Self::Int8(data) => data.len(),
            Self::UInt8(data) => data.len(),
            Self::Int32(data) => data.len(),
            Self::Int64(data) => data.len(),
        }
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Elements from their bytes in little endian, which are not copied unless they lie askew.
    fn from_le_bytes(element: ElementType, bytes: Bytes) -> Option<Self> {
        Some(match element {
            ElementType::Float32 => Self::Float32(elements(bytes)),
            ElementType::Float64 => Self::Float64(elements(bytes)),
            ElementType::Float16 => Self::Float16(elements(bytes)),
            ElementType::Int8 => Self::Int8(elements(bytes)),
            ElementType::UInt8 => Self::UInt8(elements(bytes)),
            ElementType::Int32 => Self::Int32(elements(bytes)),
            ElementType::Int64 => Self::Int64(elements(bytes)),
            _ => return None,
        })
    }
}

fn elements<T: ArrowNativeType>(bytes: Bytes) -> ScalarBuffer<T> {
    const { assert!(cfg!(target_endian = "little"), "ONNX is little endian") };
    let aligned = bytes.as_ptr().align_offset(align_of::<T>()) == 0;
    let buffer = if aligned { Buffer::from(bytes) } else { Buffer::from_slice_ref(&bytes[..]) };
    ScalarBuffer::from(buffer)
}

/// Takes the large and the external initializers out of the graph, which keeps their names, types and shapes.
///
/// External data anywhere else (in a node's attribute, or of a type that has no place here) moves into the file.
pub(super) fn split_off(uri: &str, proto: &mut ModelProto, file: &ModelFile) -> Result<Vec<Weight>> {
    proto.training_info.clear(); // nothing trains here
    check_shapes(uri, proto)?;
    let mut weights = vec![];
    for tensor in proto.graph.iter_mut().flat_map(|graph| &mut graph.initializer) {
        let external = is_external(tensor);
        let (bytes, place) = match &tensor.raw_data {
            _ if external => {
                let (bytes, place) = file.external(uri, tensor)?;
                (bytes, Some(place))
            }
            Some(raw) if raw.len() >= LARGE => (raw.clone(), file.place(raw)),
            None if size_of_val(tensor.float_data.as_slice()) >= LARGE => {
                (tensor.float_data.iter().flat_map(|value| value.to_le_bytes()).collect(), None)
            }
            _ => continue,
        };
        if let Some(expected) = expected_size(tensor).filter(|expected| *expected != bytes.len()) {
            bail!(
                InvalidModel,
                "'{uri}': weight '{}' of shape {:?} has {} bytes, expected {expected}",
                tensor.name,
                tensor.dims,
                bytes.len()
            );
        }
        let element = ElementType::from_onnx(tensor.data_type);
        match element.and_then(|element| WeightData::from_le_bytes(element, bytes.clone())) {
            Some(data) if bytes.len() >= LARGE => {
                weights.push(Weight { name: tensor.name.clone(), shape: tensor.dims.clone(), data, place });
                tensor.raw_data = None;
                tensor.float_data.clear();
                tensor.data_location = Some(DataLocation::External as i32);
                tensor.external_data = in_memory();
            }
            _ => embed(tensor, bytes),
        }
    }
    let mut result = Ok(());
    super::graph::visit_tensors(proto, &mut |tensor| {
        if result.is_ok() && is_external(tensor) && !is_in_memory(tensor) {
            result = file.external(uri, tensor).map(|(bytes, _)| embed(tensor, bytes));
        }
    });
    result.map(|()| weights)
}

/// Elements of a tensor, at most: what is computed with sizes from here on does not overflow.
const MOST_ELEMENTS: i64 = 1 << 40;

/// Refuses tensors of sizes that can't be.
fn check_shapes(uri: &str, proto: &mut ModelProto) -> Result<()> {
    let mut problem = None;
    super::graph::visit_tensors(proto, &mut |tensor| {
        let elements = tensor.dims.iter().try_fold(1_i64, |elements, &dim| {
            // A size of 0 does not make the others harmless.
            elements.checked_mul(dim.max(1)).filter(|elements| dim >= 0 && *elements <= MOST_ELEMENTS)
        });
        if elements.is_none() {
            problem.get_or_insert_with(|| (tensor.name.clone(), tensor.dims.clone()));
        }
    });
    match problem {
        Some((name, dims)) => bail!(
            InvalidModel,
            "'{uri}': tensor '{name}' has shape {dims:?}: expected sizes from 0 on, and at most {MOST_ELEMENTS} elements"
        ),
        None => Ok(()),
    }
}

/// Stands for the file of a weight that was taken out; no file has this name.
const IN_MEMORY: &str = "datafusion-predict/held in memory";

/// As ONNX describes external data: that of a weight that was taken out.
pub(super) fn in_memory() -> Vec<StringStringEntryProto> {
    vec![StringStringEntryProto { key: "location".into(), value: IN_MEMORY.into() }]
}

fn embed(tensor: &mut TensorProto, bytes: Bytes) {
    tensor.raw_data = Some(bytes);
    tensor.external_data.clear();
    tensor.data_location = None;
}

/// Bytes of the tensor's elements by its type and shape, where both are known here.
pub(super) fn expected_size(tensor: &TensorProto) -> Option<usize> {
    let size = ElementType::from_onnx(tensor.data_type)?.size()?;
    tensor.dims.iter().try_fold(size, |bytes, &dim| bytes.checked_mul(usize::try_from(dim).ok()?))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use prost::Message;

    use super::super::Model;
    use super::super::proto::{
        GraphProto, ModelProto, TensorProto, TensorShapeProto, TensorTypeProto, TypeProto, TypeValue, ValueInfoProto,
    };
    use super::*;

    const FLOAT: i32 = 1;

    /// A graph of two large weights and a small one, which gives `y`.
    fn model() -> ModelProto {
        let tensor = |name: &str, count: usize| {
            let values = (0..count).flat_map(|i| (i as f32 + 0.5).to_le_bytes());
            let raw_data = Some(values.collect::<Vec<_>>().into());
            TensorProto {
                name: name.into(),
                dims: vec![count as i64],
                data_type: FLOAT,
                raw_data,
                ..Default::default()
            }
        };
        let value = |name: &str| {
            let shape = TensorShapeProto::default();
            let tensor = TensorTypeProto { elem_type: FLOAT, shape: Some(shape) };
            let value = Some(TypeValue::Tensor(tensor));
            let r#type = Some(TypeProto { value, denotation: String::new() });
            ValueInfoProto { name: name.into(), r#type, ..Default::default() }
        };
        let graph = GraphProto {
            initializer: vec![tensor("a", 5000), tensor("small", 3), tensor("b", 40_000)],
            input: vec![value("x")],
            output: vec![value("y")],
            ..Default::default()
        };
        ModelProto { graph: Some(graph), ..Default::default() }
    }

    #[test]
    fn large_weights_know_their_place_in_the_file_until_it_changes() {
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        file.write_all(&model().encode_to_vec()).expect("room for it");
        let read = Model::read_file("m", file.path()).expect("a model");
        let content = std::fs::read(file.path()).expect("its bytes");
        assert_eq!(read.weights().iter().map(|weight| weight.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        for weight in read.weights() {
            let place = weight.place.as_ref().expect("a place");
            let bytes = &content[place.offset as usize..][..place.length as usize];
            let WeightData::Float32(data) = &weight.data else { panic!("floats") };
            assert_eq!(data.inner().as_slice(), bytes, "{}", weight.name);
        }
        let (onnx, folder) = read.onnx_bytes_with_files(&[]).expect("the file is as it was");
        assert_eq!(Some(folder.as_path()), file.path().parent());
        assert!(onnx.len() < 1000, "the weights are not in it");
        file.write_all(&[0]).expect("room for it");
        assert!(!read.files_are_unchanged());
        assert!(read.onnx_bytes_with_files(&[]).is_none());
    }
}
