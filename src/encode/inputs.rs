//! Arrow columns → tensors.

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, BinaryArray, GenericListArray, OffsetSizeTrait, PrimitiveArray,
    StringArray, UInt64Array,
};
use datafusion::arrow::buffer::ScalarBuffer;
use datafusion::arrow::compute::{CastOptions, can_cast_types, cast_with_options};
use datafusion::arrow::datatypes::{
    DataType, Field, Float16Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type,
    UInt16Type, UInt32Type, UInt64Type,
};
use datafusion::arrow::row::{RowConverter, SortField};
use datafusion_predict_native::{Dimension, ElementType, Tensor, TensorData, TensorSpec};
use half::{bf16, f16};

use super::lists::is_bytes;

/// Rows that are transposed together: at 28 columns of float32, 28 kB, which the first-level cache holds.
const BLOCK_ROWS: usize = 256;

/// What is wrong with one argument, by its position.
#[derive(Debug)]
pub(crate) struct ArgumentError {
    pub argument: usize,
    pub problem: String,
}

type Result<T, E = ArgumentError> = std::result::Result<T, E>;

fn wrong<T>(argument: usize, problem: impl Into<String>) -> Result<T> {
    Err(ArgumentError { argument, problem: problem.into() })
}

/// How the arguments of a call become the inputs of a model.
///
/// - A matrix `[N]`, `[N,1]` or `[N,F]` that is the only input, or whose columns have names: one argument for each of its F
///   columns. The only input may also come as one list column.
/// - Any other input: one argument; a list, nested or flat, where a row has several elements.
#[derive(Debug, Clone)]
pub(crate) struct InputEncoder {
    inputs: Vec<TensorSpec>,
    /// For each input, whether its columns are arguments of their own.
    by_column: Vec<bool>,
}

impl InputEncoder {
    /// For `inputs` of which the only one, if it is a matrix, has arguments for its columns.
    pub(crate) fn new(inputs: Vec<TensorSpec>) -> Self {
        let by_column = match inputs.as_slice() {
            [only] => vec![is_matrix(only)],
            several => vec![false; several.len()],
        };
        Self { inputs, by_column }
    }

    /// For `inputs` of which those that are matrices of a known width have arguments for their columns where `by_column` says
    /// so.
    pub(crate) fn with_columns(inputs: Vec<TensorSpec>, by_column: Vec<bool>) -> Self {
        let knows_width =
            |(input, wanted): (&TensorSpec, bool)| wanted && is_matrix(input) && input.row_elements().is_some();
        let by_column = inputs.iter().zip(by_column).map(knows_width).collect();
        Self { inputs, by_column }
    }

    /// The same for inputs with other sizes.
    pub(crate) fn for_inputs(&self, inputs: Vec<TensorSpec>) -> Self {
        Self { inputs, by_column: self.by_column.clone() }
    }

    /// The inputs, each with whether its columns are arguments of their own.
    pub(crate) fn inputs(&self) -> impl Iterator<Item = (&TensorSpec, bool)> {
        self.inputs.iter().zip(self.by_column.iter().copied())
    }

    /// The only input, if it is a matrix whose columns are arguments of their own.
    pub(crate) fn matrix(&self) -> Option<&TensorSpec> {
        match (self.inputs.as_slice(), self.by_column.as_slice()) {
            ([input], [true]) => Some(input),
            _ => None,
        }
    }

    /// The number of features, if it is always the same.
    pub(crate) fn width(&self) -> Option<usize> {
        let widths = self.inputs().map(|(input, by_column)| if by_column { input.row_elements() } else { Some(1) });
        widths.sum()
    }

    /// The input that an argument belongs to, and whether it is one of its columns.
    fn input_of(&self, argument: usize) -> Option<(&TensorSpec, bool)> {
        if let Some(matrix) = self.matrix() {
            return Some((matrix, true));
        }
        let mut end = 0;
        self.inputs().find(|(input, by_column)| {
            end += if *by_column { input.row_elements().unwrap_or(1) } else { 1 };
            argument < end
        })
    }

