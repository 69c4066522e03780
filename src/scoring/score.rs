//! Scores the rows of a query, batch by batch.

use std::sync::Arc;
use std::time::{Duration, Instant};

use datafusion::arrow::array::{ArrayRef, UInt32Array, UInt64Array, new_empty_array, new_null_array};
use datafusion::arrow::compute::{concat, take};
use datafusion::arrow::error::ArrowError;
use datafusion_predict_udfs::OnFailure;

use super::batch::Batch;
use super::reasons::with_reasons;
use super::{BatchSize, Predictor};
use crate::call::NullPolicy;
use crate::encode::{
    BytesFit, as_lists, is_list_like, list_nulls, row_nulls, rows_without_nulls, scatter, with_missing_text,
};
use crate::engine::{RunContext, TextCounts};
use crate::error::{Result, error};
use crate::remembered::Remembered;

/// What scoring some rows took.
#[derive(Debug, Default, Clone)]
pub(crate) struct ScoreStats {
    /// Rows that were given to the model.
    pub rows: usize,
    /// Runs of the model.
    pub batches: usize,
    /// Rows that could not be scored, and have NULL.
    pub rows_failed: usize,
    /// Time for free cores to come, and for the device.
    pub wait: Duration,
    /// Time that the model's device had nothing to do.
    pub idle: Duration,
    /// Time from Arrow to tensors.
    pub encode: Duration,
    /// Time in the engine.
    pub run: Duration,
    /// Time from tensors to Arrow.
    pub decode: Duration,
    /// What a model of texts has counted.
    pub texts: TextCounts,
    /// Rows that were not given to the model, since it had scored them before.
    pub remembered: usize,
}

/// A query's use of a model: what all of its runs share.
pub(crate) struct Scorer<'a> {
    pub(super) predictor: &'a Predictor,
    pub(super) context: &'a RunContext,
    on_failure: OnFailure,
    /// What the model has scored before.
    remembered: Option<Arc<Remembered>>,
    /// What scoring has taken until now.
    pub(crate) stats: ScoreStats,
}

impl Predictor {
    /// Scores rows for the query of `context`, which says with `on_failure` what becomes of rows that can't be scored.
    pub(crate) fn scorer<'a>(&'a self, on_failure: OnFailure, context: &'a RunContext) -> Scorer<'a> {
        Scorer { predictor: self, context, on_failure, remembered: None, stats: ScoreStats::default() }
    }

    pub(super) fn in_arrow<T>(&self, result: Result<T, ArrowError>) -> Result<T> {
        result.map_err(|cause| {
            error!(EngineFailed, "model '{}': its columns can't be put together", self.label()).with_source(cause)
        })
    }
}

