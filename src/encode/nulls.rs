//! Rows that are not given to the model because a feature is NULL.

use datafusion::arrow::array::{Array, ArrayRef, AsArray, GenericListArray, OffsetSizeTrait, UInt32Array, UInt64Array};
use datafusion::arrow::buffer::{BooleanBuffer, NullBuffer};
use datafusion::arrow::compute::take;
use datafusion::arrow::datatypes::DataType;
use datafusion::arrow::error::ArrowError;

/// The positions of the rows that no column rules out by its `nulls`; `None` if that is all of them.
pub(crate) fn rows_without_nulls(
    columns: &[ArrayRef],
    nulls: impl Fn(usize, &ArrayRef) -> Option<NullBuffer>,
) -> Option<UInt64Array> {
    let mut valid: Option<NullBuffer> = None;
    for (i, column) in columns.iter().enumerate() {
        valid = NullBuffer::union(valid.as_ref(), nulls(i, column).as_ref());
    }
    let valid = valid.filter(|valid| valid.null_count() > 0)?;
    Some(UInt64Array::from_iter_values(valid.valid_indices().map(|i| i as u64)))
}

/// Rows that hold a NULL, in the column or within its lists.
pub(crate) fn row_nulls(array: &ArrayRef) -> Option<NullBuffer> {
    nulls_in_rows(array, true)
}

/// Rows that hold NULL in place of a list, at any level; NULL among the innermost values does not count.
pub(crate) fn list_nulls(array: &ArrayRef) -> Option<NullBuffer> {
    nulls_in_rows(array, false)
}

fn nulls_in_rows(array: &ArrayRef, values: bool) -> Option<NullBuffer> {
    fn within<O: OffsetSizeTrait>(list: &GenericListArray<O>, values: bool) -> Option<NullBuffer> {
        let inner = nulls_of_items(list.values(), values)?;
        let offsets = list.offsets();
        let whole = offsets.windows(2).map(|row| {
            let (start, end) = (row[0].as_usize(), row[1].as_usize());
            inner.slice(start, end - start).null_count() == 0
        });
        Some(NullBuffer::new(BooleanBuffer::from_iter(whole)))
    }
    let inner = match array.data_type() {
        DataType::List(_) => within(array.as_list::<i32>(), values),
        DataType::LargeList(_) => within(array.as_list::<i64>(), values),
        DataType::FixedSizeList(_, size) => {
            let (list, size) = (array.as_fixed_size_list(), *size as usize);
            nulls_of_items(list.values(), values).map(|inner| {
                let start = list.value_offset(0) as usize;
                let whole = (0..list.len()).map(|row| inner.slice(start + row * size, size).null_count() == 0);
                NullBuffer::new(BooleanBuffer::from_iter(whole))
            })
        }
        _ => None,
    };
    NullBuffer::union(array.logical_nulls().as_ref(), inner.as_ref()).filter(|nulls| nulls.null_count() > 0)
}

/// As [`nulls_in_rows`] for what stands in lists, where `values` says whether values count.
fn nulls_of_items(items: &ArrayRef, values: bool) -> Option<NullBuffer> {
    if values || items.data_type().is_list() { nulls_in_rows(items, values) } else { None }
}

/// `scores` of the rows at `positions`, spread over `rows` rows; the others are NULL.
pub(crate) fn scatter(scores: &ArrayRef, positions: &UInt64Array, rows: usize) -> Result<ArrayRef, ArrowError> {
    let mut indices = vec![None; rows];
    for (from, to) in positions.values().iter().enumerate() {
        indices[*to as usize] = Some(from as u32);
    }
    take(scores, &UInt32Array::from(indices), None)
}