    /// The arguments of each input.
    fn by_input<'a, T>(&'a self, mut arguments: &'a [T]) -> impl Iterator<Item = (&'a TensorSpec, bool, &'a [T])> {
        let is_only = self.matrix().is_some();
        self.inputs().map(move |(input, by_column)| {
            let width = match input.row_elements() {
                _ if is_only => arguments.len(),
                Some(width) if by_column => width,
                _ => 1,
            };
            let (these, rest) = arguments.split_at(width.min(arguments.len()));
            arguments = rest;
            (input, by_column, these)
        })
    }

    /// Whether the arguments are one list column that holds a matrix' rows.
    fn is_list_of_features(&self, types: &[&DataType]) -> bool {
        let Some(matrix) = self.matrix() else { return false };
        // Bytes are no texts, and those of files are no lists of numbers.
        let takes_numbers = !matches!(matrix.element, ElementType::String | ElementType::Bytes);
        matches!(types, [only] if is_list(only) || (is_bytes(only) && takes_numbers))
    }

    /// Whether a NULL in this argument can be given to the model, as NaN.
    pub(crate) fn has_nan(&self, argument: usize) -> bool {
        self.input_of(argument).is_some_and(|(input, _)| input.element.is_float())
    }

    /// Whether this argument is a text, or a list of them.
    pub(crate) fn is_text(&self, argument: usize) -> bool {
        self.input_of(argument).is_some_and(|(input, _)| input.element == ElementType::String)
    }

    /// Whether this argument is bytes that the model takes as they are.
    pub(crate) fn is_bytes(&self, argument: usize) -> bool {
        self.input_of(argument).is_some_and(|(input, _)| input.element == ElementType::Bytes)
    }

    /// The values of the list that this argument of `count` holds in each row, where that is always the same.
    pub(crate) fn list_length(&self, argument: usize, count: usize) -> Option<usize> {
        let (input, by_column) = self.input_of(argument)?;
        if by_column && !(self.matrix().is_some() && count == 1) { None } else { input.row_elements() }
    }

    /// Checks the arguments' types; their number has been checked against [`width`](Self::width).
    pub(crate) fn check(&self, types: &[DataType]) -> Result<()> {
        let all: Vec<_> = types.iter().collect();
        let as_list = self.is_list_of_features(&all);
        for (argument, found) in types.iter().enumerate() {
            let Some((input, by_column)) = self.input_of(argument) else { return wrong(argument, "is one too many") };
            // One value in several dimensions may come in lists, as such outputs do.
            let is_one = input.row_elements() == Some(1);
            let takes_list = as_list || (!by_column && (!is_one || (input.shape.len() > 1 && is_list_like(found))));
            let expected = match input.row_elements() {
                _ if !takes_list => input.element.arrow().to_string(),
                Some(length) => format!("a list of {length} {}", input.element.arrow()),
                None => format!("a list of {}", input.element.arrow()),
            };
            let inner = if takes_list { innermost(found) } else { Some(vec![found]) };
            let Some(inner) = inner else { return wrong(argument, format!("expected {expected}, found {found}")) };
            if let Some(inner) = inner.into_iter().find(|inner| !input.element.accepts(inner)) {
                // The field of a struct in a list is not what CAST would be written around.
                let is_field = innermost(found).is_some_and(|types| types.len() > 1);
                let hint = if is_list(inner) || is_field { None } else { cast_hint(inner, input.element) };
                let hint = hint.map(|hint| format!(": convert it with {hint}")).unwrap_or_default();
                return wrong(argument, format!("expected {expected}, found {found}{hint}"));
            }
        }
        Ok(())
    }

    /// Whether this argument, of `arguments`, is a list.
    pub(crate) fn takes_list(&self, argument: usize, arguments: &[ArrayRef]) -> bool {
        let is_whole_row = |(input, by_column): (&TensorSpec, bool)| !by_column && input.row_elements() != Some(1);
        is_list(arguments[argument].data_type()) || self.input_of(argument).is_some_and(is_whole_row)
    }

    /// Groups of rows that can't be scored in one run, if there are several such groups: their lists have different lengths, where
    /// a tensor's rows are equally long, or they differ in an input that all rows of a run `share`.
    pub(crate) fn groups(
        &self,
        arguments: &[ArrayRef],
        rows: usize,
        share: &[bool],
    ) -> Result<Option<Vec<UInt64Array>>> {
        let lists = self.inputs.iter().any(|input| input.row_elements().is_none());
        if !lists && !share.contains(&true) {
            return Ok(None);
        }
        let shared = self.by_input(arguments).zip(share).filter(|(_, shared)| **shared);
        let shared: Vec<_> = shared.flat_map(|((_, _, columns), _)| columns).cloned().collect();
        let fields = shared.iter().map(|column| SortField::new(column.data_type().clone())).collect();
        let values = RowConverter::new(fields).and_then(|converter| converter.convert_columns(&shared));
        let values = values.or_else(|cause| wrong(0, cause.to_string()))?;
        let value = |row: usize| if shared.is_empty() { None } else { Some(values.row(row)) };
        let mut groups: BTreeMap<(Vec<usize>, Option<_>), Vec<u64>> = BTreeMap::new();
        for row in 0..rows {
            let mut lengths = vec![];
            if lists {
                arguments.iter().for_each(|argument| push_lengths(argument, row, &mut lengths));
            }
            groups.entry((lengths, value(row))).or_default().push(row as u64);
        }
        Ok((groups.len() > 1).then(|| groups.into_values().map(UInt64Array::from).collect()))
    }

    /// The arguments as the columns of each input, for an engine that reads them where they lie; `None` if a list is
    /// among them. A column of another type than its input's elements is converted; texts and bytes stay as they are.
    pub(crate) fn columns(&self, arguments: &[ArrayRef]) -> Option<Result<Vec<Vec<ArrayRef>>>> {
        if arguments.iter().any(|argument| is_list(argument.data_type())) {
            return None;
        }
        let mut argument = 0;
        let mut column = |element: ElementType, array: &ArrayRef| {
            argument += 1;
            match element {
                ElementType::String if is_text(array.data_type()) => Ok(array.clone()),
                ElementType::Bytes if is_bytes(array.data_type()) => Ok(array.clone()),
                element => convert(array, element, argument - 1),
            }
        };
        let inputs = self.by_input(arguments);
        let columns =
            inputs.map(|(input, _, arrays)| arrays.iter().map(|array| column(input.element, array)).collect());
        Some(columns.collect())
    }

    /// The inputs for `rows` rows. NULL among floats becomes NaN; elsewhere the caller has left such rows out.
    pub(crate) fn encode(&self, arguments: &[ArrayRef], rows: usize) -> Result<Vec<Tensor>> {
        let mut first = 0;
        let encoded = self.by_input(arguments).map(|(input, by_column, arrays)| {
            let start = first;
            first += arrays.len();
            match arrays {
                [list] if is_list(list.data_type()) => list_tensor(input, list, start, rows),
                _ => {
                    let mut tensor = matrix_tensor(input, arrays, rows)
                        .map_err(|error| ArgumentError { argument: start + error.argument, ..error })?;
                    if !by_column {
                        tensor.shape = std::iter::once(rows).chain(vec![1; input.row_shape().len()]).collect();
                    }
                    Ok(tensor)
                }
            }
        });
        encoded.collect()
    }
}