impl Scorer<'_> {
    /// The same, which scores no row that is `remembered`, and adds what it scores.
    #[must_use]
    pub(crate) fn remembering(self, remembered: Option<Arc<Remembered>>) -> Self {
        Self { remembered, ..self }
    }

    /// Predictions for `rows` rows, in runs of `batch_size`, on this thread.
    ///
    /// # Errors
    /// A row that can't be scored (unless such rows become NULL), an engine that fails, a query that is gone.
    pub(crate) fn score(
        &mut self,
        arguments: &[ArrayRef],
        rows: usize,
        batch_size: &mut BatchSize,
    ) -> Result<ArrayRef> {
        let all = Batch { arguments: arguments.to_vec(), rows };
        // A fixed batch is filled up, so less than that would be waste.
        let fixed = self.predictor.fixed_batch.unwrap_or(1);
        let mut scores: Vec<ArrayRef> = vec![];
        let mut start = 0;
        while start < rows {
            let count = batch_size.rows().next_multiple_of(fixed).min(rows - start);
            let (clock, waited, remembered) = (Instant::now(), self.stats.wait, self.stats.remembered);
            scores.push(self.score_batch(all.slice(start, count))?);
            // Rows that were remembered say nothing of the model's speed, and neither does the time in the line before a device.
            if self.stats.remembered == remembered {
                batch_size.observe(count, clock.elapsed().saturating_sub(self.stats.wait - waited));
            }
            start += count;
        }
        match scores.as_slice() {
            [] => {
                let none = new_empty_array(self.predictor.call.returns());
                Ok(if self.on_failure == OnFailure::Reason { with_reasons(none, vec![]) } else { none })
            }
            [only] => Ok(only.clone()),
            several => self.concat(several),
        }
    }

    /// One batch.
    fn score_batch(&mut self, batch: Batch) -> Result<ArrayRef> {
        let batch = self.with_missing_texts(self.with_lists(batch)?)?;
        match self.on_failure {
            OnFailure::Error => self.score_rows(&batch),
            OnFailure::Null => self.score_what_can_be(&batch).map(|(scores, _)| scores),
            OnFailure::Reason => {
                let (scores, failures) = self.score_what_can_be(&batch)?;
                Ok(with_reasons(scores, failures))
            }
        }
    }

    /// The batch with lists in place of bytes, and of structs within lists.
    fn with_lists(&self, batch: Batch) -> Result<Batch> {
        let (encoder, options) = (self.predictor.call.encoder(), self.predictor.options());
        let may_change = |(i, argument): (usize, &ArrayRef)| {
            !encoder.is_bytes(i) && (argument.data_type().is_nested() || is_list_like(argument.data_type()))
        };
        if !batch.arguments.iter().enumerate().any(may_change) {
            return Ok(batch);
        }
        let (count, rows) = (batch.arguments.len(), batch.rows);
        let lists = batch.arguments.into_iter().enumerate().map(|(i, argument)| {
            if encoder.is_bytes(i) {
                return Ok(argument);
            }
            let length = encoder.list_length(i, count);
            let fit = BytesFit { length, taken: options.bytes, pad: options.pad.unwrap_or(0) };
            self.predictor.in_arrow(as_lists(&argument, fit))
        });
        Ok(Batch { arguments: lists.collect::<Result<_>>()?, rows })
    }

    /// The batch with the text that the option `missing_text` gives in place of NULL.
    fn with_missing_texts(&self, batch: Batch) -> Result<Batch> {
        let Some(text) = &self.predictor.options().missing_text else { return Ok(batch) };
        let filled = batch.arguments.into_iter().enumerate().map(|(i, argument)| {
            if self.predictor.call.encoder().is_text(i) {
                self.predictor.in_arrow(with_missing_text(&argument, text))
            } else {
                Ok(argument)
            }
        });
        Ok(Batch { arguments: filled.collect::<Result<_>>()?, rows: batch.rows })
    }

    /// One batch, of which what is remembered is not scored.
    pub(super) fn score_rows(&mut self, batch: &Batch) -> Result<ArrayRef> {
        let Some(remembered) = self.remembered.clone() else { return self.score_anew(batch) };
        let predictor = self.predictor;
        if predictor.null_policy == NullPolicy::Error {
            self.refuse_nulls(batch)?; // while rows have their numbers
        }
        let recalled = predictor.in_arrow(remembered.recall(&batch.arguments, batch.rows))?;
        if recalled.unknown.is_empty() {
            self.stats.remembered += recalled.known.len();
            return Ok(recalled.values);
        }
        if recalled.known.is_empty() {
            let scores = self.score_anew(batch)?;
            predictor.in_arrow(remembered.keep(&recalled, &scores))?;
            return Ok(scores);
        }
        let scores = self.score_anew(&predictor.in_arrow(batch.at(&recalled.unknown))?)?;
        // Only now: a batch that fails is scored again in parts.
        self.stats.remembered += recalled.known.len();
        predictor.in_arrow(remembered.keep(&recalled, &scores))?;
        let mut place = vec![0; batch.rows];
        let rows = recalled.known.iter().chain(recalled.unknown.values());
        rows.enumerate().for_each(|(from, row)| place[*row as usize] = from as u32); // a batch has fewer than 2^32
        let all = self.concat(&[recalled.values, scores])?;
        predictor.in_arrow(take(&all, &UInt32Array::from(place), None))
    }

    /// One batch, after the NULL policy.
    fn score_anew(&mut self, batch: &Batch) -> Result<ArrayRef> {
        let Predictor { call, null_policy, .. } = self.predictor;
        if *null_policy == NullPolicy::Error {
            self.refuse_nulls(batch)?;
            return self.score_groups(batch);
        }
        let kept = rows_without_nulls(&batch.arguments, |argument, column| match null_policy {
            // A float may be NaN, in a list too; a list may not.
            NullPolicy::Nan if call.encoder().has_nan(argument) => {
                let is_list = call.encoder().takes_list(argument, &batch.arguments);
                if is_list { list_nulls(column) } else { None }
            }
            _ => row_nulls(column),
        });
        let Some(kept) = kept else { return self.score_groups(batch) };
        if kept.is_empty() {
            return Ok(new_null_array(call.returns(), batch.rows));
        }
        let scores = self.score_groups(&self.predictor.in_arrow(batch.at(&kept))?)?;
        self.predictor.in_arrow(scatter(&scores, &kept, batch.rows))
    }

    /// The error for a NULL, where none is allowed.
    fn refuse_nulls(&self, batch: &Batch) -> Result<()> {
        for (argument, column) in batch.arguments.iter().enumerate() {
            let kept = rows_without_nulls(std::slice::from_ref(column), |_, column| row_nulls(column));
            let Some(kept) = kept else { continue };
            let row = (0..batch.rows as u64).find(|row| kept.values().binary_search(row).is_err()).unwrap_or(0);
            return Err(error!(
                UnscorableRow,
                "model '{}': {} is NULL in row {} of a batch (option on_null 'error')",
                self.predictor.label(),
                self.predictor.call.argument(argument),
                row + 1
            ));
        }
        Ok(())
    }

    /// One run, or several where lists differ in length, or rows in what those of one run share.
    fn score_groups(&mut self, batch: &Batch) -> Result<ArrayRef> {
        let predictor = self.predictor;
        let groups = predictor.call.encoder().groups(&batch.arguments, batch.rows, &predictor.shared);
        let groups = groups.map_err(|error| predictor.call.unscorable(predictor.label(), error))?;
        let Some(groups) = groups else { return self.score_chunks(batch) };
        let mut scores = Vec::with_capacity(groups.len());
        let mut place = vec![0; batch.rows];
        let mut scored = 0;
        for group in &groups {
            scores.push(self.score_chunks(&predictor.in_arrow(batch.at(group))?)?);
            for row in group.values() {
                place[*row as usize] = scored;
                scored += 1;
            }
        }
        let scores = self.concat(&scores)?;
        predictor.in_arrow(take(&scores, &UInt32Array::from(place), None))
    }

    /// One run, or as many as a fixed batch dimension asks for; the last is filled up with its own last row.
    fn score_chunks(&mut self, batch: &Batch) -> Result<ArrayRef> {
        let Some(fixed) = self.predictor.fixed_batch else { return self.run(batch, batch.rows) };
        let mut scores = vec![];
        for start in (0..batch.rows).step_by(fixed) {
            let count = fixed.min(batch.rows - start);
            let rows: UInt64Array = (start..start + fixed).map(|row| row.min(batch.rows - 1) as u64).collect();
            let full = self.predictor.in_arrow(batch.at(&rows))?;
            scores.push(self.run(&full, count)?);
        }
        self.concat(&scores)
    }

    fn concat(&self, scores: &[ArrayRef]) -> Result<ArrayRef> {
        self.predictor.in_arrow(concat(&scores.iter().map(AsRef::as_ref).collect::<Vec<_>>()))
    }
}
