//! Bytes and structs as lists, which are what tensors are made of.

use std::sync::Arc;

use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, FixedSizeListArray, GenericBinaryArray, GenericListArray, ListArray, OffsetSizeTrait,
    UInt8Array, UInt16Array, UInt32Array,
};
use datafusion::arrow::buffer::{OffsetBuffer, ScalarBuffer};
use datafusion::arrow::compute::{CastOptions, cast, cast_with_options, interleave};
use datafusion::arrow::datatypes::{DataType, Field};
use datafusion::arrow::error::ArrowError;

use super::BytesTaken;

/// Whether values of this type are bytes.
pub(super) fn is_bytes(data_type: &DataType) -> bool {
    use DataType::{Binary, BinaryView, FixedSizeBinary, LargeBinary};
    matches!(data_type, Binary | LargeBinary | BinaryView | FixedSizeBinary(_))
}

/// How bytes are brought to the number that a model takes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BytesFit {
    /// The number, if it is always the same.
    pub length: Option<usize>,
    /// Which bytes of longer values; `None` leaves all as they are.
    pub taken: Option<BytesTaken>,
    /// What stands for bytes that are missing.
    pub pad: u32,
}

/// `array` with lists in place of bytes, and of structs within lists; the same if there are none.
///
/// A list of structs of k numbers becomes a list of lists of k numbers, in the fields' order.
pub(crate) fn as_lists(array: &ArrayRef, fit: BytesFit) -> Result<ArrayRef, ArrowError> {
    match (array.data_type(), fit) {
        (DataType::Binary, BytesFit { length: Some(length), taken: Some(taken), pad }) => {
            fitted(array.as_binary::<i32>(), length, taken, pad)
        }
        (DataType::Binary, _) => Ok(bytes_as_list(array.as_binary::<i32>())),
        (bytes, _) if is_bytes(bytes) => as_lists(&cast(array, &DataType::Binary)?, fit),
        (DataType::List(_), _) => items_as_lists(array.as_list::<i32>(), array),
        (DataType::LargeList(_), _) => items_as_lists(array.as_list::<i64>(), array),
        (DataType::FixedSizeList(_, size), _) => {
            let list = array.as_fixed_size_list();
            Ok(match item_as_list(list.values())? {
                Some(values) => {
                    let field = Arc::new(Field::new_list_field(values.data_type().clone(), true));
                    Arc::new(FixedSizeListArray::try_new(field, *size, values, list.nulls().cloned())?)
                }
                None => array.clone(),
            })
        }
        _ => Ok(array.clone()),
    }
}

/// The bytes as lists, which are not copied.
fn bytes_as_list(bytes: &GenericBinaryArray<i32>) -> ArrayRef {
    let values = UInt8Array::new(ScalarBuffer::from(bytes.values().clone()), None);
    let field = Arc::new(Field::new_list_field(DataType::UInt8, true));
    Arc::new(ListArray::new(field, bytes.offsets().clone(), Arc::new(values), bytes.nulls().cloned()))
}

/// `length` numbers for each value, NULL where that is NULL.
fn fitted(bytes: &GenericBinaryArray<i32>, length: usize, taken: BytesTaken, pad: u32) -> Result<ArrayRef, ArrowError> {
    let count = length.checked_mul(bytes.len()).filter(|count| i32::try_from(*count).is_ok());
    if count.is_none() {
        let problem =
            format!("{} rows of {length} bytes are too many for one run: use a smaller batch_size", bytes.len());
        return Err(ArrowError::InvalidArgumentError(problem));
    }
    let mut places = vec![pad; length * bytes.len()];
    let put = |places: &mut [u32], bytes: &[u8]| {
        places.iter_mut().zip(bytes).for_each(|(place, byte)| *place = u32::from(*byte))
    };
    let put_last = |places: &mut [u32], bytes: &[u8]| {
        places.iter_mut().rev().zip(bytes.iter().rev()).for_each(|(place, byte)| *place = u32::from(*byte));
    };
    for (row, places) in places.chunks_mut(length.max(1)).enumerate() {
        let value = bytes.value(row); // empty where it is NULL, or not looked at
        match taken {
            BytesTaken::First => put(places, value),
            BytesTaken::Last => put_last(places, value),
            BytesTaken::Ends => {
                let (first, last) = places.split_at_mut(length.div_ceil(2));
                put(first, value);
                put_last(last, value);
            }
        }
    }
    let values: ArrayRef = match u16::try_from(pad) {
        Ok(_) => Arc::new(UInt16Array::from_iter_values(places.into_iter().map(|place| place as u16))),
        Err(_) => Arc::new(UInt32Array::from(places)),
    };
    let field = Arc::new(Field::new_list_field(values.data_type().clone(), true));
    let offsets = OffsetBuffer::from_repeated_length(length, bytes.len());
    Ok(Arc::new(ListArray::try_new(field, offsets, values, bytes.nulls().cloned())?))
}

