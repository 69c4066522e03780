//! From a graph to a program.
//!
//! Each node that an output needs is lowered in turn, by the function that [`operators`](crate::operators) has for its
//! operator. What only moves elements (Concat, Reshape, Gather …) renames columns and costs nothing; the rest becomes steps
//! over columns, which the [`builder`](crate::builder) collects.

use std::collections::{HashMap, HashSet};

use crate::builder::{self, Node, ProgramBuilder, Refusal, Result, Value, unsupported};
use crate::model::proto::{GraphProto, NodeProto};
use crate::model::{TensorSpec, Weight};
use crate::operators;
use crate::program::Program;

/// Items of all values together, at most.
const MOST_ITEMS: usize = 1 << 23;

/// A graph, and what is known and wanted of it.
pub(crate) struct Graph<'a> {
    pub proto: &'a GraphProto,
    pub weights: &'a [Weight],
    /// The version of each operator set, by its domain.
    pub opsets: HashMap<&'a str, i64>,
    /// The model's inputs, with the sizes that are known.
    pub inputs: &'a [TensorSpec],
    /// The outputs that are asked for.
    pub outputs: &'a [String],
    /// If true, the graph is compiled even where another engine would be faster.
    pub forced: bool,
}

/// Compiles the graph.
pub(crate) fn compile(graph: &Graph<'_>) -> Result<Program> {
    let needed = needed_nodes(graph);
    // Before anything is made of the weights: is there an operator for each node?
    for (position, proto) in graph.proto.node.iter().enumerate().filter(|(position, _)| needed.contains(position)) {
        if lowering(proto).is_none() {
            unsupported!("{}: an operator that is not compiled", label(position, proto));
        }
    }
    let mut builder = ProgramBuilder::new(graph.forced);
    let mut values = constants(graph)?;
    for (number, input) in graph.inputs.iter().enumerate() {
        let value = builder.input(number, input)?;
        values.insert(&input.name, value);
    }
    let mut budget = MOST_ITEMS;
    for (position, proto) in graph.proto.node.iter().enumerate() {
        if !needed.contains(&position) {
            continue;
        }
        let mut lower = || {
            let Some(lower) = lowering(proto) else { unsupported!("an operator that is not compiled") };
            let inputs = proto.input.iter().map(|name| match (name.as_str(), values.get(name.as_str())) {
                ("", _) => Ok(None),
                (_, Some(value)) => Ok(Some(value.clone())),
                (_, None) => unsupported!("reads '{name}', which no node before it gives"),
            });
            let inputs = inputs.collect::<Result<_>>()?;
            let opset = graph.opsets.get(domain(proto)).copied().unwrap_or(1);
            lower(&mut builder, &Node::new(proto, opset, inputs))
        };
        let outputs = lower().map_err(|refusal| {
            let label = label(position, proto);
            match refusal {
                // What makes no sense here may make sense to another engine; but no one is to run trees with cycles.
                Refusal::Invalid(reason) if proto.op_type.starts_with("TreeEnsemble") => {
                    Refusal::Invalid(format!("{label}: {reason}"))
                }
                Refusal::Unsupported(reason) | Refusal::Invalid(reason) => {
                    Refusal::Unsupported(format!("{label}: {reason}"))
                }
            }
        })?;
        for value in &outputs {
            budget = match budget.checked_sub(value.items.len()) {
                Some(budget) => budget,
                None => unsupported!("{}: values of more than {MOST_ITEMS} items", label(position, proto)),
            };
        }
        for (name, value) in proto.output.iter().zip(outputs) {
            values.insert(name, value);
        }
    }
    let outputs = graph.outputs.iter().map(|name| match values.get(name.as_str()) {
        Some(value) => Ok(value.clone()),
        None => unsupported!("no node gives output '{name}'"),
    });
    let outputs = outputs.collect::<Result<_>>()?;
    builder.finish(outputs)
}

fn domain(node: &NodeProto) -> &str {
    if node.domain == "ai.onnx" { "" } else { &node.domain }
}

fn lowering(node: &NodeProto) -> Option<operators::Lowering> {
    operators::lowering(domain(node), &node.op_type)
}

/// How errors name a node.
fn label(position: usize, node: &NodeProto) -> String {
    match node.name.as_str() {
        "" => format!("node {} ({})", position + 1, node.op_type),
        name => format!("node '{name}' ({})", node.op_type),
    }
}