/// Whether a row of the input is one value, or one for each column.
fn is_matrix(input: &TensorSpec) -> bool {
    input.shape.len() <= 2
}

/// The elements of one column.
pub(crate) fn element_tensor(element: ElementType, column: &ArrayRef, rows: usize) -> Result<TensorData> {
    elements(element, std::slice::from_ref(column), rows)
}

/// The SQL that makes an element of a value that is not taken for one, if there is any.
fn cast_hint(from: &DataType, element: ElementType) -> Option<String> {
    let to = sql_type(element);
    match from {
        from if from.is_nested() => None,
        // The bytes of a name are no file.
        from if element == ElementType::Bytes && from.is_string() => {
            Some("read_blob(…), if it is the name of a file".to_owned())
        }
        from if can_cast_types(from, &element.arrow()) => Some(format!("CAST(… AS {to})")),
        DataType::Date32 => Some(format!("CAST(CAST(… AS INT) AS {to}), the days since 1970")),
        from if can_cast_types(from, &DataType::Int64) => Some(format!("CAST(CAST(… AS BIGINT) AS {to})")),
        _ => None,
    }
}

fn sql_type(element: ElementType) -> &'static str {
    match element {
        ElementType::Float32 | ElementType::Float16 | ElementType::BFloat16 => "FLOAT",
        ElementType::Float64 => "DOUBLE",
        ElementType::Int8 => "TINYINT",
        ElementType::Int16 => "SMALLINT",
        ElementType::Int32 => "INT",
        ElementType::Int64 => "BIGINT",
        ElementType::UInt8 => "TINYINT UNSIGNED",
        ElementType::UInt16 => "SMALLINT UNSIGNED",
        ElementType::UInt32 => "INT UNSIGNED",
        ElementType::UInt64 => "BIGINT UNSIGNED",
        ElementType::Bool => "BOOLEAN",
        ElementType::String => "VARCHAR",
        ElementType::Bytes => "BYTEA",
    }
}

