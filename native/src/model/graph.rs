//! Analyses a graph without running it: which rows it may refuse, which classes an output has, how wide its layers are.
//!
//! Most answers come from lists of operators.
//!
//! A new operator belongs into [`TOTAL`] if it has a value for any row of floats.

use super::labels::ClassLabels;
use super::proto::{AttributeProto, GraphProto, ModelProto, NodeProto, SparseTensorProto, TensorProto};
use super::weights::Weight;

/// Visits every tensor of a model: initializers, those of nodes, subgraphs and functions, and the parts of sparse ones.
pub(super) fn visit_tensors(proto: &mut ModelProto, visit: &mut dyn FnMut(&mut TensorProto)) {
    proto.graph.iter_mut().for_each(|graph| visit_graph(graph, visit));
    for function in &mut proto.functions {
        function.node.iter_mut().for_each(|node| visit_attributes(&mut node.attribute, visit));
        visit_attributes(&mut function.attribute_proto, visit);
    }
}

fn visit_graph(graph: &mut GraphProto, visit: &mut dyn FnMut(&mut TensorProto)) {
    graph.initializer.iter_mut().for_each(&mut *visit);
    graph.sparse_initializer.iter_mut().for_each(|sparse| visit_sparse(sparse, visit));
    graph.node.iter_mut().for_each(|node| visit_attributes(&mut node.attribute, visit));
}

fn visit_attributes(attributes: &mut [AttributeProto], visit: &mut dyn FnMut(&mut TensorProto)) {
    for attribute in attributes {
        attribute.t.iter_mut().chain(&mut attribute.tensors).for_each(&mut *visit);
        let sparse = attribute.sparse_tensor.iter_mut().chain(&mut attribute.sparse_tensors);
        sparse.for_each(|sparse| visit_sparse(sparse, visit));
        let graphs = attribute.g.as_deref_mut().into_iter().chain(&mut attribute.graphs);
        graphs.for_each(|graph| visit_graph(graph, visit));
    }
}

fn visit_sparse(sparse: &mut SparseTensorProto, visit: &mut dyn FnMut(&mut TensorProto)) {
    sparse.values.iter_mut().chain(&mut sparse.indices).for_each(visit);
}

/// The node that computes `value`.
fn producer<'a>(graph: &'a GraphProto, value: &str) -> Option<&'a NodeProto> {
    graph.node.iter().find(|node| node.output.iter().any(|output| output == value))
}

/// The labels of the classifier from which `output` comes; through the operators that only rescale its scores.
pub(super) fn class_labels(graph: &GraphProto, output: &str) -> Option<ClassLabels> {
    let mut value = output;
    for _ in 0..graph.node.len() {
        let node = producer(graph, value)?;
        if let Some(labels) = ClassLabels::of_attributes(node) {
            return Some(labels);
        }
        const RESCALING: [&str; 9] =
            ["Identity", "Cast", "Softmax", "Normalizer", "Mul", "Div", "Sigmoid", "Clip", "ArrayFeatureExtractor"];
        if !RESCALING.contains(&node.op_type.as_str()) {
            return None;
        }
        value = node.input.first()?;
    }
    None
}

/// Tells models that were made for missing values from those that were not. A model is one of the first if it has an imputer,
/// asks whether an input `IsNaN`, or has a tree with a branch for NaN.
pub(super) fn handles_missing_values(graph: &GraphProto) -> bool {
    graph.node.iter().any(|node| {
        let tracks = node.attribute("nodes_missing_value_tracks_true");
        let asks = node.op_type == "Imputer" || (node.op_type == "IsNaN" && takes_inputs(graph, node));
        asks || tracks.is_some_and(|tracks| tracks.ints.iter().any(|&track| track != 0))
    })
}

/// True if `node` reads the graph's inputs directly, or after nothing but scaling. A NaN that it finds was then given by the
/// caller, and not computed by the graph.
fn takes_inputs(graph: &GraphProto, node: &NodeProto) -> bool {
    const PASSING_ON: [&str; 18] = [
        "Scaler",
        "Add",
        "Sub",
        "Mul",
        "Div",
        "Identity",
        "Cast",
        "Concat",
        "FeatureVectorizer",
        "Gather",
        "ArrayFeatureExtractor",
        "Reshape",
        "Flatten",
        "Squeeze",
        "Unsqueeze",
        "Slice",
        "Split",
        "Transpose",
    ];
    let mut names: Vec<&str> = node.input.iter().take(1).map(String::as_str).collect();
    for _ in 0..=graph.node.len() {
        let Some(name) = names.pop() else { return false };
        if graph.input.iter().any(|input| input.name == name) {
            return true;
        }
        let maker = producer(graph, name).filter(|maker| PASSING_ON.contains(&maker.op_type.as_str()));
        names.extend(maker.iter().flat_map(|maker| maker.input.iter().map(String::as_str)));
    }
    false
}

