//! Which values of a graph are floats of 32 bits.

use std::collections::HashMap;

use crate::model::proto::{GraphProto, NodeProto, TypeValue, ValueInfoProto};

/// Their number among ONNX's types.
pub(super) const FLOAT: i32 = 1;
const INT64: i32 = 7;
const BOOL: i32 = 9;

/// The types of tensors, by their names, as far as they are known: as numbers of ONNX.
pub(super) struct Types(HashMap<String, i32>);

/// Operators whose outputs are of the type of their first input.
const SAME_AS_FIRST: &[&str] = &[
    "Abs",
    "Add",
    "AveragePool",
    "BatchNormalization",
    "Ceil",
    "Clip",
    "Concat",
    "Conv",
    "ConvTranspose",
    "CumSum",
    "DepthToSpace",
    "Div",
    "Dropout",
    "Einsum",
    "Elu",
    "Erf",
    "Exp",
    "Expand",
    "Flatten",
    "Floor",
    "Gather",
    "GatherElements",
    "GatherND",
    "Gelu",
    "Gemm",
    "GlobalAveragePool",
    "GlobalMaxPool",
    "GroupNormalization",
    "HardSigmoid",
    "HardSwish",
    "Identity",
    "InstanceNormalization",
    "LayerNormalization",
    "LeakyRelu",
    "Log",
    "LogSoftmax",
    "LpNormalization",
    "MatMul",
    "Max",
    "MaxPool",
    "Mean",
    "Min",
    "Mish",
    "Mul",
    "Neg",
    "PRelu",
    "Pad",
    "Pow",
    "RMSNormalization",
    "Reciprocal",
    "ReduceL1",
    "ReduceL2",
    "ReduceMax",
    "ReduceMean",
    "ReduceMin",
    "ReduceProd",
    "ReduceSum",
    "ReduceSumSquare",
    "Relu",
    "Reshape",
    "Resize",
    "Round",
    "Selu",
    "Sigmoid",
    "Slice",
    "Softmax",
    "Softplus",
    "Softsign",
    "SpaceToDepth",
    "Split",
    "Sqrt",
    "Squeeze",
    "Sub",
    "Sum",
    "Tanh",
    "Tile",
    "Transpose",
    "Unsqueeze",
];

impl Types {
    /// As the graph declares them.
    pub(super) fn declared(graph: &GraphProto) -> Self {
        let values = graph.input.iter().chain(&graph.output).chain(&graph.value_info);
        let tensor = |value: &ValueInfoProto| match value.r#type.as_ref()?.value.as_ref()? {
            TypeValue::Tensor(tensor) => Some((value.name.clone(), tensor.elem_type)),
            _ => None,
        };
        let initializers = graph.initializer.iter().map(|tensor| (tensor.name.clone(), tensor.data_type));
        Self(values.filter_map(tensor).chain(initializers).collect())
    }

    /// Adds those of what `node` gives, after those before it.
    pub(super) fn learn(&mut self, node: &NodeProto) {
        let Some(found) = self.of_outputs(node) else { return };
        // The second outputs of others are places or masks.
        let outputs = if node.op_type == "Split" { node.output.len() } else { 1 };
        self.0.extend(node.output.iter().take(outputs).map(|output| (output.clone(), found)));
    }

    fn of_outputs(&self, node: &NodeProto) -> Option<i32> {
        if !matches!(node.domain.as_str(), "" | "ai.onnx") {
            return None;
        }
        let input = |place: usize| self.0.get(node.input.get(place)?).copied();
        let tensor = |name: &str| Some(node.attribute(name)?.t.as_ref()?.data_type);
        match node.op_type.as_str() {
            "Cast" => node.attribute("to")?.i.and_then(|to| to.try_into().ok()),
            "CastLike" => input(1),
            "Constant" => tensor("value").or_else(|| node.attribute("value_float").map(|_| FLOAT)),
            "ConstantOfShape" => Some(tensor("value").unwrap_or(FLOAT)),
            "Shape" | "Size" | "NonZero" | "ArgMax" | "ArgMin" => Some(INT64),
            "Equal" | "Greater" | "GreaterOrEqual" | "Less" | "LessOrEqual" | "And" | "Or" | "Xor" | "Not"
            | "IsNaN" | "IsInf" => Some(BOOL),
            "Where" => input(1),
            "OneHot" => input(2),
            "Range" => input(0),
            other => SAME_AS_FIRST.contains(&other).then(|| input(0))?,
        }
    }

    pub(super) fn is_float(&self, name: &str) -> bool {
        self.0.get(name) == Some(&FLOAT)
    }
}
