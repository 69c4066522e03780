//! Arrow columns → tensors.

use std::collections::BTreeMap;

use datafusion::arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, GenericListArray, OffsetSizeTrait, PrimitiveArray, StringArray,
    UInt64Array,
};
use datafusion::arrow::buffer::ScalarBuffer;
use datafusion::arrow::compute::{CastOptions, can_cast_types, cast_with_options};
use datafusion::arrow::datatypes::{
    DataType, Float16Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type,
    UInt32Type, UInt64Type,
};
use datafusion_predict_native::{Dimension, ElementType, Tensor, TensorData, TensorSpec};
use half::{bf16, f16};

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
/// - One input `[N]`, `[N,1]` or `[N,F]`: one argument for each of the F columns, or one list column.
/// - Any other: one argument for each input; a list, nested or flat, where a row has several elements.
#[derive(Debug, Clone)]
pub(crate) struct InputEncoder {
    inputs: Vec<TensorSpec>,
}

impl InputEncoder {
    pub(crate) fn new(inputs: Vec<TensorSpec>) -> Self {
        Self { inputs }
    }

    /// The input, if it is a matrix whose columns are arguments of their own.
    pub(crate) fn matrix(&self) -> Option<&TensorSpec> {
        match self.inputs.as_slice() {
            [input] if input.shape.len() <= 2 => Some(input),
            _ => None,
        }
    }

    /// The number of features, if it is always the same.
    pub(crate) fn width(&self) -> Option<usize> {
        match self.matrix() {
            Some(matrix) => matrix.row_elements(),
            None => Some(self.inputs.len()),
        }
    }

    /// Whether the arguments are one list column that holds a matrix' rows.
    fn is_list_of_features(&self, types: &[&DataType]) -> bool {
        self.matrix().is_some() && matches!(types, [only] if is_list(only))
    }

    /// Whether a NULL in this argument can be given to the model, as NaN.
    pub(crate) fn has_nan(&self, argument: usize) -> bool {
        let input = if self.matrix().is_some() { self.inputs.first() } else { self.inputs.get(argument) };
        input.is_some_and(|input| input.element.is_float())
    }

    /// Whether this argument is a text, or a list of them.
    pub(crate) fn is_text(&self, argument: usize) -> bool {
        let input = if self.matrix().is_some() { self.inputs.first() } else { self.inputs.get(argument) };
        input.is_some_and(|input| input.element == ElementType::String)
    }

    /// Checks the arguments' types; their number has been checked against [`width`](Self::width).
    pub(crate) fn check(&self, types: &[DataType]) -> Result<()> {
        let all: Vec<_> = types.iter().collect();
        let as_list = self.is_list_of_features(&all);
        for (argument, found) in types.iter().enumerate() {
            let input = if self.matrix().is_some() { &self.inputs[0] } else { &self.inputs[argument] };
            let takes_list = as_list || (self.matrix().is_none() && input.row_elements() != Some(1));
            let expected = if takes_list {
                format!("a list of {}", input.element.arrow())
            } else {
                input.element.arrow().to_string()
            };
            let inner = if takes_list { innermost(found) } else { Some(found) };
            match inner {
                Some(inner) if input.element.accepts(inner) => {}
                Some(inner) if is_list(inner) => return wrong(argument, format!("expected {expected}, found {found}")),
                Some(inner) => {
                    let hint = cast_hint(inner, input.element).map(|hint| format!(": convert it with {hint}"));
                    return wrong(argument, format!("expected {expected}, found {found}{}", hint.unwrap_or_default()));
                }
                None => return wrong(argument, format!("expected {expected}, found {found}")),
            }
        }
        Ok(())
    }

    /// Whether this argument, of `arguments`, is a list.
    pub(crate) fn takes_list(&self, argument: usize, arguments: &[ArrayRef]) -> bool {
        match self.matrix() {
            Some(_) => is_list(arguments[argument].data_type()),
            None => self.inputs[argument].row_elements() != Some(1),
        }
    }

