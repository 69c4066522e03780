//! A model's inputs and outputs.

use std::fmt;

use super::proto::{DimensionValue, GraphProto, TypeProto, TypeValue, ValueInfoProto};
use crate::error::{Result, bail, error};
use crate::tensor::ElementType;

/// One dimension of a tensor.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Dimension {
    /// Always this size.
    Fixed(usize),
    /// Known when the model runs; named if the model names it.
    Dynamic(Option<String>),
}

impl Dimension {
    /// The size, if it is always the same.
    pub fn size(&self) -> Option<usize> {
        match self {
            Self::Fixed(size) => Some(*size),
            Self::Dynamic(_) => None,
        }
    }
}

impl fmt::Display for Dimension {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(size) => write!(f, "{size}"),
            // A name that reads like something else is none: types are read back from such texts.
            Self::Dynamic(Some(name))
                if name.contains([',', '[', ']', '?']) || name.trim().parse::<usize>().is_ok() =>
            {
                f.write_str("?")
            }
            Self::Dynamic(Some(name)) => f.write_str(name),
            Self::Dynamic(None) => f.write_str("?"),
        }
    }
}

/// Name, element type and shape of an input or output. The first dimension is mostly that of the rows.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TensorSpec {
    /// The name in the graph.
    pub name: String,
    /// Type of the elements.
    pub element: ElementType,
    /// Dimensions, rows first.
    pub shape: Vec<Dimension>,
}

impl TensorSpec {
    /// The dimensions of one row.
    pub fn row_shape(&self) -> &[Dimension] {
        self.shape.get(1..).unwrap_or_default()
    }

    /// Elements of one row, if that is always the same.
    pub fn row_elements(&self) -> Option<usize> {
        self.row_shape().iter().try_fold(1usize, |n, dim| n.checked_mul(dim.size()?))
    }
}

impl TensorSpec {
    /// Element type and shape: `float[N,4]`.
    pub fn type_line(&self) -> String {
        let shape: Vec<_> = self.shape.iter().map(Dimension::to_string).collect();
        format!("{}[{}]", self.element, shape.join(","))
    }

    /// Element type and shape of one row: `float`, `float[4]`.
    pub fn row_type_line(&self) -> String {
        let shape: Vec<_> = self.row_shape().iter().map(Dimension::to_string).collect();
        // One value for each row is a scalar, however it is written.
        if shape.iter().all(|size| size == "1") {
            self.element.to_string()
        } else {
            format!("{}[{}]", self.element, shape.join(","))
        }
    }
}

impl fmt::Display for TensorSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name, self.type_line())
    }
}

/// The inputs that a model needs and the outputs that it gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    /// Inputs, without those that have a default: see [`Model::optional_inputs`](super::Model::optional_inputs).
    pub inputs: Vec<TensorSpec>,
    /// Outputs.
    pub outputs: Vec<TensorSpec>,
}

impl Signature {
    /// What `graph` declares, and the outputs that are no tensors of an Arrow type, each with the reason: a model may be called
    /// for the others.
    pub(super) fn declared(uri: &str, graph: &GraphProto) -> Result<(Self, Vec<RefusedOutput>)> {
        let has_default = |name: &str| graph.initializer.iter().any(|tensor| tensor.name == name);
        let inputs = graph.input.iter().filter(|input| !has_default(&input.name));
        let inputs = inputs.map(|input| with_shape(uri, input)).collect::<Result<Vec<_>>>()?;
        let (mut outputs, mut refused) = (vec![], vec![]);
        for output in &graph.output {
            match spec(uri, "output", output) {
                Ok(spec) => outputs.push(spec),
                Err(reason) => refused.push(RefusedOutput { name: output.name.clone(), reason: reason.to_string() }),
            }
        }
        if outputs.is_empty()
            && let Some(first) = refused.first()
        {
            bail!(InvalidModel, "{}", first.reason);
        }
        if inputs.is_empty() {
            bail!(InvalidModel, "'{uri}' has no input");
        }
        for input in &inputs {
            let mut fixed = input.shape.iter().map(|dim| dim.size().unwrap_or(1));
            let elements = fixed.try_fold(1usize, |n, size| n.checked_mul(size));
            if elements.is_none_or(|elements| elements > LARGEST_TENSOR) {
                bail!(
                    InvalidModel,
                    "'{uri}': input {input} is too large: at most {LARGEST_TENSOR} elements are supported"
                );
            }
        }
        for (i, output) in outputs.iter().enumerate() {
            if outputs[..i].iter().any(|before| before.name == output.name) {
                bail!(InvalidModel, "'{uri}': two outputs have the name '{}'", output.name);
            }
        }
        Ok((Self { inputs, outputs }, refused))
    }
}

