//! From a graph to a program.
//!
//! Each node is lowered in turn: what only moves elements (Concat, Reshape, Gather …) renames columns and costs nothing;
//! the rest becomes steps over columns. What no output needs is left out, and columns share memory.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::node::{self, Node};
use super::operators;
use super::program::{
    self, Buffer, Constant, InputColumn, Kernel, Kind, Location, Output, Program, Register, Step, TextTable, Texts,
};
use super::trees::TreeScratch;
use super::value::{Operand, Refusal, Result, Scalar, Value, kind_of, unsupported};
use crate::model::proto::{GraphProto, NodeProto};
use crate::model::{Dimension, TensorSpec, Weight};
use crate::tensor::ElementType;

/// Items of all values together, at most.
const MOST_ITEMS: usize = 1 << 23;

/// Columns of a program, at most.
const MOST_REGISTERS: usize = 1 << 16;

/// What a graph is compiled from.
pub(super) struct Source<'a> {
    pub graph: &'a GraphProto,
    pub weights: &'a [Weight],
    /// The version of each operator set, by its domain.
    pub opsets: HashMap<&'a str, i64>,
    /// The model's inputs, with the sizes that are known.
    pub inputs: &'a [TensorSpec],
    /// The outputs that are asked for.
    pub outputs: &'a [String],
    /// Whether this engine was chosen, be it the fastest or not.
    pub forced: bool,
}

/// Compiles the graph.
pub(super) fn compile(source: &Source<'_>) -> Result<Program> {
    let needed = needed_nodes(source);
    // Before anything is made of the weights: is there an operator for each node?
    for (position, proto) in source.graph.node.iter().enumerate().filter(|(position, _)| needed.contains(position)) {
        if lowering(proto).is_none() {
            unsupported!("{}: an operator that is not compiled", label(position, proto));
        }
    }
    let mut compiler = Compiler { forced: source.forced, ..Compiler::default() };
    let mut values = constants(source)?;
    for (number, input) in source.inputs.iter().enumerate() {
        let value = compiler.input(number, input)?;
        values.insert(&input.name, value);
    }
    let mut budget = MOST_ITEMS;
    for (position, proto) in source.graph.node.iter().enumerate() {
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
            let opset = source.opsets.get(domain(proto)).copied().unwrap_or(1);
            lower(&mut compiler, &Node::new(proto, opset, inputs))
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
    let outputs = source.outputs.iter().map(|name| match values.remove(name.as_str()) {
        Some(value) => Ok(value),
        None => unsupported!("no node gives output '{name}'"),
    });
    let outputs = outputs.collect::<Result<_>>()?;
    compiler.finish(outputs)
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

fn constants<'a>(source: &Source<'a>) -> Result<HashMap<&'a str, Value>> {
    let used: HashSet<&str> = source.graph.node.iter().flat_map(|node| &node.input).map(String::as_str).collect();
    let mut values = HashMap::new();
    for weight in source.weights.iter().filter(|weight| used.contains(weight.name.as_str())) {
        values.insert(weight.name.as_str(), node::weight(weight)?);
    }
    if !source.graph.sparse_initializer.is_empty() {
        unsupported!("a sparse initializer");
    }
    for tensor in source.graph.initializer.iter().filter(|tensor| used.contains(tensor.name.as_str())) {
        if !values.contains_key(tensor.name.as_str()) {
            values.insert(&tensor.name, node::constant(tensor)?);
        }
    }
    Ok(values)
}

/// The positions of the nodes from which the outputs come.
fn needed_nodes(source: &Source<'_>) -> HashSet<usize> {
    let nodes = &source.graph.node;
    let outputs = nodes.iter().enumerate().flat_map(|(i, node)| node.output.iter().map(move |name| (name.as_str(), i)));
    let producers: HashMap<&str, usize> = outputs.collect();
    let mut needed = HashSet::new();
    let mut wanted: Vec<&str> = source.outputs.iter().map(String::as_str).collect();
    while let Some(name) = wanted.pop() {
        if let Some(node) = producers.get(name)
            && needed.insert(*node)
        {
            wanted.extend(nodes[*node].input.iter().map(String::as_str));
        }
    }
    needed
}

