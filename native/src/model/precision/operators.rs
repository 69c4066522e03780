//! The operators that take half floats.

use super::Precision;
use crate::model::proto::NodeProto;

/// The inputs of an operator that are of its type of floats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Floats {
    All,
    At(&'static [usize]),
}

/// How a node is converted.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rule {
    /// Whether its floats of 32 bits are rounded for it: it is a product. Others are converted only between half floats.
    pub is_product: bool,
    inputs: Floats,
    /// The outputs that are of its type of floats; others are counts, places and masks.
    outputs: usize,
}

impl Rule {
    /// The inputs of `node` that become half floats, with their places.
    pub(super) fn inputs<'n>(&self, node: &'n NodeProto) -> impl Iterator<Item = (usize, &'n str)> + use<'n> {
        let inputs = self.inputs;
        let is_float = move |place: &usize| match inputs {
            Floats::All => true,
            Floats::At(places) => places.contains(place),
        };
        let named = node.input.iter().map(String::as_str).enumerate();
        named.filter(move |(place, name)| is_float(place) && !name.is_empty())
    }

    /// The outputs of `node` that become half floats.
    pub(super) fn outputs<'n>(&self, node: &'n mut NodeProto) -> impl Iterator<Item = &'n mut String> + use<'n> {
        node.output.iter_mut().take(self.outputs)
    }
}

/// The operator set of ONNX from which on an operator takes bfloat16; half floats were always taken by all of these.
type Since = Option<i64>;

const FIRST: Floats = Floats::At(&[0]);
const BOTH: Floats = Floats::At(&[0, 1]);
const THREE: Floats = Floats::At(&[0, 1, 2]);

/// Operators that compute sums of products, which is where a network spends its time.
const PRODUCTS: &[(&str, Floats, Since)] = &[
    ("MatMul", BOTH, Some(13)),
    ("Gemm", THREE, Some(13)),
    ("Conv", THREE, Some(22)),
    ("ConvTranspose", THREE, Some(22)),
];

/// What moves or combines their results, and has no values that are much larger or smaller than those that it is given. bfloat16 is left
/// to those for which ONNX Runtime's devices have it.
const FOLLOWERS: &[(&str, Floats, Since)] = &[
    ("Abs", FIRST, None),
    ("Add", BOTH, Some(13)),
    ("AveragePool", FIRST, None),
    ("BatchNormalization", Floats::At(&[0, 1, 2, 3, 4]), None),
    ("Clip", THREE, None),
    ("Concat", Floats::All, Some(13)),
    ("DepthToSpace", FIRST, None),
    ("Div", BOTH, Some(13)),
    ("Dropout", FIRST, Some(13)),
    ("Elu", FIRST, None),
    ("Erf", FIRST, Some(13)),
    ("Expand", FIRST, Some(13)),
    ("Flatten", FIRST, Some(13)),
    ("Gather", FIRST, Some(13)),
    ("Gelu", FIRST, None),
    ("GlobalAveragePool", FIRST, None),
    ("GlobalMaxPool", FIRST, None),
    ("HardSigmoid", FIRST, None),
    ("HardSwish", FIRST, None),
    ("Identity", FIRST, Some(13)),
    ("LeakyRelu", FIRST, None),
    ("Max", Floats::All, None),
    ("MaxPool", FIRST, None),
    ("Min", Floats::All, None),
    ("Mul", BOTH, Some(13)),
    ("Neg", FIRST, None),
    ("PRelu", BOTH, None),
    ("Pad", Floats::At(&[0, 2]), None),
    ("Relu", FIRST, Some(13)),
    ("Reshape", FIRST, Some(13)),
    ("Selu", FIRST, None),
    ("Sigmoid", FIRST, Some(13)),
    ("Slice", FIRST, Some(13)),
    ("SpaceToDepth", FIRST, None),
    ("Split", FIRST, Some(13)),
    ("Squeeze", FIRST, Some(13)),
    ("Sub", BOTH, Some(13)),
    ("Tanh", FIRST, Some(13)),
    ("Tile", FIRST, None),
    ("Transpose", FIRST, Some(13)),
    ("Unsqueeze", FIRST, Some(13)),
];

/// Operators that move the values of their first input (`Concat`: of all), and change none.
pub(super) const MOVERS: [&str; 12] = [
    "Cast",
    "Concat",
    "Expand",
    "Flatten",
    "Gather",
    "Identity",
    "Reshape",
    "Slice",
    "Split",
    "Squeeze",
    "Transpose",
    "Unsqueeze",
];

/// How `node` is converted where its inputs allow it.
pub(super) fn rule(node: &NodeProto, opset: i64, precision: Precision) -> Option<Rule> {
    let is_standard = matches!(node.domain.as_str(), "" | "ai.onnx");
    let find = |operators: &[(&str, Floats, Since)]| {
        let (_, inputs, since) = operators.iter().find(|(name, ..)| is_standard && *name == node.op_type)?;
        let is_there = precision == Precision::Fp16 || since.is_some_and(|since| opset >= since);
        is_there.then_some(*inputs)
    };
    let (inputs, is_product) = match find(PRODUCTS) {
        Some(inputs) => (inputs, true),
        None => (find(FOLLOWERS)?, false),
    };
    let outputs = if node.op_type == "Split" { usize::MAX } else { 1 };
    // While it trains, a normalization gives means and variances, too.
    let is_training = node.op_type == "BatchNormalization" && node.output.len() > 1;
    (!is_training).then_some(Rule { is_product, inputs, outputs })
}