/// Texts, or a dictionary of them.
fn is_text(data_type: &DataType) -> bool {
    match data_type {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => true,
        DataType::Dictionary(_, values) => is_text(values),
        _ => false,
    }
}

fn is_list(data_type: &DataType) -> bool {
    matches!(data_type, DataType::List(_) | DataType::LargeList(_) | DataType::FixedSizeList(_, _))
}

/// Whether values of this type are lists, or [made lists](super::as_lists) before they are encoded.
pub(crate) fn is_list_like(data_type: &DataType) -> bool {
    is_list(data_type) || is_bytes(data_type)
}

/// The types of the elements of a list, through all its levels; `None` if it is no list. Bytes are lists of integers, and
/// structs in a list are lists of their fields.
fn innermost(data_type: &DataType) -> Option<Vec<&DataType>> {
    fn items(data_type: &DataType) -> Vec<&DataType> {
        match data_type {
            DataType::Struct(fields) => fields.iter().map(|field| field.data_type()).collect(),
            other => innermost(other).unwrap_or_else(|| vec![other]),
        }
    }
    match data_type {
        DataType::List(field) | DataType::LargeList(field) | DataType::FixedSizeList(field, _) => {
            Some(items(field.data_type()))
        }
        DataType::Null => Some(vec![data_type]),
        bytes if is_bytes(bytes) => Some(vec![&DataType::UInt8]),
        _ => None,
    }
}

/// The length of the list in `row`, and of the lists in it: of the first one at each level, which the others equal.
fn push_lengths(array: &ArrayRef, row: usize, lengths: &mut Vec<usize>) {
    let inner = match array.data_type() {
        DataType::List(_) => array.as_list::<i32>().value(row),
        DataType::LargeList(_) => array.as_list::<i64>().value(row),
        DataType::FixedSizeList(_, _) => array.as_fixed_size_list().value(row),
        _ => return,
    };
    lengths.push(inner.len());
    if !inner.is_empty() {
        push_lengths(&inner, 0, lengths);
    }
}

/// `array` as elements of a tensor; an integer that does not fit is an error.
fn convert(array: &ArrayRef, element: ElementType, argument: usize) -> Result<ArrayRef> {
    let to = element.arrow();
    if array.data_type() == &to {
        return Ok(array.clone());
    }
    let options = CastOptions { safe: false, ..Default::default() };
    cast_with_options(array, &to, &options).or_else(|cause| wrong(argument, cause.to_string()))
}

/// Columns → the rows of a matrix.
fn matrix_tensor(input: &TensorSpec, columns: &[ArrayRef], rows: usize) -> Result<Tensor> {
    let data = elements(input.element, columns, rows)?;
    let shape = match input.shape.len() {
        1 => vec![rows * columns.len()],
        _ => vec![rows, columns.len()],
    };
    Ok(Tensor { shape, data })
}

