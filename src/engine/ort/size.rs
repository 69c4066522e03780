//! How much memory a session takes: ONNX Runtime does not tell.

use datafusion_predict_native::Model;
use datafusion_predict_native::model::proto::{DataLocation, GraphProto, NodeProto};

/// What any session takes, in bytes.
const SESSION: usize = 150 << 10;

/// Bytes of one session of `model`, beside the weights that all its sessions share; `prepacks` says whether it keeps copies
/// of those.
///
/// Measured as resident size on ONNX Runtime 1.32, x86-64, after the allocator was trimmed: for 38 ensembles from a thousand
/// to a million nodes the formula is within -4 and +15 %, for dense networks within 2 %. The memory of runs is not in it: it
/// comes from the arena that all sessions share.
pub(super) fn of_session(model: &Model, prepacks: bool) -> usize {
    let Some(graph) = model.graph() else { return SESSION };
    let trees: usize = graph.node.iter().filter(|node| node.op_type.starts_with("TreeEnsemble")).map(of_trees).sum();
    let shared: usize = model.weights().iter().map(|weight| weight.data.size()).sum();
    SESSION + trees + of_initializers(graph) + if prepacks { shared } else { 0 }
}

/// Of an ensemble with n nodes and w weights at the leaves: its nodes, and two tables of them that grow by doubling.
fn of_trees(node: &NodeProto) -> usize {
    let length = |names: &[&str]| {
        let found = node.attribute.iter().filter(|attribute| names.contains(&attribute.name.as_str()));
        found.map(|attribute| attribute.ints.len()).max().unwrap_or(0)
    };
    let n = length(&["nodes_treeids", "nodes_featureids"]);
    let w = length(&["target_ids", "class_ids", "leaf_targetids"]);
    70 * n + 20 * w + 70 * n.next_power_of_two() + 30 * (w + 1).next_power_of_two() + (70 << 10)
}

/// Of the small weights, which each session has for its own.
fn of_initializers(graph: &GraphProto) -> usize {
    let bytes = |dims: &[i64]| dims.iter().map(|dim| usize::try_from(*dim).unwrap_or(0)).product::<usize>() * 4;
    graph
        .initializer
        .iter()
        .filter(|tensor| tensor.data_location != Some(DataLocation::External as i32))
        .map(|tensor| bytes(&tensor.dims))
        .sum()
}