fn items_as_lists<O: OffsetSizeTrait>(list: &GenericListArray<O>, array: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    let Some(values) = item_as_list(list.values())? else { return Ok(array.clone()) };
    let field = Arc::new(Field::new_list_field(values.data_type().clone(), true));
    Ok(Arc::new(GenericListArray::try_new(field, list.offsets().clone(), values, list.nulls().cloned())?))
}

/// The items of a list, if they are structs or hold them, with lists in their place.
fn item_as_list(items: &ArrayRef) -> Result<Option<ArrayRef>, ArrowError> {
    if let Some(structs) = items.as_struct_opt() {
        let columns = structs.columns();
        let Some(first) = columns.first() else { return Ok(None) };
        // Numbers of several types meet in one that holds all of them, and so do texts.
        let all = |is: fn(&DataType) -> bool| columns.iter().all(|column| is(column.data_type()));
        let common = match first.data_type() {
            same if columns.iter().all(|column| column.data_type() == same) => same.clone(),
            _ if all(DataType::is_string) => DataType::Utf8,
            _ if all(DataType::is_integer) => DataType::Int64,
            _ => DataType::Float64,
        };
        let options = CastOptions { safe: false, ..Default::default() };
        let columns = columns.iter().map(|column| cast_with_options(column, &common, &options));
        let columns = columns.collect::<Result<Vec<_>, _>>()?;
        let columns: Vec<&dyn Array> = columns.iter().map(AsRef::as_ref).collect();
        let places = (0..structs.len()).flat_map(|row| (0..columns.len()).map(move |column| (column, row)));
        let values = interleave(&columns, &places.collect::<Vec<_>>())?;
        let field = Arc::new(Field::new_list_field(common, true));
        let size = columns.len() as i32;
        return Ok(Some(Arc::new(FixedSizeListArray::try_new(field, size, values, structs.nulls().cloned())?)));
    }
    let fit = BytesFit { length: None, taken: None, pad: 0 };
    let is_nested = items.data_type().is_nested() || is_bytes(items.data_type());
    if is_nested { as_lists(items, fit).map(Some) } else { Ok(None) }
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::array::{BinaryArray, Float32Array, Int32Array, StructArray};

    use super::*;

    fn numbers(list: &ArrayRef, row: usize) -> Vec<u32> {
        let values = cast(&list.as_list::<i32>().value(row), &DataType::UInt32).expect("numbers");
        values.as_primitive::<datafusion::arrow::datatypes::UInt32Type>().values().to_vec()
    }

    #[test]
    fn bytes_are_cut_and_padded_to_the_size_that_is_asked_for() {
        let bytes: ArrayRef = Arc::new(BinaryArray::from(vec![Some(&b"abcdef"[..]), Some(b"x"), None]));
        for (taken, long, short) in [
            (BytesTaken::First, [97, 98, 99, 100], [120, 256, 256, 256]),
            (BytesTaken::Last, [99, 100, 101, 102], [256, 256, 256, 120]),
            (BytesTaken::Ends, [97, 98, 101, 102], [120, 256, 256, 120]),
        ] {
            let lists = as_lists(&bytes, BytesFit { length: Some(4), taken: Some(taken), pad: 256 }).expect("lists");
            assert_eq!(numbers(&lists, 0), long, "{taken}");
            assert_eq!(numbers(&lists, 1), short, "{taken}");
            assert!(lists.is_null(2));
        }
        let whole = as_lists(&bytes.slice(1, 2), BytesFit { length: Some(4), taken: None, pad: 0 }).expect("lists");
        assert_eq!(numbers(&whole, 0), [120]);
        assert!(whole.is_null(1));
    }

    #[test]
    fn structs_in_lists_are_lists_of_their_fields() {
        let price: ArrayRef = Arc::new(Float32Array::from(vec![1.5, 2.5, 3.5]));
        let count: ArrayRef = Arc::new(Int32Array::from(vec![1, 2, 3]));
        let fields = vec![Field::new("price", DataType::Float32, true), Field::new("count", DataType::Int32, true)];
        let structs: ArrayRef = Arc::new(StructArray::new(fields.into(), vec![price, count], None));
        let field = Arc::new(Field::new_list_field(structs.data_type().clone(), true));
        let lists: ArrayRef = Arc::new(ListArray::new(field, OffsetBuffer::from_lengths([2, 1]), structs, None));
        let lists = as_lists(&lists, BytesFit { length: None, taken: None, pad: 0 }).expect("lists of lists");
        let first = lists.as_list::<i32>().value(0);
        let values = first.as_fixed_size_list().value(1);
        let values = values.as_primitive::<datafusion::arrow::datatypes::Float64Type>().values().to_vec();
        assert_eq!(values, [2.5, 2.0]);
    }
}