/// The elements of `columns`, row by row, in one pass over blocks of rows; a single column of the element's own type is
/// not copied.
fn elements(element: ElementType, columns: &[ArrayRef], rows: usize) -> Result<TensorData> {
    let columns = columns.iter().enumerate().map(|(i, column)| convert(column, element, i));
    let columns = columns.collect::<Result<Vec<_>>>()?;
    macro_rules! transpose {
        ($variant:ident, $arrow:ty, $missing:expr) => {
            TensorData::$variant(transpose::<$arrow>(&columns, rows, $missing))
        };
    }
    Ok(match element {
        ElementType::Float32 => transpose!(Float32, Float32Type, f32::NAN),
        ElementType::Float64 => transpose!(Float64, Float64Type, f64::NAN),
        ElementType::Float16 => transpose!(Float16, Float16Type, f16::NAN),
        ElementType::Int8 => transpose!(Int8, Int8Type, 0),
        ElementType::Int16 => transpose!(Int16, Int16Type, 0),
        ElementType::Int32 => transpose!(Int32, Int32Type, 0),
        ElementType::Int64 => transpose!(Int64, Int64Type, 0),
        ElementType::UInt8 => transpose!(UInt8, UInt8Type, 0),
        ElementType::UInt16 => transpose!(UInt16, UInt16Type, 0),
        ElementType::UInt32 => transpose!(UInt32, UInt32Type, 0),
        ElementType::UInt64 => transpose!(UInt64, UInt64Type, 0),
        ElementType::BFloat16 => {
            let floats = transpose::<Float32Type>(&columns, rows, f32::NAN);
            TensorData::BFloat16(floats.iter().map(|&value| bf16::from_f32(value)).collect())
        }
        ElementType::Bool => {
            let columns: Vec<_> = columns.iter().map(|column| column.as_boolean()).collect();
            TensorData::Bool((0..rows).flat_map(|row| columns.iter().map(move |column| column.value(row))).collect())
        }
        ElementType::Bytes => {
            let bytes = columns.iter().map(|column| column.as_binary::<i32>());
            let bytes: Vec<_> = bytes.collect();
            let cells = (0..rows).flat_map(|row| bytes.iter().map(move |column| column.value(row)));
            TensorData::Bytes(BinaryArray::from_iter_values(cells))
        }
        ElementType::String => match columns.as_slice() {
            [only] => strings(only, 0)?,
            _ => {
                let columns =
                    columns.iter().enumerate().map(|(i, column)| strings(column, i).map(|_| column.as_string::<i32>()));
                let columns = columns.collect::<Result<Vec<_>>>()?;
                let cells: Vec<_> =
                    (0..rows).flat_map(|row| columns.iter().map(move |column| column.value(row))).collect();
                TensorData::String(StringArray::from(cells))
            }
        },
    })
}

fn transpose<T: ArrowPrimitiveType>(columns: &[ArrayRef], rows: usize, missing: T::Native) -> ScalarBuffer<T::Native> {
    let columns: Vec<&PrimitiveArray<T>> = columns.iter().map(|column| column.as_primitive()).collect();
    if let [only] = columns.as_slice() {
        return without_nulls(only, missing);
    }
    let width = columns.len();
    let mut matrix = vec![T::Native::default(); rows * width];
    for (block, out) in matrix.chunks_mut(BLOCK_ROWS * width.max(1)).enumerate() {
        let start = block * BLOCK_ROWS;
        let end = start + out.len() / width;
        for (i, column) in columns.iter().enumerate() {
            let cells = out[i..].iter_mut().step_by(width);
            match column.nulls() {
                None => cells.zip(&column.values()[start..end]).for_each(|(cell, value)| *cell = *value),
                Some(nulls) => cells.enumerate().for_each(|(row, cell)| {
                    let row = start + row;
                    *cell = if nulls.is_valid(row) { column.values()[row] } else { missing };
                }),
            }
        }
    }
    matrix.into()
}

