//! Predictions beside the reasons why some are missing.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, StringArray, StructArray};
use datafusion::arrow::datatypes::{DataType, Field};
use datafusion_predict_udfs::OUTCOME;

use crate::error::Error;

/// Rows that can't be scored, in order, each with the reason.
pub(super) type Failures = Vec<(usize, Error)>;

/// Predictions beside the reasons why some are missing.
pub(super) fn with_reasons(scores: ArrayRef, failures: Failures) -> ArrayRef {
    let mut failures = failures.into_iter().peekable();
    let reasons = (0..scores.len()).map(|row| {
        let (_, error) = failures.next_if(|(failed, _)| *failed == row)?;
        Some(error.to_string())
    });
    let reasons: ArrayRef = Arc::new(reasons.collect::<StringArray>());
    let [prediction, error] = OUTCOME;
    let fields =
        vec![Field::new(prediction, scores.data_type().clone(), true), Field::new(error, DataType::Utf8, true)];
    Arc::new(StructArray::new(fields.into(), vec![scores, reasons], None))
}
