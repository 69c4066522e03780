//! The attributes of classifiers and regressors, versions 1 to 3 of ai.onnx.ml.

use std::collections::HashMap;

use super::{Aggregate, ColumnNumber, PostTransform, Read};
use crate::builder::Node as GraphNode;
use crate::builder::{Result, Scalar, Value, invalid, unsupported};
use crate::trees::{Branch, Ensemble, Node, Test, Tree};

/// Numbers that stand in a list of floats or in a tensor.
fn numbers<T: ColumnNumber>(node: &GraphNode<'_>, name: &str) -> Result<Vec<T>> {
    let Some(tensor) = node.tensor(&format!("{name}_as_tensor"))? else {
        return Ok(node.floats(name).iter().map(|value| T::of_f32(*value)).collect());
    };
    tensor_numbers(&tensor, name)
}

pub(super) fn tensor_numbers<T: ColumnNumber>(tensor: &Value, name: &str) -> Result<Vec<T>> {
    let number = |scalar: &&Scalar| match scalar {
        Scalar::F32(value) => Ok(T::of_f32(*value)),
        Scalar::F64(value) => Ok(T::of_f64(*value)),
        other => invalid!("{name} holds {other:?}"),
    };
    tensor.scalars().unwrap_or_default().iter().map(number).collect()
}

pub(super) fn check_lengths(lists: &[(&str, usize)]) -> Result<()> {
    let (first, expected) = lists[0];
    match lists.iter().find(|(_, len)| *len != expected) {
        Some((name, len)) => invalid!("{first} has {expected} values, {name} has {len}"),
        None => Ok(()),
    }
}

/// A feature's number, which must be one of the columns.
pub(super) fn column(feature: i64, columns: usize) -> Result<u32> {
    match u32::try_from(feature) {
        Ok(column) if (column as usize) < columns => Ok(column),
        _ => invalid!("feature {feature} of {columns}"),
    }
}

/// A target's number.
pub(super) fn target(target: i64, targets: usize) -> Result<u32> {
    match u32::try_from(target) {
        Ok(target) if (target as usize) < targets => Ok(target),
        _ => invalid!("target {target} of {targets}"),
    }
}

/// More would be columns of their own each.
pub(super) const MOST_TARGETS: usize = 1 << 12;

/// The targets and weights of nodes, in the words of regressors and of classifiers.
struct WeightNames {
    ids: &'static str,
    nodes: &'static str,
    trees: &'static str,
    weights: &'static str,
}

const OF_TARGETS: WeightNames =
    WeightNames { ids: "target_ids", nodes: "target_nodeids", trees: "target_treeids", weights: "target_weights" };
const OF_CLASSES: WeightNames =
    WeightNames { ids: "class_ids", nodes: "class_nodeids", trees: "class_treeids", weights: "class_weights" };

pub(super) fn regressor<T: ColumnNumber>(node: &GraphNode<'_>, columns: usize) -> Result<Read<T>> {
    let targets = match usize::try_from(node.int_or("n_targets", 0)) {
        Ok(targets) if (1..=MOST_TARGETS).contains(&targets) => targets,
        Ok(targets @ 1..) => unsupported!("{targets} targets"),
        _ => invalid!("n_targets is {}", node.int_or("n_targets", 0)),
    };
    let aggregate = match node.text_or("aggregate_function", "SUM").as_str() {
        "AVERAGE" => Aggregate::Average,
        "SUM" => Aggregate::Sum,
        "MIN" => Aggregate::Min,
        "MAX" => Aggregate::Max,
        other => invalid!("aggregate_function is '{other}'"),
    };
    let ensemble = trees::<T>(node, columns, targets, &OF_TARGETS)?;
    let base_values = numbers(node, "base_values")?;
    if !base_values.is_empty() && base_values.len() != targets {
        invalid!("{} base values for {targets} targets", base_values.len());
    }
    Ok(Read { ensemble, base_values, aggregate, transform: PostTransform::of(node)? })
}

/// The ensemble, whether all weights are of one class, and whether none is negative.
pub(super) fn classifier<T: ColumnNumber>(
    node: &GraphNode<'_>,
    columns: usize,
    classes: usize,
) -> Result<(Read<T>, bool, bool)> {
    if !(1..=MOST_TARGETS).contains(&classes) {
        unsupported!("{classes} classes");
    }
    let ensemble = trees::<T>(node, columns, classes, &OF_CLASSES)?;
    let base_values: Vec<T> = numbers(node, "base_values")?;
    if if classes > 2 { ![0, classes].contains(&base_values.len()) } else { base_values.len() > 2 } {
        invalid!("{} base values for {classes} classes", base_values.len());
    }
    let ids = node.ints(OF_CLASSES.ids);
    let only_class = ids.first().is_some_and(|first| ids.iter().all(|id| id == first));
    let weights: Vec<T> = numbers(node, OF_CLASSES.weights)?;
    let all_positive = !weights.iter().any(|weight| *weight < T::ZERO);
    let read = Read { ensemble, base_values, aggregate: Aggregate::Sum, transform: PostTransform::of(node)? };
    Ok((read, only_class, all_positive))
}

