//! A model that was compiled, over Arrow columns or over tensors.

mod columns;
mod outputs;
mod versions;

use std::sync::{Mutex, PoisonError};

use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::util::display::array_value_to_string;

use crate::builder::Refusal;
use crate::compile::{Graph, compile};
use crate::error::{Error, Result, bail, error};
use crate::model::{Model, TensorSpec};
use crate::program::{InputColumn, Program, Scratch};
use crate::tensor::{ElementType, Tensor};
use columns::{Column, array_column, cell_of_tensor, tensor_column};
use outputs::OutputBuffer;
use versions::newer_than_known;

/// How a model is to be compiled.
///
/// [`CompileOptions::of`] gives those for a model as its file describes it.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct CompileOptions {
    /// The model's name, for errors.
    pub name: String,
    /// The model's inputs, in order. Sizes that the file leaves open may be known here.
    pub inputs: Vec<TensorSpec>,
    /// The names of the features, in order, for errors; none if they have no names.
    pub features: Vec<String>,
    /// The outputs that runs give, in this order. What only others need is not computed.
    pub outputs: Vec<String>,
    /// If true, a model is compiled even where another runtime would be faster, as with large dense layers.
    pub forced: bool,
}

impl CompileOptions {
    /// All inputs and outputs of `model`, and nothing refused for being slow.
    pub fn of(model: &Model) -> Self {
        let signature = model.signature();
        Self {
            name: model.uri().to_owned(),
            inputs: signature.inputs.clone(),
            features: vec![],
            outputs: signature.outputs.iter().map(|output| output.name.clone()).collect(),
            forced: true,
        }
    }
}

/// The result of [`CompiledModel::compile`]: a model that runs, or the reason why it is left to another runtime.
#[derive(Debug)]
#[non_exhaustive]
pub enum Compiled {
    /// It can be run.
    Ready(Box<CompiledModel>),
    /// It holds something that is not compiled here, and another runtime may run it. The reason in a few words: for
    /// instance, the operator that is missing.
    Refused(String),
}

/// Memory of runs that is kept for later ones, at most: about as many as run at once.
const MOST_IDLE: usize = 64;

/// A model that was compiled. Any number of threads may run it at once.
///
/// A run is cut into blocks of rows whose columns stay in the first-level cache; it takes one thread.
///
/// ```
/// # fn main() -> Result<(), datafusion_predict_native::Error> {
/// use std::sync::Arc;
/// use arrow::array::{ArrayRef, Float32Array, RecordBatch};
/// use datafusion_predict_native::{Compiled, CompiledModel, CompileOptions, Model};
///
/// let model = Model::read("../tests/models/sklearn/iris_forest.onnx")?;
/// let Compiled::Ready(forest) = CompiledModel::compile(&model, &CompileOptions::of(&model))? else { panic!() };
/// let column = |values: [f32; 2]| Arc::new(Float32Array::from(values.to_vec())) as ArrayRef;
/// let flowers = RecordBatch::try_from_iter([
///     ("sepal_length", column([5.1, 6.7])),
///     ("sepal_width", column([3.5, 3.0])),
///     ("petal_length", column([1.4, 5.2])),
///     ("petal_width", column([0.2, 2.3])),
/// ]).expect("columns of one length");
/// let outputs = forest.score(&flowers)?;
/// assert_eq!(outputs[0].shape, [2]); // a label for each row
/// assert_eq!(outputs[1].shape, [2, 3]); // the probabilities of the three classes
/// let labels = outputs[0].data.to_array(); // an Arrow array
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct CompiledModel {
    name: String,
    inputs: Vec<TensorSpec>,
    outputs: Vec<String>,
    features: Vec<String>,
    program: Program,
    /// Memory that no run uses now.
    idle: Mutex<Vec<Scratch>>,
}

impl CompiledModel {
    /// Compiles `model`.
    ///
    /// # Errors
    /// A graph that nobody should run, such as trees with cycles.
    pub fn compile(model: &Model, options: &CompileOptions) -> Result<Compiled> {
        if let Some(version) = newer_than_known(model) {
            return Ok(Compiled::Refused(version));
        }
        let Some(proto) = model.graph() else { return Ok(Compiled::Refused("there is no graph".to_owned())) };
        let graph = Graph {
            proto,
            weights: model.weights(),
            opsets: model.opsets(),
            inputs: &options.inputs,
            outputs: &options.outputs,
            forced: options.forced,
        };
        let CompileOptions { name, inputs, outputs, features, .. } = options.clone();
        match compile(&graph) {
            Ok(program) => {
                Ok(Compiled::Ready(Box::new(Self { name, inputs, outputs, features, program, idle: Mutex::default() })))
            }
            Err(Refusal::Unsupported(reason)) => Ok(Compiled::Refused(reason)),
            Err(Refusal::Invalid(reason)) => bail!(InvalidModel, "model '{name}': {reason}"),
        }
    }

