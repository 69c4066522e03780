//! Rows that are not given to the model because a feature is NULL.

use datafusion::arrow::array::{ArrayRef, UInt32Array, UInt64Array};
use datafusion::arrow::buffer::NullBuffer;
use datafusion::arrow::compute::take;
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

/// `scores` of the rows at `positions`, spread over `rows` rows; the others are NULL.
pub(crate) fn scatter(scores: &ArrayRef, positions: &UInt64Array, rows: usize) -> Result<ArrayRef, ArrowError> {
    let mut indices = vec![None; rows];
    for (from, to) in positions.values().iter().enumerate() {
        indices[*to as usize] = Some(from as u32);
    }
    take(scores, &UInt32Array::from(indices), None)
}