    /// Groups of rows whose lists have the same lengths, if there are several such groups: a tensor's rows are equally
    /// long.
    pub(crate) fn ragged_groups(&self, arguments: &[ArrayRef], rows: usize) -> Option<Vec<UInt64Array>> {
        let mut groups: BTreeMap<Vec<usize>, Vec<u64>> = BTreeMap::new();
        for row in 0..rows {
            let mut lengths = vec![];
            arguments.iter().for_each(|argument| push_lengths(argument, row, &mut lengths));
            groups.entry(lengths).or_default().push(row as u64);
        }
        (groups.len() > 1).then(|| groups.into_values().map(UInt64Array::from).collect())
    }

    /// The arguments as the columns of each input, for an engine that reads them where they lie; `None` if a list is
    /// among them. A column of another type than its input's elements is converted; texts stay as they are.
    pub(crate) fn columns(&self, arguments: &[ArrayRef]) -> Option<Result<Vec<Vec<ArrayRef>>>> {
        if arguments.iter().any(|argument| is_list(argument.data_type())) {
            return None;
        }
        let column = |(argument, array): (usize, &ArrayRef)| {
            let input = if self.matrix().is_some() { &self.inputs[0] } else { &self.inputs[argument] };
            match input.element {
                ElementType::String if !is_text(array.data_type()) => convert(array, input.element, argument),
                ElementType::String => Ok(array.clone()),
                element => convert(array, element, argument),
            }
        };
        let columns: Result<Vec<_>> = arguments.iter().enumerate().map(column).collect();
        Some(columns.map(|columns| match self.matrix() {
            Some(_) => vec![columns],
            None => columns.into_iter().map(|column| vec![column]).collect(),
        }))
    }

    /// The inputs for `rows` rows. NULL among floats becomes NaN; elsewhere the caller has left such rows out.
    pub(crate) fn encode(&self, arguments: &[ArrayRef], rows: usize) -> Result<Vec<Tensor>> {
        let types: Vec<_> = arguments.iter().map(|argument| argument.data_type()).collect();
        if self.is_list_of_features(&types) {
            return Ok(vec![list_tensor(&self.inputs[0], &arguments[0], 0, rows)?]);
        }
        if let Some(matrix) = self.matrix() {
            return Ok(vec![matrix_tensor(matrix, arguments, rows)?]);
        }
        let inputs = self.inputs.iter().zip(arguments).enumerate();
        inputs
            .map(|(argument, (input, array))| match is_list(array.data_type()) {
                true => list_tensor(input, array, argument, rows),
                false => {
                    let mut tensor = matrix_tensor(input, std::slice::from_ref(array), rows)
                        .map_err(|error| ArgumentError { argument, ..error })?;
                    tensor.shape = std::iter::once(rows).chain(vec![1; input.row_shape().len()]).collect();
                    Ok(tensor)
                }
            })
            .collect()
    }
}

/// The SQL that makes an element of a value that is not taken for one, if there is any.
fn cast_hint(from: &DataType, element: ElementType) -> Option<String> {
    let to = sql_type(element);
    match from {
        from if from.is_nested() => None,
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

/// The type of the elements of a list, through all its levels; `None` if it is no list.
fn innermost(data_type: &DataType) -> Option<&DataType> {
    match data_type {
        DataType::List(field) | DataType::LargeList(field) | DataType::FixedSizeList(field, _) => {
            Some(innermost(field.data_type()).unwrap_or(field.data_type()))
        }
        DataType::Null => Some(data_type),
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
    let (values, levels) = flatten(column, argument)?;
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
            Err(format!("lists of [{}]", dims.join(",")))
        }
    }
}

/// The elements of a list column and the length of its lists at each level, which must be the same for all rows.
fn flatten(column: &ArrayRef, argument: usize) -> Result<(ArrayRef, Vec<usize>)> {
    fn level<O: OffsetSizeTrait>(list: &GenericListArray<O>, argument: usize) -> Result<(ArrayRef, usize)> {
        let offsets = list.offsets();
        let mut lengths = offsets.lengths();
        let length = lengths.next().unwrap_or(0);
        if let Some(other) = lengths.find(|other| *other != length) {
            return wrong(argument, format!("its lists have {length} and {other} values, expected equally many"));
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
    use std::sync::Arc;

    use datafusion::arrow::array::{FixedSizeListArray, Float32Array, Float64Array, Int32Array};
    use datafusion::arrow::datatypes::Field;

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