/// What a column is, where a step that reads it can do better than read it.
#[derive(Debug, Clone)]
pub(super) enum Origin {
    /// `(source - offset) * scale`
    Scaled { source: Register, offset: f32, scale: f32 },
    /// Of a number its distance from the first picks one of `codes`; of others it is -1.
    Code { source: Register, first: i64, codes: Arc<[i64]> },
    /// 1 where `code` is `category`, else 0.
    OneHot { code: Register, category: usize, of: usize },
}

#[derive(Debug)]
struct Draft {
    kernel: Box<dyn Kernel>,
    inputs: Vec<Register>,
    outputs: Vec<Register>,
}

/// The program in the making.
#[derive(Debug, Default)]
pub(super) struct Compiler {
    registers: Vec<Kind>,
    drafts: Vec<Draft>,
    inputs: Vec<(InputColumn, Register)>,
    /// Which input, and which of its columns.
    texts: Vec<(usize, usize)>,
    constants: HashMap<(Kind, u64), (Register, Constant)>,
    origins: HashMap<Register, Origin>,
    forced: bool,
}

impl Compiler {
    /// Whether no other engine is to run the model, though it may be faster.
    pub(super) fn is_forced(&self) -> bool {
        self.forced
    }

    fn register(&mut self, kind: Kind) -> Result<Register> {
        if self.registers.len() >= MOST_REGISTERS {
            unsupported!("more than {MOST_REGISTERS} columns");
        }
        let number = self.registers.len() as u32;
        self.registers.push(kind);
        Ok(Register { kind, number })
    }

    fn input(&mut self, number: usize, spec: &TensorSpec) -> Result<Value> {
        let row: Option<Vec<usize>> = spec.row_shape().iter().map(Dimension::size).collect();
        let Some(row) = row else { unsupported!("input {spec} with a size that is not known") };
        if spec.shape.is_empty() {
            unsupported!("input {spec} without rows");
        }
        let Some(width) = row.iter().try_fold(1usize, |width, dim| width.checked_mul(*dim)) else {
            unsupported!("input {spec} is large");
        };
        if width > MOST_REGISTERS {
            unsupported!("input {spec} is large");
        }
        let mut items = Vec::with_capacity(width);
        for column in 0..width {
            if spec.element == ElementType::String {
                items.push(Operand::Text(self.texts.len()));
                self.texts.push((number, column));
                continue;
            }
            let register = self.register(kind_of(spec.element)?)?;
            let input = InputColumn { input: number, column, kind: register.kind, lookup: None };
            self.inputs.push((input, register));
            items.push(Operand::Register(register));
        }
        Ok(Value::of_rows(spec.element, std::iter::once(1).chain(row).collect(), items))
    }

    /// The position of an input's text in `table`.
    pub(super) fn look_up(&mut self, text: usize, table: Arc<TextTable>) -> Result<Operand> {
        let (input, column) = self.texts[text];
        let register = self.register(Kind::I64)?;
        let column = InputColumn { input, column, kind: Kind::I64, lookup: Some(table) };
        self.inputs.push((column, register));
        Ok(Operand::Register(register))
    }

    /// A step; without one, if all that it reads is known.
    pub(super) fn emit(
        &mut self,
        kernel: impl Kernel + 'static,
        inputs: &[Operand],
        outputs: &[Kind],
    ) -> Result<Vec<Operand>> {
        let known: Option<Vec<&Scalar>> = inputs.iter().map(Operand::constant).collect();
        if let Some(known) = known {
            return fold(&kernel, &known, outputs);
        }
        let inputs = inputs.iter().map(|operand| self.in_register(operand)).collect::<Result<Vec<_>>>()?;
        let outputs = outputs.iter().map(|kind| self.register(*kind)).collect::<Result<Vec<_>>>()?;
        let operands = outputs.iter().map(|register| Operand::Register(*register)).collect();
        self.drafts.push(Draft { kernel: Box::new(kernel), inputs, outputs });
        Ok(operands)
    }