/// The values of a column, without a copy if none is NULL.
fn without_nulls<T: ArrowPrimitiveType>(column: &PrimitiveArray<T>, missing: T::Native) -> ScalarBuffer<T::Native> {
    match column.nulls() {
        None => column.values().clone(),
        Some(_) => column.iter().map(|value| value.unwrap_or(missing)).collect(),
    }
}

fn strings(column: &ArrayRef, argument: usize) -> Result<TensorData> {
    let column = column.as_string::<i32>();
    let (first, last) = (column.offsets()[0] as usize, column.offsets()[column.len()] as usize);
    if column.values()[first..last].contains(&0) {
        return wrong(argument, "a string holds a NUL character, which no model can be given");
    }
    Ok(TensorData::String(column.clone()))
}

/// A list column → a tensor; contiguous lists of the tensor's own element type are not copied.
fn list_tensor(input: &TensorSpec, column: &ArrayRef, argument: usize, rows: usize) -> Result<Tensor> {
    let (values, levels) = flatten(column, argument).map_err(|error| match input.row_elements() {
        Some(expected) => {
            let problem = format!("expected {expected} values in each row, but {}", error.problem);
            let remedy =
                if column.data_type() == &bytes_list() { "; OPTIONS (bytes 'first') cuts and pads them" } else { "" };
            ArgumentError { problem: problem + remedy, ..error }
        }
        None => error,
    })?;
    let found: usize = levels.iter().product();
    let row_shape = row_shape(input, &levels, found).or_else(|expected| {
        let found = match levels.as_slice() {
            [only] => only.to_string(),
            levels => format!("{levels:?}"),
        };
        wrong(argument, format!("expected {expected} in each row, found {found}"))
    })?;
    let count = values.len();
    let data = elements(input.element, &[values], count).map_err(|error| ArgumentError { argument, ..error })?;
    Ok(Tensor { shape: std::iter::once(rows).chain(row_shape).collect(), data })
}

/// The shape of a row with `found` elements in lists of `levels`, or the number of elements that was expected.
fn row_shape(input: &TensorSpec, levels: &[usize], found: usize) -> Result<Vec<usize>, String> {
    let declared = input.row_shape();
    let matches = |(dim, level): (&Dimension, &usize)| dim.size().is_none_or(|size| size == *level);
    if declared.len() == levels.len() && declared.iter().zip(levels).all(matches) {
        return Ok(levels.to_vec());
    }
    // An empty list does not say how long the lists in it would be.
    if found == 0 && declared.len() >= levels.len() {
        let sizes = declared.iter().enumerate();
        let sizes: Vec<_> =
            sizes.map(|(place, dim)| dim.size().unwrap_or(levels.get(place).copied().unwrap_or(0))).collect();
        if sizes.contains(&0) {
            return Ok(sizes);
        }
    }
    let fixed: usize = declared.iter().filter_map(Dimension::size).product();
    if levels.len() != 1 {
        let dims: Vec<_> = declared.iter().map(Dimension::to_string).collect();
        return Err(format!("lists of [{}]", dims.join(",")));
    }
    match declared.iter().filter(|dim| dim.size().is_none()).count() {
        0 if fixed == found => Ok(declared.iter().filter_map(Dimension::size).collect()),
        0 => Err(format!("{fixed} values")),
        1 if fixed > 0 && found.is_multiple_of(fixed) => {
            Ok(declared.iter().map(|dim| dim.size().unwrap_or(found / fixed)).collect())
        }
        _ => {
            let dims: Vec<_> = declared.iter().map(Dimension::to_string).collect();
            let open = declared.iter().enumerate().filter(|(_, dim)| dim.size().is_none());
            let open = open.map(|(place, dim)| match dim {
                Dimension::Dynamic(Some(name)) => format!("size.{name} …"),
                _ => format!("size.{}.{} …", input.name, place + 2),
            });
            let remedy = open.collect::<Vec<_>>().join(", ");
            Err(format!("lists of [{}] (flat lists fit with OPTIONS ({remedy}))", dims.join(",")))
        }
    }
}