fn constants<'a>(graph: &Graph<'a>) -> Result<HashMap<&'a str, Value>> {
    let used: HashSet<&str> = graph.proto.node.iter().flat_map(|node| &node.input).map(String::as_str).collect();
    let mut values = HashMap::new();
    for weight in graph.weights.iter().filter(|weight| used.contains(weight.name.as_str())) {
        values.insert(weight.name.as_str(), builder::weight(weight)?);
    }
    if !graph.proto.sparse_initializer.is_empty() {
        unsupported!("a sparse initializer");
    }
    for tensor in graph.proto.initializer.iter().filter(|tensor| used.contains(tensor.name.as_str())) {
        if !values.contains_key(tensor.name.as_str()) {
            values.insert(&tensor.name, builder::constant(tensor)?);
        }
    }
    Ok(values)
}

/// The positions of the nodes from which the outputs come.
fn needed_nodes(graph: &Graph<'_>) -> HashSet<usize> {
    let nodes = &graph.proto.node;
    let outputs = nodes.iter().enumerate().flat_map(|(i, node)| node.output.iter().map(move |name| (name.as_str(), i)));
    let producers: HashMap<&str, usize> = outputs.collect();
    let mut needed = HashSet::new();
    let mut wanted: Vec<&str> = graph.outputs.iter().map(String::as_str).collect();
    while let Some(name) = wanted.pop() {
        if let Some(node) = producers.get(name)
            && needed.insert(*node)
        {
            wanted.extend(nodes[*node].input.iter().map(String::as_str));
        }
    }
    needed
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Dimension;
    use crate::model::proto::{AttributeProto, TensorProto};
    use crate::tensor::ElementType;

    fn node(operator: &str, inputs: &[&str], output: &str, attribute: Vec<AttributeProto>) -> NodeProto {
        NodeProto {
            op_type: operator.into(),
            input: inputs.iter().map(|name| (*name).to_owned()).collect(),
            output: vec![output.to_owned()],
            attribute,
            ..Default::default()
        }
    }

    fn int(name: &str, value: i64) -> AttributeProto {
        AttributeProto { name: name.into(), i: Some(value), ..Default::default() }
    }

    fn ints(name: &str, values: &[i64]) -> TensorProto {
        let dims = vec![values.len() as i64];
        TensorProto { name: name.into(), dims, data_type: 7, int64_data: values.to_vec(), ..Default::default() }
    }

    /// Compiles a graph over the input `x [N,2]` that gives `y`.
    fn compiled(node: Vec<NodeProto>, initializer: Vec<TensorProto>) -> Result<Program> {
        let shape = vec![Dimension::Dynamic(None), Dimension::Fixed(2)];
        let inputs = [TensorSpec { name: "x".into(), element: ElementType::Float32, shape }];
        compile(&Graph {
            proto: &GraphProto { node, initializer, ..Default::default() },
            weights: &[],
            opsets: [("", 13)].into(),
            inputs: &inputs,
            outputs: &["y".to_owned()],
            forced: true,
        })
    }

    #[test]
    fn small_files_that_would_grow_are_refused() {
        // Doubled 40 times.
        let double = |i: usize| {
            let (from, to) = (format!("c{i}"), format!("c{}", i + 1));
            node("Concat", &[from.as_str(), from.as_str()], &to, vec![int("axis", 1)])
        };
        let mut doubled = vec![node("Identity", &["x"], "c0", vec![])];
        doubled.extend((0..40).map(double));
        doubled.push(node("ReduceSum", &["c40"], "y", vec![]));
        // No element, but a large dimension beside the one that is zero.
        let empty = vec![
            node("ConstantOfShape", &["large"], "c", vec![]),
            node("ReduceSum", &["c", "axis"], "sums", vec![]),
            node("Add", &["x", "sums"], "y", vec![]),
        ];
        // A column beside a row.
        let spread = vec![
            node("ConstantOfShape", &["tall"], "a", vec![]),
            node("ConstantOfShape", &["broad"], "b", vec![]),
            node("Add", &["a", "b"], "c", vec![]),
            node("Add", &["x", "c"], "y", vec![]),
        ];
        let constants = vec![
            ints("large", &[0, 1 << 40]),
            ints("axis", &[0]),
            ints("tall", &[1 << 19, 1]),
            ints("broad", &[1, 1 << 19]),
        ];
        for graph in [doubled, empty, spread] {
            match compiled(graph, constants.clone()) {
                Err(Refusal::Unsupported(reason)) => assert!(reason.contains("large"), "{reason}"),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn nodes_that_no_output_needs_are_left_out() {
        let graph = vec![node("Conv", &["x"], "unused", vec![]), node("Neg", &["x"], "y", vec![])];
        let program = compiled(graph, vec![]).unwrap_or_else(|refusal| panic!("{refusal:?}"));
        assert_eq!(program.steps.len(), 1);
        match compiled(vec![node("Neg", &["later"], "y", vec![])], vec![]) {
            Err(Refusal::Unsupported(reason)) => {
                assert_eq!(reason, "node 1 (Neg): reads 'later', which no node before it gives");
            }
            other => panic!("{other:?}"),
        }
    }
}