    /// Runs the model on the rows of `batch`. If the features have names ([`CompileOptions::features`], or those of several
    /// inputs), its columns are found by them, and others are passed by; else they are the features, in order. Columns of other
    /// types are cast.
    ///
    /// # Errors
    /// Columns that are missing, too few or too many; values that can't be cast without loss of their meaning, such as a text or
    /// 300 for an 8-bit integer; and those of [`run_columns`](Self::run_columns).
    pub fn score(&self, batch: &RecordBatch) -> Result<Vec<Tensor>> {
        let mut columns = self.features_of(batch)?.into_iter();
        let inputs = self.inputs.iter().map(|input| {
            let of_input = columns.by_ref().take(input.row_elements().unwrap_or(1));
            of_input.map(|(name, column)| self.cast(name, column, input.element)).collect()
        });
        let inputs = inputs.collect::<Result<Vec<Vec<ArrayRef>>>>()?;
        self.run_columns(&inputs, batch.num_rows(), &|| false)
    }

    /// The columns of the features, with their names.
    fn features_of<'a>(&self, batch: &'a RecordBatch) -> Result<Vec<(&'a str, &'a ArrayRef)>> {
        let fields = batch.schema_ref().fields();
        let of_inputs = || self.inputs.iter().map(|input| input.name.as_str()).collect();
        let names: Vec<&str> = match self.features.as_slice() {
            [] if self.inputs.len() > 1 => of_inputs(),
            features => features.iter().map(String::as_str).collect(),
        };
        if !names.is_empty() {
            let by_name = names.iter().map(|name| match fields.find(name) {
                Some((place, field)) => Ok((field.name().as_str(), batch.column(place))),
                None => bail!(RunFailed, "model '{}': there is no column '{name}'", self.name),
            });
            return by_name.collect();
        }
        let expected: usize = self.inputs.iter().map(|input| input.row_elements().unwrap_or(1)).sum();
        if expected != batch.num_columns() {
            bail!(RunFailed, "model '{}' takes {expected} columns, found {}", self.name, batch.num_columns());
        }
        Ok(fields.iter().map(|field| field.name().as_str()).zip(batch.columns()).collect())
    }

    fn cast(&self, name: &str, column: &ArrayRef, element: ElementType) -> Result<ArrayRef> {
        let found = column.data_type();
        if !element.accepts(found) {
            bail!(RunFailed, "model '{}': column '{name}' is {found}, expected {}", self.name, element.arrow());
        }
        if element == ElementType::String {
            return Ok(column.clone());
        }
        let options = CastOptions { safe: false, ..CastOptions::default() };
        cast_with_options(column, &element.arrow(), &options)
            .map_err(|cause| error!(RunFailed, "model '{}': column '{name}'", self.name).with_source(cause))
    }

    /// Runs the model on `rows` rows: for each input its columns, each of the Arrow type of the input's elements (NULL among
    /// floats is NaN), or, of texts, of any type of texts or a dictionary of them. They are read where they lie.
    ///
    /// `is_cancelled` is asked before each block of rows.
    ///
    /// # Errors
    /// Columns that are missing, too short or of other types; a row that the model has no result for; a run that was
    /// cancelled.
    pub fn run_columns(
        &self,
        inputs: &[Vec<ArrayRef>],
        rows: usize,
        is_cancelled: &dyn Fn() -> bool,
    ) -> Result<Vec<Tensor>> {
        let mut scratch = self.scratch();
        let columns =
            self.program.inputs.iter().zip(&mut scratch.dictionaries).map(|(column, dictionary)| {
                match inputs.get(column.input).and_then(|arrays| arrays.get(column.column)) {
                    Some(array) => {
                        let read = array_column(array, column, self.element(column), dictionary)
                            .and_then(|read| read.of_kind(column));
                        read.map_err(|problem| self.failed(&problem))
                    }
                    None => {
                        Err(self.failed(&format!("input {} has no column {}", column.input + 1, column.column + 1)))
                    }
                }
            });
        let columns = columns.collect::<Result<Vec<_>>>()?;
        let cell = |column: &InputColumn, row: usize| {
            let array = inputs.get(column.input)?.get(column.column)?;
            array_value_to_string(array, row).ok()
        };
        self.run_program(&columns, rows, is_cancelled, scratch, &cell)
    }

    /// As [`run_columns`](Self::run_columns), on one tensor for each input, rows first.
    ///
    /// # Errors
    /// As those of [`run_columns`](Self::run_columns).
    pub fn run(&self, inputs: &[Tensor], is_cancelled: &dyn Fn() -> bool) -> Result<Vec<Tensor>> {
        let rows = inputs.first().map_or(0, Tensor::rows);
        if let Some(other) = inputs.iter().find(|input| input.rows() != rows) {
            return Err(self.failed(&format!("its inputs have {rows} and {} rows", other.rows())));
        }
        let columns = self.program.inputs.iter().map(|column| match inputs.get(column.input) {
            Some(tensor) => tensor_column(tensor, column, self.element(column))
                .and_then(|read| read.of_kind(column))
                .map_err(|problem| self.failed(&problem)),
            None => Err(self.failed(&format!("input {} is missing", column.input + 1))),
        });
        let cell = |column: &InputColumn, row: usize| cell_of_tensor(inputs.get(column.input)?, column.column, row);
        self.run_program(&columns.collect::<Result<Vec<_>>>()?, rows, is_cancelled, self.scratch(), &cell)
    }

    /// The inputs, in order.
    pub fn inputs(&self) -> &[TensorSpec] {
        &self.inputs
    }

    /// The names of the outputs that runs give, in order.
    pub fn outputs(&self) -> &[String] {
        &self.outputs
    }

    /// Bytes in memory, beside a few kilobytes.
    pub fn size(&self) -> usize {
        self.program.size()
    }

    fn element(&self, column: &InputColumn) -> ElementType {
        self.inputs[column.input].element
    }

    fn failed(&self, problem: &str) -> Error {
        error!(RunFailed, "model '{}': {problem}", self.name)
    }

    fn scratch(&self) -> Scratch {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        idle.unwrap_or_else(|| self.program.scratch())
    }

    fn run_program(
        &self,
        columns: &[Column],
        rows: usize,
        is_cancelled: &dyn Fn() -> bool,
        mut scratch: Scratch,
        cell: &dyn Fn(&InputColumn, usize) -> Option<String>,
    ) -> Result<Vec<Tensor>> {
        if let Some(column) = columns.iter().find(|column| column.len() < rows) {
            return Err(self.failed(&format!("a column of {} values for {rows} rows", column.len())));
        }
        let outputs = self.program.outputs.iter().map(|output| OutputBuffer::new(output, rows));
        let Some(mut outputs) = outputs.collect::<Option<Vec<_>>>() else {
            return Err(self.failed(&format!("{rows} rows are too many for one run")));
        };
        let mut slices = Vec::with_capacity(columns.len());
        for start in (0..rows).step_by(self.program.block) {
            if is_cancelled() {
                bail!(Cancelled, "model '{}': the query was cancelled", self.name);
            }
            let count = self.program.block.min(rows - start);
            slices.clear();
            slices.extend(columns.iter().map(|column| column.slice(start, count)));
            self.program.run(count, &slices, &mut scratch).map_err(|problem| {
                let at_fault = problem.cell.and_then(|(input, row)| {
                    let column = self.program.inputs.get(input)?;
                    Some((self.argument(column), cell(column, start + row)?))
                });
                match at_fault {
                    Some((feature, value)) => self.failed(&format!("{feature} is '{value}', {}", problem.text)),
                    None => self.failed(&problem.text),
                }
            })?;
            for (output, buffer) in self.program.outputs.iter().zip(&mut outputs) {
                for (number, (_, location)) in output.columns.iter().enumerate() {
                    buffer.write(number, start, self.program.output(*location, count, &slices, &scratch));
                }
            }
        }
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < MOST_IDLE {
            idle.push(scratch);
        }
        drop(idle);
        let tensors = self.program.outputs.iter().zip(outputs).map(|(output, buffer)| buffer.into_tensor(output, rows));
        Ok(tensors.collect())
    }

    /// The feature that a column is, for errors: `argument 2 ('plan')`.
    fn argument(&self, column: &InputColumn) -> String {
        let place = if self.inputs.len() == 1 { column.column } else { column.input };
        match self.features.get(place) {
            Some(name) => format!("argument {} ('{name}')", place + 1),
            None => format!("argument {}", place + 1),
        }
    }
}