fn trees<T: ColumnNumber>(
    node: &GraphNode<'_>,
    columns: usize,
    targets: usize,
    names: &WeightNames,
) -> Result<Ensemble<T>> {
    let tree_ids = node.ints("nodes_treeids");
    let (ids, features) = (node.ints("nodes_nodeids"), node.ints("nodes_featureids"));
    let (passes, fails) = (node.ints("nodes_truenodeids"), node.ints("nodes_falsenodeids"));
    let modes = node.attribute("nodes_modes").map_or(&[][..], |attribute| &attribute.strings);
    let values: Vec<T> = numbers(node, "nodes_values")?;
    let tracks = node.ints("nodes_missing_value_tracks_true");
    check_lengths(&[
        ("nodes_treeids", tree_ids.len()),
        ("nodes_nodeids", ids.len()),
        ("nodes_featureids", features.len()),
        ("nodes_truenodeids", passes.len()),
        ("nodes_falsenodeids", fails.len()),
        ("nodes_modes", modes.len()),
        ("nodes_values", values.len()),
    ])?;
    if tree_ids.is_empty() {
        invalid!("has no nodes");
    }
    if !tracks.is_empty() {
        check_lengths(&[("nodes_treeids", tree_ids.len()), ("nodes_missing_value_tracks_true", tracks.len())])?;
    }

    // The nodes of a tree stand together, its root first; mostly, but not always, in the order of their numbers.
    let mut starts: Vec<usize> = vec![];
    let mut tree_of: HashMap<i64, usize> = HashMap::new();
    for (i, tree) in tree_ids.iter().enumerate() {
        if i == 0 || tree_ids[i - 1] != *tree {
            if tree_of.insert(*tree, starts.len()).is_some() {
                unsupported!("tree {tree} stands in several places");
            }
            starts.push(i);
        }
    }
    let ends = starts.iter().skip(1).copied().chain([tree_ids.len()]);
    let spans: Vec<_> = starts.iter().copied().zip(ends).collect();
    let in_order = |start: usize, end: usize| (start..end).all(|i| ids[i] == ids[start] + (i - start) as i64);
    let places: Vec<Option<HashMap<i64, usize>>> = spans
        .iter()
        .map(|(start, end)| match in_order(*start, *end) {
            true => Ok(None),
            false => {
                let mut places = HashMap::new();
                for (i, id) in ids.iter().enumerate().take(*end).skip(*start) {
                    if places.insert(*id, i).is_some() {
                        invalid!("node {id} of tree {} is there twice", tree_ids[*start]);
                    }
                }
                Ok(Some(places))
            }
        })
        .collect::<Result<_>>()?;
    let find = |tree: usize, id: i64| match &places[tree] {
        Some(places) => places.get(&id).copied(),
        None => {
            let (start, end) = spans[tree];
            let distance = id.checked_sub(ids[start]).and_then(|distance| usize::try_from(distance).ok())?;
            start.checked_add(distance).filter(|i| *i < end)
        }
    };

    // The weights of each node: how many, then where they start, then which.
    let (weight_ids, weight_nodes) = (node.ints(names.ids), node.ints(names.nodes));
    let weight_trees = node.ints(names.trees);
    let weights: Vec<T> = numbers(node, names.weights)?;
    check_lengths(&[
        (names.ids, weight_ids.len()),
        (names.nodes, weight_nodes.len()),
        (names.trees, weight_trees.len()),
        (names.weights, weights.len()),
    ])?;
    let mut weights_at = vec![0u32; tree_ids.len() + 1];
    let mut holders = Vec::with_capacity(weights.len());
    for (tree, id) in weight_trees.iter().zip(weight_nodes) {
        let Some(i) = tree_of.get(tree).and_then(|tree| find(*tree, *id)) else {
            invalid!("a weight of node {id} of tree {tree}, which is not there");
        };
        holders.push(i);
        weights_at[i + 1] += 1;
    }
    for i in 0..tree_ids.len() {
        weights_at[i + 1] += weights_at[i];
    }
    let mut next = weights_at.clone();
    let mut ordered = vec![(0u32, T::ZERO); weights.len()];
    for ((i, id), weight) in holders.into_iter().zip(weight_ids).zip(&weights) {
        ordered[next[i] as usize] = (target(*id, targets)?, *weight);
        next[i] += 1;
    }

    let mut ensemble = Ensemble { trees: Vec::with_capacity(spans.len()), columns, targets };
    for (number, (start, end)) in spans.iter().enumerate() {
        let name = |i: usize| format!("node {} of tree {}", ids[i], tree_ids[i]);
        let mut tree = Tree { nodes: vec![], weights: vec![] };
        let mut seen = vec![false; end - start];
        // Which node of the list each node of the tree is, and its parent in the tree.
        let mut list = vec![(*start, 0u32)];
        let mut at = 0;
        // Looks at ancestors and at members of sets, of which a tree that shares nodes may have too many.
        let mut steps = 0;
        while let Some((i, _)) = list.get(at).copied() {
            let is_leaf = &modes[i][..] == b"LEAF";
            if std::mem::replace(&mut seen[i - start], true) && !is_leaf {
                // Converters share a child among tests for the same feature; of other shared children there are copies.
                let mut ancestor = at;
                while ancestor > 0 {
                    ancestor = list[ancestor].1 as usize;
                    steps += 1;
                    if list[ancestor].0 == i {
                        invalid!("{} is its own ancestor", name(i));
                    }
                }
            }
            if list.len() > 4 * (end - start) || steps > 64 * (end - start) {
                unsupported!("tree {} shares many nodes", tree_ids[i]);
            }
            if is_leaf {
                let own = &ordered[weights_at[i] as usize..weights_at[i + 1] as usize];
                let first = tree.weights.len() as u32;
                match (targets, own) {
                    // With one target, ONNX Runtime reads the first weight only, and takes none for zero.
                    (1, []) => tree.weights.push((0, T::ZERO)),
                    (1, [only, ..]) => tree.weights.push(*only),
                    _ => tree.weights.extend_from_slice(own),
                }
                tree.nodes.push(Node::Leaf(first, tree.weights.len() as u32));
                at += 1;
                continue;
            }
            let child = |id: i64| match find(number, id) {
                Some(child) => Ok(child),
                None => invalid!("{}: its child {id} is not there", name(i)),
            };
            let (pass, mut fail) = (child(passes[i])?, child(fails[i])?);
            let value = values[i];
            let missing_passes = tracks.get(i).is_some_and(|track| *track == 1);
            let test = match &modes[i][..] {
                b"BRANCH_LEQ" => Test::AtMost(value),
                b"BRANCH_LT" => Test::Below(value),
                b"BRANCH_GTE" => Test::AtLeast(value),
                b"BRANCH_GT" => Test::Above(value),
                b"BRANCH_EQ" => {
                    // A chain of tests that lead to one child is a set, as converters write it.
                    let mut members = vec![value];
                    while &modes[fail][..] == b"BRANCH_EQ"
                        && features[fail] == features[i]
                        && tracks.get(fail).is_some_and(|track| *track == 1) == missing_passes
                        && find(number, passes[fail]) == Some(pass)
                        && members.len() <= end - start
                    {
                        members.push(values[fail]);
                        fail = child(fails[fail])?;
                        steps += 1;
                    }
                    if members.len() == 1 { Test::Equals(value) } else { Test::Member(members) }
                }
                b"BRANCH_NEQ" => Test::Differs(value),
                other => invalid!("{}: mode '{}'", name(i), String::from_utf8_lossy(other)),
            };
            let column = match column(features[i], columns) {
                Ok(column) => column,
                Err(_) => invalid!("{}: feature {} of {columns}", name(i), features[i]),
            };
            let pass_at = list.len() as u32;
            list.extend([(pass, at as u32), (fail, at as u32)]);
            tree.nodes.push(Node::Branch(Branch { column, test, missing_passes, pass: pass_at, fail: pass_at + 1 }));
            at += 1;
        }
        ensemble.trees.push(tree);
    }
    Ok(ensemble)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::builder::Refusal;
    use crate::model::proto::{AttributeProto, NodeProto};

    /// Tree, node, feature, mode, pass, fail.
    type Listed<'a> = (i64, i64, i64, &'a str, i64, i64);

    /// A node of the graph that lists these; the leaves weigh 1.
    fn node(nodes: &[Listed<'_>]) -> NodeProto {
        let ints = |name: &str, ints: Vec<i64>| AttributeProto { name: name.into(), ints, ..Default::default() };
        let of = |get: fn(&Listed<'_>) -> i64| nodes.iter().map(get).collect::<Vec<_>>();
        let leaves: Vec<_> = nodes.iter().filter(|node| node.3 == "LEAF").collect();
        let strings = nodes.iter().map(|node| Bytes::copy_from_slice(node.3.as_bytes())).collect();
        let modes = AttributeProto { name: "nodes_modes".into(), strings, ..Default::default() };
        let floats = |name: &str, count: usize| AttributeProto {
            name: name.into(),
            floats: vec![1.0; count],
            ..Default::default()
        };
        let targets = AttributeProto { name: "n_targets".into(), i: Some(1), ..Default::default() };
        NodeProto {
            op_type: "TreeEnsembleRegressor".into(),
            attribute: vec![
                ints("nodes_treeids", of(|node| node.0)),
                ints("nodes_nodeids", of(|node| node.1)),
                ints("nodes_featureids", of(|node| node.2)),
                ints("nodes_truenodeids", of(|node| node.4)),
                ints("nodes_falsenodeids", of(|node| node.5)),
                modes,
                floats("nodes_values", nodes.len()),
                ints("target_ids", vec![0; leaves.len()]),
                ints("target_treeids", leaves.iter().map(|node| node.0).collect()),
                ints("target_nodeids", leaves.iter().map(|node| node.1).collect()),
                floats("target_weights", leaves.len()),
                targets,
            ],
            ..Default::default()
        }
    }

    fn read(proto: &NodeProto) -> Result<Read<f32>> {
        regressor::<f32>(&GraphNode::new(proto, 3, vec![]), 2)
    }

    fn invalid(nodes: &[Listed<'_>], expected: &str) {
        match read(&node(nodes)) {
            Err(Refusal::Invalid(reason)) => assert_eq!(reason, expected),
            other => panic!("{:?}, expected {expected}", other.map(|read| read.ensemble)),
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_name() {
        let leaf = |node| (4, node, 0, "LEAF", 0, 0);
        invalid(&[(4, 0, 0, "BRANCH_LEQ", 1, 0), leaf(1)], "node 0 of tree 4 is its own ancestor");
        invalid(
            &[(4, 0, 0, "BRANCH_LT", 1, 2), (4, 1, 0, "BRANCH_LT", 2, 0), leaf(2)],
            "node 0 of tree 4 is its own ancestor",
        );
        invalid(&[(4, 0, 0, "BRANCH_LEQ", 1, 9), leaf(1)], "node 0 of tree 4: its child 9 is not there");
        invalid(&[(4, 0, 0, "BRANCH_LEQ", 1, -1), leaf(1)], "node 0 of tree 4: its child -1 is not there");
        invalid(&[(4, 0, 2, "BRANCH_LEQ", 1, 2), leaf(1), leaf(2)], "node 0 of tree 4: feature 2 of 2");
        invalid(&[(4, 0, -1, "BRANCH_LEQ", 1, 2), leaf(1), leaf(2)], "node 0 of tree 4: feature -1 of 2");
        invalid(&[(4, 0, 0, "BRANCH", 1, 2), leaf(1), leaf(2)], "node 0 of tree 4: mode 'BRANCH'");
        invalid(&[(4, 1, 0, "LEAF", 0, 0), (4, 1, 0, "LEAF", 0, 0)], "node 1 of tree 4 is there twice");
        invalid(&[], "has no nodes");
    }

    #[test]
    fn attributes_of_different_lengths_are_refused_by_name() {
        let good = node(&[(0, 0, 0, "BRANCH_LEQ", 1, 2), (0, 1, 0, "LEAF", 0, 0), (0, 2, 0, "LEAF", 0, 0)]);
        assert!(read(&good).is_ok());
        for position in 0..good.attribute.len() - 1 {
            let mut bad = good.clone();
            let attribute = &mut bad.attribute[position];
            attribute.ints.pop();
            attribute.floats.pop();
            attribute.strings.pop();
            let name = attribute.name.clone();
            match read(&bad) {
                Err(Refusal::Invalid(reason)) if position == 0 => assert!(reason.contains("nodes_treeids has 2")),
                Err(Refusal::Invalid(reason)) if name == "target_ids" => assert!(reason.contains("target_ids has 1")),
                Err(Refusal::Invalid(reason)) => assert!(reason.contains(&name), "{reason}"),
                other => panic!("{name}: {:?}", other.map(|read| read.ensemble)),
            }
        }
    }

    #[test]
    fn a_million_nodes_and_deep_trees_are_read() {
        // A chain: each branch leads to a leaf and to the next branch.
        let chain = 500_000;
        let branch = |i: i64| (0, 2 * i, 0, "BRANCH_LEQ", 2 * i + 1, 2 * i + 2);
        let nodes: Vec<_> = (0..chain).flat_map(|i| [branch(i), (0, 2 * i + 1, 0, "LEAF", 0, 0)]).collect();
        let nodes = [nodes, vec![(0, 2 * chain, 0, "LEAF", 0, 0)]].concat();
        let read = read(&node(&nodes)).unwrap_or_else(|refusal| panic!("{refusal:?}"));
        assert_eq!(read.ensemble.trees[0].nodes.len(), 1_000_001);
        assert!(crate::trees::CompiledEnsemble::compile(&read.ensemble, crate::trees::Combine::Sum).is_ok());
    }
}
