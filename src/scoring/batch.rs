//! Rows to be scored.

use datafusion::arrow::array::{ArrayRef, UInt64Array};
use datafusion::arrow::compute::take;
use datafusion::arrow::error::ArrowError;

/// The arguments of a call for some rows.
///
/// The number of rows stands beside them: a call may have no arguments.
#[derive(Debug, Clone)]
pub(super) struct Batch {
    pub arguments: Vec<ArrayRef>,
    pub rows: usize,
}

impl Batch {
    /// `count` rows from `start` on, without a copy.
    pub(super) fn slice(&self, start: usize, count: usize) -> Self {
        Self { arguments: self.arguments.iter().map(|argument| argument.slice(start, count)).collect(), rows: count }
    }

    /// A copy of the rows at `positions`.
    pub(super) fn at(&self, positions: &UInt64Array) -> Result<Self, ArrowError> {
        let arguments = self.arguments.iter().map(|argument| take(argument, positions, None));
        Ok(Self { arguments: arguments.collect::<Result<_, _>>()?, rows: positions.len() })
    }
}