pub(super) fn has_trees(graph: &GraphProto) -> bool {
    graph.node.iter().any(|node| node.op_type.starts_with("TreeEnsemble"))
}

/// Rows and columns of the widest weight matrix, summed.
pub(super) fn widest_layer(graph: &GraphProto, weights: &[Weight]) -> Option<usize> {
    // Of a table that rows are looked up in, an embedding, a row takes what it looks up.
    let is_table = |name: &str| {
        let gathers = graph.node.iter().filter(|node| node.op_type == "Gather");
        gathers.map(|node| &node.input).any(|input| input.first().is_some_and(|data| data == name))
    };
    let small = graph.initializer.iter().map(|tensor| (tensor.name.as_str(), tensor.dims.as_slice()));
    let large = weights.iter().map(|weight| (weight.name.as_str(), weight.shape.as_slice()));
    let matrices = small.chain(large).filter_map(|(name, dims)| match dims {
        [_, columns] if is_table(name) => usize::try_from(*columns).ok(),
        [rows, columns] => usize::try_from(rows.checked_add(*columns)?).ok(),
        _ => None,
    });
    matrices.max()
}

/// Operators that give a value for any row of floats: none looks anything up by a value of the row, or parses it.
const TOTAL: &[&str] = &[
    "Abs",
    "Add",
    "And",
    "ArgMax",
    "ArgMin",
    "ArrayFeatureExtractor",
    "BatchNormalization",
    "Binarizer",
    "Cast",
    "Ceil",
    "Clip",
    "Concat",
    "Constant",
    "Div",
    "Dropout",
    "Elu",
    "Equal",
    "Erf",
    "Exp",
    "FeatureVectorizer",
    "Flatten",
    "Floor",
    "Gelu",
    "Gemm",
    "Greater",
    "GreaterOrEqual",
    "HardSigmoid",
    "Identity",
    "Imputer",
    "IsNaN",
    "LayerNormalization",
    "LeakyRelu",
    "Less",
    "LessOrEqual",
    "LinearClassifier",
    "LinearRegressor",
    "Log",
    "LogSoftmax",
    "MatMul",
    "Max",
    "Mean",
    "Min",
    "Mul",
    "Neg",
    "Normalizer",
    "Not",
    "Or",
    "PRelu",
    "Pow",
    "Reciprocal",
    "ReduceMax",
    "ReduceMean",
    "ReduceMin",
    "ReduceProd",
    "ReduceSum",
    "ReduceSumSquare",
    "Relu",
    "Reshape",
    "Round",
    "SVMClassifier",
    "SVMRegressor",
    "Scaler",
    "Selu",
    "Shape",
    "Sigmoid",
    "Sign",
    "Slice",
    "Softmax",
    "Softplus",
    "Softsign",
    "Split",
    "Sqrt",
    "Squeeze",
    "Sub",
    "Sum",
    "Tanh",
    "Transpose",
    "TreeEnsemble",
    "TreeEnsembleClassifier",
    "TreeEnsembleRegressor",
    "Unsqueeze",
    "Where",
    "Xor",
    "ZipMap",
];

/// Those that refuse some integers, such as a division by 0 or a position that is too large.
const PARTIAL_ON_INTEGERS: [&str; 7] =
    ["ArrayFeatureExtractor", "Div", "Pow", "Reciprocal", "Reshape", "Slice", "Split"];

/// True if the graph turns floats into integers or looks values up in a list: such operators may refuse some values.
pub(super) fn looks_up(graph: &GraphProto) -> bool {
    let categories = ["LabelEncoder", "OneHotEncoder", "CategoryMapper", "OneHot", "DictVectorizer"];
    graph.node.iter().any(|node| categories.contains(&node.op_type.as_str()) || makes_integers(node))
}

fn makes_integers(node: &NodeProto) -> bool {
    const FLOATS: [i64; 4] = [1, 10, 11, 16]; // float, float16, double, bfloat16
    node.op_type == "Cast" && node.attribute("to").and_then(|to| to.i).is_none_or(|to| !FLOATS.contains(&to))
}

/// True if no row of floats can make a run fail: each operator has a value for any input, integers among them.
pub(super) fn is_total(graph: &GraphProto) -> bool {
    let gives_integers =
        |node: &NodeProto| makes_integers(node) || ["ArgMax", "ArgMin", "Shape"].contains(&node.op_type.as_str());
    let integers = graph.node.iter().any(gives_integers);
    graph.node.iter().all(|node| {
        let operator = node.op_type.as_str();
        TOTAL.contains(&operator)
            && ["", "ai.onnx", "ai.onnx.ml"].contains(&node.domain.as_str())
            && !(integers && PARTIAL_ON_INTEGERS.contains(&operator))
    })
}
