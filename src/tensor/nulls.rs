//! Rows that are not given to the model because a feature is NULL.

use datafusion::arrow::array::{ArrayRef, UInt32Array, UInt64Array};
use datafusion::arrow::buffer::NullBuffer;
use datafusion::arrow::compute::take;
use datafusion::arrow::error::ArrowError;

use super::encode::row_nulls;

/// The positions of the rows in which no column that `counts` is NULL; `None` if that is all of them.
pub(crate) fn rows_without_nulls(
    columns: &[ArrayRef],
    rows: usize,
    counts: impl Fn(usize) -> bool,
) -> Option<UInt64Array> {
    let mut valid: Option<NullBuffer> = None;
    for (_, column) in columns.iter().enumerate().filter(|(i, _)| counts(*i)) {
        valid = NullBuffer::union(valid.as_ref(), row_nulls(column).as_ref());
    }
    let valid = valid.filter(|valid| valid.null_count() > 0)?;
    debug_assert_eq!(valid.len(), rows);
    Some(valid.valid_indices().map(|i| i as u64).collect())
}

/// `scores` of the rows at `positions`, spread over `rows` rows; the others are NULL.
pub(crate) fn scatter(scores: &ArrayRef, positions: &UInt64Array, rows: usize) -> Result<ArrayRef, ArrowError> {
    let mut indices = vec![None; rows];
    for (from, to) in positions.values().iter().enumerate() {
        indices[*to as usize] = Some(from as u32);
    }
    take(scores, &UInt32Array::from(indices), None)
}