/// The inputs of `graph` that may be left out, since they have a default: an initializer of the same name.
pub(super) fn optional_inputs(uri: &str, graph: &GraphProto) -> Vec<TensorSpec> {
    let has_default = |name: &str| graph.initializer.iter().any(|tensor| tensor.name == name);
    let inputs = graph.input.iter().filter(|input| has_default(&input.name));
    inputs.filter_map(|input| with_shape(uri, input).ok()).collect()
}

/// The spec of an input. Without a shape it could be anything.
fn with_shape(uri: &str, input: &ValueInfoProto) -> Result<TensorSpec> {
    let declared = spec(uri, "input", input)?;
    match &input.r#type {
        Some(TypeProto { value: Some(TypeValue::Tensor(tensor)), .. }) if tensor.shape.is_none() => {
            bail!(InvalidModel, "'{uri}': input '{}' has no shape, so where its rows are is not known", declared.name)
        }
        _ => Ok(declared),
    }
}

/// An output that is a sequence of tensors, which the graph gives one by one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SequenceOutput {
    /// Its name in the graph.
    pub name: String,
    /// The outputs that it is made of, in order.
    pub parts: Vec<String>,
    /// Those of them that the file does not declare as outputs of their own.
    pub hidden: Vec<String>,
}

/// An output that can't become a column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedOutput {
    /// Its name in the graph.
    pub name: String,
    /// Why it can't.
    pub reason: String,
}

/// Elements of an input whose sizes are all fixed: 1 GiB of float32.
const LARGEST_TENSOR: usize = 1 << 28;

/// The name of an element type that has no Arrow counterpart.
fn foreign_element(number: i32) -> String {
    let name = match number {
        14 => "complex64",
        15 => "complex128",
        17..=20 | 24 => "float8",
        21 => "uint4",
        22 => "int4",
        23 => "float4",
        _ => return format!("number {number}"),
    };
    name.to_owned()
}

fn spec(uri: &str, role: &str, info: &ValueInfoProto) -> Result<TensorSpec> {
    let name = &info.name;
    let tensor = match &info.r#type {
        Some(TypeProto { value: Some(TypeValue::Tensor(tensor)), .. }) => tensor,
        Some(TypeProto { value: Some(other), .. }) => {
            let kind = match other {
                TypeValue::Sequence(_) => "a sequence",
                TypeValue::Map(_) => "a map",
                TypeValue::SparseTensor(_) => "a sparse tensor",
                _ => "optional",
            };
            bail!(InvalidModel, "'{uri}': {role} '{name}' is {kind}: expected a tensor")
        }
        _ => bail!(InvalidModel, "'{uri}': {role} '{name}' has no type"),
    };
    let element = ElementType::from_onnx(tensor.elem_type).ok_or_else(|| {
        let element = foreign_element(tensor.elem_type);
        error!(InvalidModel, "'{uri}': {role} '{name}' has element type {element}, which has no Arrow type")
    })?;
    let dims = tensor.shape.iter().flat_map(|shape| &shape.dim);
    let shape = dims.map(|dim| match &dim.value {
        Some(DimensionValue::Value(size)) if *size > 0 => {
            usize::try_from(*size).map_or(Dimension::Dynamic(None), Dimension::Fixed)
        }
        Some(DimensionValue::Param(param)) if !param.is_empty() => Dimension::Dynamic(Some(param.clone())),
        _ => Dimension::Dynamic(None),
    });
    Ok(TensorSpec { name: name.clone(), element, shape: shape.collect() })
}
