//! Rows that can't be scored, found by bisection.

use datafusion::arrow::array::{ArrayRef, new_null_array};
use datafusion::arrow::compute::concat;

use super::batch::Batch;
use super::reasons::Failures;
use super::score::Scorer;
use crate::error::{Error, ErrorKind, Result};

impl Scorer<'_> {
    /// As [`score_rows`](Self::score_rows), with NULL for the rows at fault, found by bisection; and these rows with their
    /// errors.
    ///
    /// # Errors
    /// An engine that fails on whatever it is given: that is no row's fault.
    pub(super) fn score_what_can_be(&mut self, batch: &Batch) -> Result<(ArrayRef, Failures)> {
        let mut failures = vec![];
        let error = match self.score_rows(batch) {
            Ok(scores) => return Ok((scores, failures)),
            Err(error) if !may_be_the_rows(&error) => return Err(error),
            Err(error) => error,
        };
        if !matches!(error.kind(), ErrorKind::UnscorableRow) && !self.predictor.is_healthy(self.context) {
            return Err(error);
        }
        let scores = self.bisect(batch, 0, &mut failures)?;
        // An engine that broke meanwhile is no row's fault.
        if !self.predictor.is_healthy(self.context) {
            return Err(error);
        }
        self.stats.rows_failed += failures.len();
        Ok((scores, failures))
    }

    /// The rows of `batch`, of which the first is the row `first` of all.
    fn bisect(&mut self, batch: &Batch, first: usize, failures: &mut Failures) -> Result<ArrayRef> {
        if batch.rows == 1 {
            return match self.score_rows(batch) {
                Err(error) if may_be_the_rows(&error) => {
                    failures.push((first, error));
                    Ok(new_null_array(self.predictor.call.returns(), 1))
                }
                other => other,
            };
        }
        let half = batch.rows / 2;
        let halves = [(0, half), (half, batch.rows - half)].map(|(start, count)| {
            let half = batch.slice(start, count);
            match self.score_rows(&half) {
                Err(error) if may_be_the_rows(&error) => self.bisect(&half, first + start, failures),
                other => other,
            }
        });
        let [left, right] = halves;
        self.predictor.in_arrow(concat(&[left?.as_ref(), right?.as_ref()]))
    }
}

/// Whether other rows might be scored where these failed.
fn may_be_the_rows(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::UnscorableRow | ErrorKind::EngineFailed)
}
