//! Our own engine: graphs of tables – trees, linear models and their preprocessing – as programs over columns.
//!
//! ```text
//!  graph ──compile──► program: steps over columns        Arrow columns, read where they lie
//!  (operators: one file for each family)                        │ blocks of rows
//!  (trees: layouts, chosen for each tree)                       ▼
//!                                                       step ► step ► … ► output tensors
//! ```
//!
//! A graph that holds any other operator is left to the next engine.

mod compile;
mod node;
mod operators;
mod program;
mod trees;
mod value;

use std::sync::{Arc, Mutex, PoisonError};

use datafusion::arrow::array::{Array, ArrayRef, AsArray, StringArray};
use datafusion::arrow::buffer::ScalarBuffer;
use datafusion::arrow::datatypes::{ArrowNativeType, ArrowPrimitiveType, DataType, Int32Type};
use datafusion::arrow::util::display::array_value_to_string;
use half::{bf16, f16};
use multiversion::multiversion;

use super::{Columnar, Device, Engine, Executable, LoadRequest, Loaded, RunContext};
use crate::error::{Result, bail};
use crate::model::Model;
use crate::tensor::{ElementType, Tensor, TensorData};
use compile::Source;
use program::{Dictionary, InputColumn, Kind, Output, Program, Scratch, Slice, TextTable};
use value::Refusal;

/// Runs what it can compile, without a library.
#[derive(Debug, Default)]
pub struct NativeEngine;

impl NativeEngine {
    /// The name by which sessions choose it.
    pub const NAME: &str = "native";
}

impl Engine for NativeEngine {
    fn name(&self) -> &str {
        Self::NAME
    }

    fn load(&self, model: &Arc<Model>, request: &LoadRequest) -> Result<Loaded> {
        if !matches!(request.device, Device::Cpu | Device::Auto) {
            return Ok(Loaded::Refused(format!("device '{}' is asked for", request.device)));
        }
        if let Some(version) = newer_than_known(model) {
            return Ok(Loaded::Refused(version));
        }
        let Some(graph) = model.graph() else { return Ok(Loaded::Refused("there is no graph".to_owned())) };
        let source = Source {
            graph,
            weights: model.weights(),
            opsets: model.opsets(),
            inputs: &request.inputs,
            outputs: &request.outputs,
            forced: request.chosen,
        };
        match compile::compile(&source) {
            Ok(program) => {
                let label = request.label.clone();
                let features = Features { names: request.features.clone(), inputs: request.inputs.len() };
                Ok(Loaded::Ready(Arc::new(NativeExecutable { label, features, program, idle: Mutex::default() })))
            }
            Err(Refusal::Unsupported(reason)) => Ok(Loaded::Refused(reason)),
            Err(Refusal::Invalid(reason)) => bail!(InvalidModel, "model '{}': {reason}", request.label),
        }
    }
}

/// The newest versions that are known here: those of ONNX 1.23.
const NEWEST_IR: i64 = 14;
const NEWEST_OPSETS: [(&str, &str, i64); 2] = [("", "ai.onnx", 28), ("ai.onnx.ml", "ai.onnx.ml", 5)];

/// The version of the format or of an operator set in which `model` is written, if it is newer than anyone knew when this
/// was built: its operators may mean something else.
fn newer_than_known(model: &Model) -> Option<String> {
    let ir = model.metadata().ir_version;
    if ir > NEWEST_IR {
        return Some(format!(
            "it is written in version {ir} of the ONNX format, the newest that is known is {NEWEST_IR}"
        ));
    }
    let opsets = model.opsets();
    NEWEST_OPSETS.iter().find_map(|(domain, name, newest)| {
        let version = *opsets.get(domain)?;
        let text =
            format!("it is written in version {version} of the operators {name}, the newest that is known is {newest}");
        (version > *newest).then_some(text)
    })
}

/// Memory of runs that is kept for later ones, at most: about as many as run at once.
const MOST_IDLE: usize = 64;

