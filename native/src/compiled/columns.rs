//! Columns as a program reads them: out of Arrow arrays and out of tensors.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::buffer::ScalarBuffer;
use arrow::datatypes::{
    ArrowNativeType, ArrowPrimitiveType, DataType, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type,
    UInt8Type, UInt16Type, UInt32Type,
};
use multiversion::multiversion;

use crate::program::{Dictionary, InputColumn, Kind, Slice, TextTable};
use crate::tensor::{ElementType, Tensor, TensorData};

/// A column of a batch, as the program reads it.
pub(super) enum Column {
    F32(ScalarBuffer<f32>),
    F64(ScalarBuffer<f64>),
    I64(ScalarBuffer<i64>),
}

impl Column {
    /// Itself, if it is what the program reads.
    pub(super) fn of_kind(self, column: &InputColumn) -> Result<Self, String> {
        let kind = match self {
            Self::F32(_) => Kind::F32,
            Self::F64(_) => Kind::F64,
            Self::I64(_) => Kind::I64,
        };
        if kind == column.kind { Ok(self) } else { Err(format!("a column of {kind:?}, expected {:?}", column.kind)) }
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::F32(values) => values.len(),
            Self::F64(values) => values.len(),
            Self::I64(values) => values.len(),
        }
    }

    pub(super) fn slice(&self, start: usize, count: usize) -> Slice<'_> {
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
///
/// # Errors
/// A column of another type, and NULL in one that is not of floats.
pub(super) fn array_column(
    array: &ArrayRef,
    column: &InputColumn,
    element: ElementType,
    dictionary: &mut Dictionary,
) -> Result<Column, String> {
    let expected = element.arrow();
    if column.lookup.is_none() && *array.data_type() != expected {
        return Err(format!("a column of {}, expected {expected}", array.data_type()));
    }
    if !element.is_float() && array.logical_null_count() > 0 {
        return Err(format!("a column of {} holds NULL", array.data_type()));
    }
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

/// The code at each key. A key beyond them can only be that of a NULL, of which there are none.
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

/// A column of a tensor.
pub(super) fn tensor_column(tensor: &Tensor, column: &InputColumn, element: ElementType) -> Result<Column, String> {
    if tensor.data.element() != element {
        return Err(format!("a tensor of {}, expected {element}", tensor.data.element()));
    }
    let rows = tensor.rows();
    let sizes = tensor.shape.get(1..).unwrap_or_default();
    let width = sizes.iter().try_fold(1usize, |width, size| width.checked_mul(*size)).unwrap_or(usize::MAX);
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

/// An element of a matrix, or of the rows of an input, as a text.
pub(super) fn cell_of_tensor(tensor: &Tensor, column: usize, row: usize) -> Option<String> {
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
        TensorData::Float16(_) | TensorData::BFloat16(_) | TensorData::Bytes(_) => None,
    }
}