/// The type of bytes that were made lists.
fn bytes_list() -> DataType {
    DataType::List(Arc::new(Field::new_list_field(DataType::UInt8, true)))
}

/// The elements of a list column and the length of its lists at each level, which must be the same for all rows.
fn flatten(column: &ArrayRef, argument: usize) -> Result<(ArrayRef, Vec<usize>)> {
    fn level<O: OffsetSizeTrait>(list: &GenericListArray<O>, argument: usize) -> Result<(ArrayRef, usize)> {
        let offsets = list.offsets();
        let mut lengths = offsets.lengths();
        let length = lengths.next().unwrap_or(0);
        if let Some(other) = lengths.find(|other| *other != length) {
            return wrong(argument, format!("its lists have {length} and {other} values"));
        }
        let (start, end) = (offsets[0].as_usize(), offsets[list.len()].as_usize());
        Ok((list.values().slice(start, end - start), length))
    }
    let (mut values, mut levels) = (column.clone(), vec![]);
    loop {
        let (inner, length) = match values.data_type() {
            DataType::List(_) => level(values.as_list::<i32>(), argument)?,
            DataType::LargeList(_) => level(values.as_list::<i64>(), argument)?,
            DataType::FixedSizeList(_, size) => {
                let list = values.as_fixed_size_list();
                let length = *size as usize;
                let start = if list.is_empty() { 0 } else { list.value_offset(0) as usize };
                (list.values().slice(start, list.len() * length), length)
            }
            _ => return Ok((values, levels)),
        };
        levels.push(length);
        values = inner;
    }
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::array::{FixedSizeListArray, Float32Array, Float64Array, Int32Array};

    use super::*;

    fn matrix(element: ElementType, width: usize) -> InputEncoder {
        let shape = vec![Dimension::Dynamic(None), Dimension::Fixed(width)];
        InputEncoder::new(vec![TensorSpec { name: "x".into(), element, shape }])
    }

    #[test]
    fn columns_become_rows_across_blocks() {
        let rows = BLOCK_ROWS + 3;
        let a: ArrayRef = Arc::new((0..rows).map(|i| Some(i as f64)).collect::<Float64Array>());
        let b: ArrayRef = Arc::new((0..rows).map(|i| (i != 1).then_some(-(i as i32))).collect::<Int32Array>());
        let tensors = matrix(ElementType::Float32, 2).encode(&[a, b], rows).expect("both are numbers");
        let TensorData::Float32(data) = &tensors[0].data else { panic!("{:?}", tensors[0].data.element()) };
        assert_eq!(tensors[0].shape, [rows, 2]);
        assert!(data[3].is_nan(), "NULL becomes NaN");
        for row in (0..rows).filter(|&row| row != 1) {
            assert_eq!(data[2 * row..2 * row + 2], [row as f32, -(row as f32)]);
        }
    }

    #[test]
    fn a_contiguous_list_is_not_copied() {
        let values = Arc::new(Float32Array::from_iter_values((0..12).map(|i| i as f32)));
        let address = values.values().as_ptr();
        let item = Arc::new(Field::new("item", DataType::Float32, true));
        let list: ArrayRef = Arc::new(FixedSizeListArray::new(item, 3, values, None));
        let tensors = matrix(ElementType::Float32, 3).encode(&[list.slice(1, 2)], 2).expect("a list of 3");
        let TensorData::Float32(data) = &tensors[0].data else { panic!("{:?}", tensors[0].data.element()) };
        assert_eq!(data.as_ptr(), address.wrapping_add(3));
        assert_eq!(data.len(), 6);
    }

    #[test]
    fn an_integer_that_does_not_fit_is_an_error() {
        let a: ArrayRef = Arc::new(Int32Array::from(vec![1, 300]));
        let error = matrix(ElementType::Int8, 1).encode(&[a], 2).expect_err("300 is no int8");
        assert_eq!(error.argument, 0);
        assert!(error.problem.contains("300"), "{}", error.problem);
    }
}