/// A compiled model.
#[derive(Debug)]
struct NativeExecutable {
    label: String,
    features: Features,
    program: Program,
    /// Memory that no run uses now.
    idle: Mutex<Vec<Scratch>>,
}

/// The names of a model's features, for errors.
#[derive(Debug)]
struct Features {
    /// In order; none if they have no names.
    names: Vec<String>,
    /// The model's inputs: one whose columns are the features, or one for each feature.
    inputs: usize,
}

impl Features {
    /// `argument 2 ('plan')`
    fn describe(&self, column: &InputColumn) -> String {
        let place = if self.inputs == 1 { column.column } else { column.input };
        match self.names.get(place) {
            Some(name) => format!("argument {} ('{name}')", place + 1),
            None => format!("argument {}", place + 1),
        }
    }
}

impl Executable for NativeExecutable {
    fn run(&self, inputs: &[Tensor], context: &RunContext) -> Result<Vec<Tensor>> {
        let rows = inputs.first().map_or(0, Tensor::rows);
        let columns = self.program.inputs.iter().map(|column| match inputs.get(column.input) {
            Some(tensor) => tensor_column(tensor, column)
                .and_then(|read| read.of_kind(column))
                .map_err(|problem| self.failed(&problem)),
            None => Err(self.failed(&format!("input {} is missing", column.input + 1))),
        });
        let cell = |column: &InputColumn, row: usize| cell_of_tensor(inputs.get(column.input)?, column.column, row);
        self.run_program(&columns.collect::<Result<Vec<_>>>()?, rows, context, self.scratch(), &cell)
    }

    fn columnar(&self) -> Option<&dyn Columnar> {
        Some(self)
    }

    fn device(&self) -> String {
        Device::Cpu.to_string()
    }

    fn size(&self) -> Option<usize> {
        Some(self.program.size()).filter(|size| *size > 0)
    }
}

