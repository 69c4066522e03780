//! The attributes of `TreeEnsemble`, version 5 of ai.onnx.ml, where leaves stand in lists of their own.

use super::read::{MOST_TARGETS, check_lengths, column, target, tensor_numbers};
use super::{Aggregate, ColumnNumber, PostTransform, Read};
use crate::builder::Node as GraphNode;
use crate::builder::{Result, invalid, unsupported};
use crate::trees::{Branch, Ensemble, Node, Test, Tree};

pub(super) fn ensemble<T: ColumnNumber>(node: &GraphNode<'_>, columns: usize) -> Result<Read<T>> {
    let targets = match usize::try_from(node.int_or("n_targets", 0)) {
        Ok(targets) if (1..=MOST_TARGETS).contains(&targets) => targets,
        Ok(targets @ 1..) => unsupported!("{targets} targets"),
        _ => invalid!("n_targets is {}", node.int_or("n_targets", 0)),
    };
    let list = |name: &str| match node.tensor(name)? {
        Some(tensor) => tensor_numbers::<T>(&tensor, name),
        None => Ok(vec![]),
    };
    let features = node.ints("nodes_featureids");
    let splits = list("nodes_splits")?;
    let modes = match node.tensor("nodes_modes")? {
        Some(tensor) => tensor.integers()?,
        None => vec![],
    };
    let (passes, fails) = (node.ints("nodes_truenodeids"), node.ints("nodes_falsenodeids"));
    let (pass_leaves, fail_leaves) = (node.ints("nodes_trueleafs"), node.ints("nodes_falseleafs"));
    let tracks = node.ints("nodes_missing_value_tracks_true");
    check_lengths(&[
        ("nodes_featureids", features.len()),
        ("nodes_splits", splits.len()),
        ("nodes_modes", modes.len()),
        ("nodes_truenodeids", passes.len()),
        ("nodes_falsenodeids", fails.len()),
        ("nodes_trueleafs", pass_leaves.len()),
        ("nodes_falseleafs", fail_leaves.len()),
    ])?;
    if !tracks.is_empty() {
        check_lengths(&[("nodes_featureids", features.len()), ("nodes_missing_value_tracks_true", tracks.len())])?;
    }
    let leaf_targets = node.ints("leaf_targetids");
    let leaf_weights = list("leaf_weights")?;
    check_lengths(&[("leaf_targetids", leaf_targets.len()), ("leaf_weights", leaf_weights.len())])?;

    // The sets of the membership tests, in the nodes' order, each ended by NaN.
    let members = list("membership_values")?;
    let mut sets = members.split(|value| value.is_nan());
    let tests = modes.iter().zip(&splits).map(|(mode, split)| {
        Ok(match mode {
            0 => Test::AtMost(*split),
            1 => Test::Below(*split),
            2 => Test::AtLeast(*split),
            3 => Test::Above(*split),
            4 => Test::Equals(*split),
            5 => Test::Differs(*split),
            6 => Test::Member(sets.next().unwrap_or(&[]).to_vec()),
            other => invalid!("mode {other}"),
        })
    });
    let tests = tests.collect::<Result<Vec<_>>>()?;

    let mut ensemble = Ensemble { trees: vec![], columns, targets };
    let mut seen = vec![false; features.len()];
    for root in node.ints("tree_roots") {
        let Some(root) = usize::try_from(*root).ok().filter(|root| *root < features.len()) else {
            invalid!("root {root} of {} nodes", features.len());
        };
        let mut tree = Tree { nodes: vec![], weights: vec![] };
        // A tree of one leaf is a node whose children are that leaf.
        let single = passes[root] == fails[root] && pass_leaves[root] != 0 && fail_leaves[root] != 0;
        let mut list = vec![if single { (passes[root], true) } else { (root as i64, false) }];
        let mut at = 0;
        while let Some((id, is_leaf)) = list.get(at).copied() {
            at += 1;
            if is_leaf {
                let Some(leaf) = usize::try_from(id).ok().filter(|leaf| *leaf < leaf_weights.len()) else {
                    invalid!("leaf {id} of {}", leaf_weights.len());
                };
                let first = tree.weights.len() as u32;
                tree.weights.push((target(leaf_targets[leaf], targets)?, leaf_weights[leaf]));
                tree.nodes.push(Node::Leaf(first, first + 1));
                continue;
            }
            let Some(i) = usize::try_from(id).ok().filter(|i| *i < features.len()) else {
                invalid!("node {id} of {}", features.len());
            };
            if std::mem::replace(&mut seen[i], true) {
                unsupported!("node {i} has two parents, or is its own ancestor");
            }
            let pass = list.len() as u32;
            list.push((passes[i], pass_leaves[i] != 0));
            list.push((fails[i], fail_leaves[i] != 0));
            let column = match column(features[i], columns) {
                Ok(column) => column,
                Err(_) => invalid!("node {i}: feature {} of {columns}", features[i]),
            };
            let missing_passes = tracks.get(i).is_some_and(|track| *track == 1);
            tree.nodes.push(Node::Branch(Branch {
                column,
                test: tests[i].clone(),
                missing_passes,
                pass,
                fail: pass + 1,
            }));
        }
        ensemble.trees.push(tree);
    }
    if ensemble.trees.is_empty() {
        invalid!("has no trees");
    }
    let aggregate = match node.int_or("aggregate_function", 1) {
        0 => Aggregate::Average,
        1 => Aggregate::Sum,
        2 => Aggregate::Min,
        3 => Aggregate::Max,
        other => invalid!("aggregate_function is {other}"),
    };
    // In the order of ONNX Runtime, which differs from the specification's for 1 and 2.
    let transform = match node.int_or("post_transform", 0) {
        0 => PostTransform::None,
        1 => PostTransform::Logistic,
        2 => PostTransform::Softmax,
        3 => PostTransform::SoftmaxZero,
        4 => PostTransform::Probit,
        other => invalid!("post_transform is {other}"),
    };
    Ok(Read { ensemble, base_values: vec![], aggregate, transform })
}