    /// The register that holds `operand`.
    pub(super) fn in_register(&mut self, operand: &Operand) -> Result<Register> {
        let (kind, bits, constant) = match operand {
            Operand::Register(register) => return Ok(*register),
            Operand::Text(_) => unsupported!("computes with texts"),
            Operand::Constant(Scalar::F32(value)) => (Kind::F32, value.to_bits().into(), Constant::F32(*value)),
            Operand::Constant(Scalar::F64(value)) => (Kind::F64, value.to_bits(), Constant::F64(*value)),
            Operand::Constant(Scalar::I64(value)) => (Kind::I64, *value as u64, Constant::I64(*value)),
            Operand::Constant(Scalar::Text(_)) => unsupported!("computes with texts"),
            Operand::Constant(Scalar::Rows) => unsupported!("computes with the number of rows"),
        };
        if let Some((register, _)) = self.constants.get(&(kind, bits)) {
            return Ok(*register);
        }
        let register = self.register(kind)?;
        self.constants.insert((kind, bits), (register, constant));
        Ok(register)
    }

    /// Remembers what the column of `operand` is.
    pub(super) fn set_origin(&mut self, operand: &Operand, origin: Origin) {
        if let Operand::Register(register) = operand {
            self.origins.insert(*register, origin);
        }
    }

    pub(super) fn origin(&self, operand: &Operand) -> Option<&Origin> {
        match operand {
            Operand::Register(register) => self.origins.get(register),
            _ => None,
        }
    }

    fn finish(mut self, values: Vec<Value>) -> Result<Program> {
        let mut results = vec![];
        for value in values {
            if value.rows != Some(0) {
                unsupported!("an output that has no rows first");
            }
            if value.items.iter().any(|item| matches!(item, Operand::Text(_))) {
                unsupported!("an output of texts as they came");
            }
            let texts = value.texts.clone();
            if value.element != ElementType::String {
                kind_of(value.element)?;
            }
            let (items, texts) = match (value.element, texts) {
                (ElementType::String, None) => {
                    let (codes, texts) = code_texts(&value.items)?;
                    (codes, Some(texts))
                }
                (_, texts) => (value.items, texts),
            };
            let columns = items.iter().map(|item| self.in_register(item)).collect::<Result<Vec<_>>>()?;
            results.push((value.element, value.dims[1..].to_vec(), columns, texts));
        }

        // Steps that an output needs, and the last step that reads each register.
        let mut needed = vec![false; self.drafts.len()];
        let mut last_use = vec![0; self.registers.len()];
        let end = self.drafts.len() + 1;
        results.iter().flat_map(|(_, _, columns, _)| columns).for_each(|column| last_use[column.number as usize] = end);
        for (number, draft) in self.drafts.iter().enumerate().rev() {
            if draft.outputs.iter().any(|output| last_use[output.number as usize] > 0) {
                needed[number] = true;
                for input in &draft.inputs {
                    let last = &mut last_use[input.number as usize];
                    *last = (*last).max(number + 1);
                }
            }
        }

        let mut program =
            Program { inputs: vec![], steps: vec![], outputs: vec![], block: 0, slots: vec![], constants: vec![] };
        let mut places: HashMap<Register, Location> = HashMap::new();
        for (column, register) in self.inputs {
            if last_use[register.number as usize] > 0 {
                places.insert(register, Location::Input(program.inputs.len()));
                program.inputs.push(column);
            }
        }
        let mut constants: Vec<_> = self.constants.into_values().collect();
        constants.sort_by_key(|(register, _)| register.number);
        for (register, constant) in constants {
            if last_use[register.number as usize] > 0 {
                places.insert(register, Location::Slot(program.slots.len()));
                program.constants.push((program.slots.len(), constant));
                program.slots.push(register.kind);
            }
        }
        let constant_slots: HashSet<usize> = program.constants.iter().map(|(slot, _)| *slot).collect();
        let mut free: HashMap<Kind, Vec<usize>> = HashMap::new();
        for (number, draft) in self.drafts.into_iter().enumerate().filter(|(number, _)| needed[*number]) {
            let mut outputs = vec![];
            for output in &draft.outputs {
                let slot = free.entry(output.kind).or_default().pop().unwrap_or_else(|| {
                    program.slots.push(output.kind);
                    program.slots.len() - 1
                });
                places.insert(*output, Location::Slot(slot));
                outputs.push(slot);
            }
            let done: HashSet<Register> = draft
                .inputs
                .iter()
                .chain(&draft.outputs)
                .copied()
                .filter(|r| last_use[r.number as usize] <= number + 1)
                .collect();
            for register in done {
                if let Some(Location::Slot(slot)) = places.get(&register).copied()
                    && !constant_slots.contains(&slot)
                {
                    free.entry(register.kind).or_default().push(slot);
                }
            }
            let inputs = draft.inputs.iter().map(|input| places[input]).collect();
            program.steps.push(Step { kernel: draft.kernel, inputs, outputs });
        }
        for (element, dims, columns, texts) in results {
            let columns = columns.iter().map(|column| (column.kind, places[column])).collect();
            program.outputs.push(Output { element, dims, columns, texts });
        }
        program.block = program::block_rows(&program.steps, program.slots.len());
        Ok(program)
    }
}