impl Columnar for NativeExecutable {
    fn run_columns(&self, inputs: &[Vec<ArrayRef>], rows: usize, context: &RunContext) -> Result<Vec<Tensor>> {
        let mut scratch = self.scratch();
        let columns =
            self.program.inputs.iter().zip(&mut scratch.dictionaries).map(|(column, dictionary)| {
                match inputs.get(column.input).and_then(|arrays| arrays.get(column.column)) {
                    Some(array) => {
                        let read = array_column(array, column, dictionary).and_then(|read| read.of_kind(column));
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
        self.run_program(&columns, rows, context, scratch, &cell)
    }
}

impl NativeExecutable {
    fn failed(&self, problem: &str) -> crate::Error {
        crate::error::error!(EngineFailed, "model '{}': {problem}", self.label)
    }

    fn scratch(&self) -> Scratch {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        idle.unwrap_or_else(|| self.program.scratch())
    }

    fn run_program(
        &self,
        columns: &[Column],
        rows: usize,
        context: &RunContext,
        mut scratch: Scratch,
        cell: &dyn Fn(&InputColumn, usize) -> Option<String>,
    ) -> Result<Vec<Tensor>> {
        if let Some(column) = columns.iter().find(|column| column.len() < rows) {
            return Err(self.failed(&format!("a column of {} values for {rows} rows", column.len())));
        }
        let mut outputs: Vec<_> = self.program.outputs.iter().map(|output| OutputBuffer::new(output, rows)).collect();
        let mut slices = Vec::with_capacity(columns.len());
        for start in (0..rows).step_by(self.program.block) {
            if context.cancel.is_cancelled() {
                bail!(Cancelled, "model '{}': the query was cancelled", self.label);
            }
            let count = self.program.block.min(rows - start);
            slices.clear();
            slices.extend(columns.iter().map(|column| column.slice(start, count)));
            self.program.run(count, &slices, &mut scratch).map_err(|problem| {
                let at_fault = problem.cell.and_then(|(input, row)| {
                    let column = self.program.inputs.get(input)?;
                    Some((self.features.describe(column), cell(column, start + row)?))
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
}

/// A column of a batch, as the program reads it.
enum Column {
    F32(ScalarBuffer<f32>),
    F64(ScalarBuffer<f64>),
    I64(ScalarBuffer<i64>),
}

impl Column {
    /// Itself, if it is what the program reads.
    fn of_kind(self, column: &InputColumn) -> Result<Self, String> {
        let kind = match self {
            Self::F32(_) => Kind::F32,
            Self::F64(_) => Kind::F64,
            Self::I64(_) => Kind::I64,
        };
        match kind == column.kind {
            true => Ok(self),
            false => Err(format!("a column of {kind:?}, expected {:?}", column.kind)),
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::F32(values) => values.len(),
            Self::F64(values) => values.len(),
            Self::I64(values) => values.len(),
        }
    }

    fn slice(&self, start: usize, count: usize) -> Slice<'_> {
        match self {
            Self::F32(values) => Slice::F32(&values[start..start + count]),
            Self::F64(values) => Slice::F64(&values[start..start + count]),
            Self::I64(values) => Slice::I64(&values[start..start + count]),
        }
    }
}

/// The values where they lie; a copy if some are NULL, which is `missing`.
fn values<T: ArrowPrimitiveType>(array: &dyn Array, missing: T::Native) -> ScalarBuffer<T::Native> {
    let array = array.as_primitive::<T>();
    match array.nulls() {
        None => array.values().clone(),
        Some(_) => array.iter().map(|value| value.unwrap_or(missing)).collect(),
    }
}

/// An Arrow column whose type is that of the input's elements, or a dictionary of texts.
fn array_column(array: &ArrayRef, column: &InputColumn, dictionary: &mut Dictionary) -> Result<Column, String> {
    use datafusion::arrow::datatypes::{
        Float32Type, Float64Type, Int8Type, Int16Type, Int64Type, UInt8Type, UInt16Type, UInt32Type,
    };
    fn integers<T: ArrowPrimitiveType>(array: &dyn Array) -> Column
    where
        T::Native: Into<i64>,
    {
        Column::I64(array.as_primitive::<T>().values().iter().map(|value| (*value).into()).collect())
    }
    Ok(match (array.data_type(), &column.lookup) {
        (DataType::Dictionary(_, _), Some(table)) => Column::I64(dictionary_codes(array, table, dictionary)?),
        (_, Some(table)) => Column::I64(text_codes(array, table)?),
        (DataType::Float32, None) => Column::F32(values::<Float32Type>(array, f32::NAN)),
        (DataType::Float64, None) => Column::F64(values::<Float64Type>(array, f64::NAN)),
        (DataType::Int64, None) => Column::I64(values::<Int64Type>(array, 0)),
        (DataType::Int32, None) => integers::<Int32Type>(array),
        (DataType::Int16, None) => integers::<Int16Type>(array),
        (DataType::Int8, None) => integers::<Int8Type>(array),
        (DataType::UInt32, None) => integers::<UInt32Type>(array),
        (DataType::UInt16, None) => integers::<UInt16Type>(array),
        (DataType::UInt8, None) => integers::<UInt8Type>(array),
        (DataType::Boolean, None) => {
            let array = array.as_boolean();
            Column::I64((0..array.len()).map(|row| array.value(row).into()).collect())
        }
        (other, None) => return Err(format!("a column of {other}")),
    })
}

/// The number that stands for each text.
fn text_codes(array: &ArrayRef, table: &TextTable) -> Result<ScalarBuffer<i64>, String> {
    Ok(match array.data_type() {
        DataType::Utf8 => array.as_string::<i32>().iter().map(|text| table.code(text.unwrap_or_default())).collect(),
        DataType::LargeUtf8 => {
            array.as_string::<i64>().iter().map(|text| table.code(text.unwrap_or_default())).collect()
        }
        DataType::Utf8View => array.as_string_view().iter().map(|text| table.code(text.unwrap_or_default())).collect(),
        other => return Err(format!("a column of {other}, expected texts")),
    })
}

/// As [`text_codes`], where each value of the dictionary is looked up once, however many batches share it.
fn dictionary_codes(array: &ArrayRef, table: &TextTable, last: &mut Dictionary) -> Result<ScalarBuffer<i64>, String> {
    let dictionary = array.as_any_dictionary();
    let values = dictionary.values();
    let codes = match last {
        Some((known, codes)) if known.upgrade().is_some_and(|known| Arc::ptr_eq(&known, values)) => codes.clone(),
        _ => {
            let codes = text_codes(values, table)?;
            *last = Some((Arc::downgrade(values), codes.clone()));
            codes
        }
    };
    let code = |key: usize| codes.get(key).copied().unwrap_or(table.default);
    Ok(match array.as_dictionary_opt::<Int32Type>() {
        Some(array) if !values.is_empty() => codes_of_keys(array.keys().values(), &codes),
        _ if values.is_empty() => std::iter::repeat_n(table.default, array.len()).collect(),
        _ => dictionary.normalized_keys().into_iter().map(code).collect(),
    })
}

/// The code at each key; what a key beyond them says, which only a NULL has, does not matter.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
fn codes_of_keys(keys: &[i32], codes: &[i64]) -> ScalarBuffer<i64> {
    let last = codes.len() as u32 - 1;
    let mut result = vec![0; keys.len()];
    // A loop, not `collect`: that would be a function of its own, without the instructions of this one.
    for (to, key) in result.iter_mut().zip(keys) {
        // SAFETY: the position is at most the last one.
        *to = unsafe { *codes.get_unchecked((*key as u32).min(last) as usize) };
    }
    result.into()
}

/// An element of a matrix, or of the rows of an input, as a text.
fn cell_of_tensor(tensor: &Tensor, column: usize, row: usize) -> Option<String> {
    let width: usize = tensor.shape.get(1..)?.iter().product();
    let place = row.checked_mul(width)?.checked_add(column)?;
    macro_rules! shown {
        ($data:expr) => {
            $data.get(place).map(|value| value.to_string())
        };
    }
    match &tensor.data {
        TensorData::String(texts) => (place < texts.len()).then(|| texts.value(place).to_owned()),
        TensorData::Float32(data) => shown!(data),
        TensorData::Float64(data) => shown!(data),
        TensorData::Int64(data) => shown!(data),
        TensorData::Int32(data) => shown!(data),
        TensorData::Int16(data) => shown!(data),
        TensorData::Int8(data) => shown!(data),
        TensorData::UInt64(data) => shown!(data),
        TensorData::UInt32(data) => shown!(data),
        TensorData::UInt16(data) => shown!(data),
        TensorData::UInt8(data) => shown!(data),
        TensorData::Bool(data) => shown!(data),
        TensorData::Float16(_) | TensorData::BFloat16(_) => None,
    }
}

/// A column of a tensor.
fn tensor_column(tensor: &Tensor, column: &InputColumn) -> Result<Column, String> {
    let rows = tensor.rows();
    let width: usize = tensor.shape.get(1..).unwrap_or_default().iter().product();
    if column.column >= width || rows.checked_mul(width) != Some(tensor.data.len()) {
        return Err(format!("a tensor of {:?} has no column {}", tensor.shape, column.column + 1));
    }
    fn every<T: ArrowNativeType, U: ArrowNativeType>(
        data: &ScalarBuffer<T>,
        start: usize,
        width: usize,
        f: impl Fn(T) -> U,
    ) -> ScalarBuffer<U> {
        data[start.min(data.len())..].iter().step_by(width).map(|value| f(*value)).collect()
    }
    let start = column.column;
    macro_rules! integers {
        ($data:expr) => {
            Column::I64(every($data, start, width, i64::from))
        };
    }
    Ok(match (&tensor.data, &column.lookup) {
        (TensorData::String(texts), Some(table)) => {
            Column::I64((0..rows).map(|row| table.code(texts.value(row * width + start))).collect())
        }
        (TensorData::Float32(data), _) if width == 1 => Column::F32(data.clone()),
        (TensorData::Float64(data), _) if width == 1 => Column::F64(data.clone()),
        (TensorData::Int64(data), _) if width == 1 => Column::I64(data.clone()),
        (TensorData::Float32(data), _) => Column::F32(every(data, start, width, |value| value)),
        (TensorData::Float64(data), _) => Column::F64(every(data, start, width, |value| value)),
        (TensorData::Int64(data), _) => Column::I64(every(data, start, width, |value| value)),
        (TensorData::Int32(data), _) => integers!(data),
        (TensorData::Int16(data), _) => integers!(data),
        (TensorData::Int8(data), _) => integers!(data),
        (TensorData::UInt32(data), _) => integers!(data),
        (TensorData::UInt16(data), _) => integers!(data),
        (TensorData::UInt8(data), _) => integers!(data),
        (TensorData::Bool(data), _) => {
            Column::I64(data[start.min(data.len())..].iter().step_by(width).map(|value| i64::from(*value)).collect())
        }
        (other, _) => return Err(format!("a tensor of {}", other.element())),
    })
}

/// An output in the making: its elements in row-major order.
enum OutputBuffer {
    F32(Vec<f32>, usize),
    F64(Vec<f64>, usize),
    I64(Vec<i64>, usize),
}

impl OutputBuffer {
    fn new(output: &Output, rows: usize) -> Self {
        let width = output.columns.len();
        match output.columns.first().map(|(kind, _)| *kind) {
            Some(Kind::F32) => Self::F32(vec![0.0; rows * width], width),
            Some(Kind::F64) => Self::F64(vec![0.0; rows * width], width),
            Some(Kind::I64) | None => Self::I64(vec![0; rows * width], width),
        }
    }

    fn write(&mut self, number: usize, start: usize, column: Slice<'_>) {
        fn copy<T: Copy>(to: &mut [T], width: usize, number: usize, start: usize, column: &[T]) {
            if width == 1 {
                to[start..start + column.len()].copy_from_slice(column);
                return;
            }
            let to = to[start * width + number..].iter_mut().step_by(width);
            to.zip(column).for_each(|(to, value)| *to = *value);
        }
        match self {
            Self::F32(to, width) => copy(to, *width, number, start, column.f32s()),
            Self::F64(to, width) => copy(to, *width, number, start, column.f64s()),
            Self::I64(to, width) => copy(to, *width, number, start, column.i64s()),
        }
    }

    fn into_tensor(self, output: &Output, rows: usize) -> Tensor {
        let shape = std::iter::once(rows).chain(output.dims.iter().copied()).collect();
        let data = match self {
            Self::F32(data, _) => TensorData::Float32(data.into()),
            Self::F64(data, _) => TensorData::Float64(data.into()),
            Self::I64(data, _) => match &output.texts {
                Some(texts) => {
                    let text = |code: &i64| texts.get(*code as usize).map_or("", |text| text.as_ref());
                    TensorData::String(StringArray::from_iter_values(data.iter().map(text)))
                }
                None => integers(data, output.element),
            },
        };
        Tensor { shape, data }
    }
}

/// Integers as elements of their type, which holds them: each operation has made sure of that.
fn integers(data: Vec<i64>, element: ElementType) -> TensorData {
    macro_rules! narrow {
        ($variant:ident, $native:ty) => {
            TensorData::$variant(data.into_iter().map(|value| value as $native).collect())
        };
    }
    match element {
        ElementType::Int32 => narrow!(Int32, i32),
        ElementType::Int16 => narrow!(Int16, i16),
        ElementType::Int8 => narrow!(Int8, i8),
        ElementType::UInt8 => narrow!(UInt8, u8),
        ElementType::UInt16 => narrow!(UInt16, u16),
        ElementType::UInt32 => narrow!(UInt32, u32),
        ElementType::UInt64 => narrow!(UInt64, u64),
        ElementType::Bool => TensorData::Bool(data.into_iter().map(|value| value != 0).collect()),
        ElementType::Float16 => {
            TensorData::Float16(data.into_iter().map(|value| f16::from_f64(value as f64)).collect())
        }
        ElementType::BFloat16 => {
            TensorData::BFloat16(data.into_iter().map(|value| bf16::from_f64(value as f64)).collect())
        }
        _ => TensorData::Int64(data.into()),
    }
}
