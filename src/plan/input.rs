//! The input of a prediction, in batches worth scoring.

use std::collections::VecDeque;

use datafusion::arrow::array::RecordBatch;
use datafusion::common::Result;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::coalesce::LimitedBatchCoalescer;
use futures::StreamExt;

/// Brings small batches together, in order; large ones pass without a copy.
pub(super) struct InputBatches {
    /// `None` at its end.
    input: Option<SendableRecordBatchStream>,
    coalescer: LimitedBatchCoalescer,
    /// Batches of at least this many rows pass.
    large: usize,
    ready: VecDeque<RecordBatch>,
}

impl InputBatches {
    /// Batches of `input`, those of less than half of `rows` rows brought together to as many.
    pub(super) fn new(input: SendableRecordBatchStream, rows: usize) -> Self {
        let rows = rows.max(1);
        Self {
            coalescer: LimitedBatchCoalescer::new(input.schema(), rows, None),
            large: rows.div_ceil(2),
            input: Some(input),
            ready: VecDeque::new(),
        }
    }

    /// Another number of rows from here on, where none wait to be brought together.
    pub(super) fn aim_at(&mut self, rows: usize) {
        let rows = rows.max(1);
        if rows.div_ceil(2) != self.large
            && self.coalescer.is_empty()
            && let Some(input) = &self.input
        {
            self.coalescer = LimitedBatchCoalescer::new(input.schema(), rows, None);
            self.large = rows.div_ceil(2);
        }
    }

    /// The next batch; `None` at the end. Dropping the future loses nothing.
    pub(super) async fn next(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            while let Some(batch) = self.coalescer.next_completed_batch() {
                self.ready.push_back(batch);
            }
            if let Some(batch) = self.ready.pop_front() {
                return Ok(Some(batch));
            }
            let Some(input) = &mut self.input else {
                return Ok(None);
            };
            match input.next().await.transpose()? {
                // A large batch needs no copy, unless smaller ones wait before it.
                Some(batch) if batch.num_rows() >= self.large && self.coalescer.is_empty() => {
                    self.ready.push_back(batch)
                }
                Some(batch) => {
                    self.coalescer.push_batch(batch)?;
                }
                None => {
                    self.input = None;
                    self.coalescer.finish()?;
                }
            }
        }
    }
}