/// Constant texts as positions in a table.
fn code_texts(items: &[Operand]) -> Result<(Vec<Operand>, Texts)> {
    let mut texts: Vec<Arc<str>> = vec![];
    let mut codes = vec![];
    for item in items {
        let Operand::Constant(Scalar::Text(text)) = item else { unsupported!("computes with texts") };
        codes.push(Operand::Constant(Scalar::I64(texts.len() as i64)));
        texts.push(text.clone());
    }
    Ok((codes, texts.into()))
}

/// What the kernel gives for constants.
fn fold(kernel: &dyn Kernel, known: &[&Scalar], outputs: &[Kind]) -> Result<Vec<Operand>> {
    let buffers = known.iter().map(|scalar| match scalar {
        Scalar::F32(value) => Ok(Buffer::F32(vec![*value])),
        Scalar::F64(value) => Ok(Buffer::F64(vec![*value])),
        Scalar::I64(value) => Ok(Buffer::I64(vec![*value])),
        Scalar::Text(_) => unsupported!("computes with texts"),
        Scalar::Rows => unsupported!("computes with the number of rows"),
    });
    let buffers = buffers.collect::<Result<Vec<_>>>()?;
    let inputs: Vec<_> = buffers.iter().map(|buffer| buffer.slice(1)).collect();
    let mut results: Vec<_> = outputs.iter().map(|kind| Buffer::new(*kind, super::trees::BLOCK)).collect();
    if let Err(reason) = kernel.run(1, &inputs, &mut results, &mut TreeScratch::default()) {
        unsupported!("{reason}");
    }
    let scalar = |buffer: &Buffer| match buffer {
        Buffer::F32(values) => Scalar::F32(values[0]),
        Buffer::F64(values) => Scalar::F64(values[0]),
        Buffer::I64(values) => Scalar::I64(values[0]),
    };
    Ok(results.iter().map(|buffer| Operand::Constant(scalar(buffer))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::proto::{AttributeProto, TensorProto};

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
        compile(&Source {
            graph: &GraphProto { node, initializer, ..Default::default() },
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
