//! The program in the making: what the operators write their steps to.
//!
//! A [`Value`] of the graph is an array of operands, each a column that a step gives or a constant. Operators take values
//! and give values; those that compute something [emit](ProgramBuilder::emit) a step. In the end the steps that no output
//! needs are left out, and columns that are not needed at the same time share memory.

mod node;
pub(crate) mod value;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

pub(crate) use node::{Node, constant, weight};
pub(crate) use value::{
    Operand, Refusal, Result, Scalar, Value, axis_of, broadcast_form, check_size, invalid, kind_of, positions, strides,
    unsupported,
};

use crate::model::{Dimension, TensorSpec};
use crate::program::{
    self, Buffer, Constant, InputColumn, Kernel, Kind, Location, Output, Program, Register, Step, TextTable, Texts,
};
use crate::tensor::ElementType;
use crate::trees::{self, TreeScratch};

/// Columns of a program, at most.
const MOST_REGISTERS: usize = 1 << 16;

/// What a column is, where a step that reads it can do better than read it.
#[derive(Debug, Clone)]
pub(crate) enum Origin {
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
pub(crate) struct ProgramBuilder {
    registers: Vec<Kind>,
    drafts: Vec<Draft>,
    inputs: Vec<(InputColumn, Register)>,
    /// Which input, and which of its columns.
    texts: Vec<(usize, usize)>,
    constants: HashMap<(Kind, u64), (Register, Constant)>,
    origins: HashMap<Register, Origin>,
    forced: bool,
}

impl ProgramBuilder {
    /// An empty program; `forced` as in [`is_forced`](Self::is_forced).
    pub(crate) fn new(forced: bool) -> Self {
        Self { forced, ..Self::default() }
    }

    /// Whether no other engine is to run the model, though it may be faster.
    pub(crate) fn is_forced(&self) -> bool {
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

    /// The value of the model's input `number`: a register for each of its columns.
    pub(crate) fn input(&mut self, number: usize, spec: &TensorSpec) -> Result<Value> {
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
    pub(crate) fn look_up(&mut self, text: usize, table: Arc<TextTable>) -> Result<Operand> {
        let (input, column) = self.texts[text];
        let register = self.register(Kind::I64)?;
        let column = InputColumn { input, column, kind: Kind::I64, lookup: Some(table) };
        self.inputs.push((column, register));
        Ok(Operand::Register(register))
    }

    /// A step; without one, if all that it reads is known.
    pub(crate) fn emit(
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
    pub(crate) fn in_register(&mut self, operand: &Operand) -> Result<Register> {
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
    pub(crate) fn set_origin(&mut self, operand: &Operand, origin: Origin) {
        if let Operand::Register(register) = operand {
            self.origins.insert(*register, origin);
        }
    }

    pub(crate) fn origin(&self, operand: &Operand) -> Option<&Origin> {
        match operand {
            Operand::Register(register) => self.origins.get(register),
            _ => None,
        }
    }

    /// The program that gives `values`.
    pub(crate) fn finish(mut self, values: Vec<Value>) -> Result<Program> {
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
    let mut results: Vec<_> = outputs.iter().map(|kind| Buffer::new(*kind, trees::BLOCK)).collect();
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
