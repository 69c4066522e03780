//! Scores batches of rows.

use std::sync::Arc;
use std::time::{Duration, Instant};

use datafusion::arrow::array::{
    Array, ArrayRef, StringArray, StructArray, UInt32Array, UInt64Array, new_empty_array, new_null_array,
};
use datafusion::arrow::compute::{concat, take};
use datafusion::arrow::datatypes::{DataType, Field};
use datafusion_predict_udfs::{OUTCOME, OnFailure};

use super::limit::limited;
use super::observe::made_up;
use super::{BatchSize, Predictor};
use crate::engine::RunContext;
use crate::error::{Error, ErrorKind, Result, bail, error};
use crate::model::NullPolicy;
use crate::tensor::{self, Tensor, list_nulls, row_nulls, rows_without_nulls, scatter, with_missing_text};

/// What scoring some rows took.
#[derive(Debug, Default, Clone)]
pub(crate) struct ScoreStats {
    /// Rows that were given to the model.
    pub rows: usize,
    /// Runs of the model.
    pub batches: usize,
    /// Rows that could not be scored, and have NULL.
    pub rows_failed: usize,
    /// Time for free cores to come.
    pub wait: Duration,
    /// Time from Arrow to tensors.
    pub encode: Duration,
    /// Time in the engine.
    pub run: Duration,
    /// Time from tensors to Arrow.
    pub decode: Duration,
}

/// Adds the time since `start` to `total`, and starts anew.
fn lap(start: &mut Instant, total: &mut Duration) {
    let now = Instant::now();
    *total += now - *start;
    *start = now;
}

/// Rows that can't be scored, in order, each with the reason.
type Failures = Vec<(usize, Error)>;

/// Predictions beside the reasons why some are missing.
fn with_reasons(scores: ArrayRef, failures: Failures) -> ArrayRef {
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

impl Predictor {
    /// Predictions for `rows` rows, in runs of `batch_size`, on this thread.
    ///
    /// # Errors
    /// A row that can't be scored (unless `on_failure` makes it NULL), an engine that fails, a query that is gone.
    pub(crate) fn score_batches(
        &self,
        arguments: &[ArrayRef],
        rows: usize,
        on_failure: OnFailure,
        batch_size: &mut BatchSize,
        context: &RunContext,
        stats: &mut ScoreStats,
    ) -> Result<ArrayRef> {
        // A fixed batch is filled up, so less than that would be waste.
        let fixed = self.fixed_batch.unwrap_or(1);
        let mut scores: Vec<ArrayRef> = vec![];
        let mut start = 0;
        while start < rows {
            let count = batch_size.rows().next_multiple_of(fixed).min(rows - start);
            let clock = Instant::now();
            scores.push(self.score_batch(arguments, start, count, on_failure, context, stats)?);
            batch_size.observe(count, clock.elapsed());
            start += count;
        }
        match scores.as_slice() {
            [] if on_failure == OnFailure::Reason => Ok(with_reasons(new_empty_array(self.call.returns()), vec![])),
            [] => Ok(new_empty_array(self.call.returns())),
            [only] => Ok(only.clone()),
            several => self.in_arrow(concat(&several.iter().map(AsRef::as_ref).collect::<Vec<_>>())),
        }
    }

    /// One batch.
    fn score_batch(
        &self,
        arguments: &[ArrayRef],
        start: usize,
        count: usize,
        on_failure: OnFailure,
        context: &RunContext,
        stats: &mut ScoreStats,
    ) -> Result<ArrayRef> {
        let slice: Vec<_> = arguments.iter().map(|argument| argument.slice(start, count)).collect();
        let slice = self.with_missing_texts(slice)?;
        match on_failure {
            OnFailure::Error => self.score_rows(&slice, count, context, stats),
            OnFailure::Null => self.score_what_can_be(&slice, count, context, stats).map(|(scores, _)| scores),
            OnFailure::Reason => {
                let (scores, failures) = self.score_what_can_be(&slice, count, context, stats)?;
                Ok(with_reasons(scores, failures))
            }
        }
    }

    /// The arguments with the text that the option `missing_text` gives in place of NULL.
    fn with_missing_texts(&self, arguments: Vec<ArrayRef>) -> Result<Vec<ArrayRef>> {
        let Some(text) = &self.options.missing_text else { return Ok(arguments) };
        let filled = arguments.into_iter().enumerate().map(|(i, argument)| {
            if self.call.encoder().is_text(i) {
                self.in_arrow(with_missing_text(&argument, text))
            } else {
                Ok(argument)
            }
        });
        filled.collect()
    }

    /// As [`score_rows`](Self::score_rows), with NULL for the rows at fault, found by bisection; and these rows with their
    /// errors.
    fn score_what_can_be(
        &self,
        arguments: &[ArrayRef],
        rows: usize,
        context: &RunContext,
        stats: &mut ScoreStats,
    ) -> Result<(ArrayRef, Failures)> {
        let mut failures = vec![];
        let error = match self.score_rows(arguments, rows, context, stats) {
            Ok(scores) => return Ok((scores, failures)),
            Err(error) if !may_be_the_rows(&error) => return Err(error),
            Err(error) => error,
        };
        if !matches!(error.kind(), ErrorKind::UnscorableRow) && !self.is_healthy(context) {
            return Err(error);
        }
        let scores = self.bisect(arguments, 0, rows, context, stats, &mut failures)?;
        // An engine that broke meanwhile is no row's fault.
        if !self.is_healthy(context) {
            return Err(error);
        }
        stats.rows_failed += failures.len();
        Ok((scores, failures))
    }

    /// The `rows` rows of `arguments`, of which the first is the row `first` of the batch.
    fn bisect(
        &self,
        arguments: &[ArrayRef],
        first: usize,
        rows: usize,
        context: &RunContext,
        stats: &mut ScoreStats,
        failures: &mut Failures,
    ) -> Result<ArrayRef> {
        if rows == 1 {
            return match self.score_rows(arguments, rows, context, stats) {
                Err(error) if may_be_the_rows(&error) => {
                    failures.push((first, error));
                    Ok(new_null_array(self.call.returns(), 1))
                }
                other => other,
            };
        }
        let half = rows / 2;
        let halves = [(0, half), (half, rows - half)].map(|(start, count)| {
            let slice: Vec<_> = arguments.iter().map(|argument| argument.slice(start, count)).collect();
            match self.score_rows(&slice, count, context, stats) {
                Err(error) if may_be_the_rows(&error) => {
                    self.bisect(&slice, first + start, count, context, stats, failures)
                }
                other => other,
            }
        });
        let [left, right] = halves;
        self.in_arrow(concat(&[left?.as_ref(), right?.as_ref()]))
    }

    /// Whether the model still runs on inputs on which it ran before: the made-up ones, or else the first that it was
    /// given. Before any run has succeeded, nothing speaks against the engine.
    fn is_healthy(&self, context: &RunContext) -> bool {
        let run = |inputs: &[Tensor]| {
            let run = |context: &RunContext| self.executable.run(inputs, context);
            limited(&self.label, self.options.max_run, context, run).is_ok()
        };
        let rows = self.fixed_batch.unwrap_or(2);
        let made_up = |dynamic| made_up(&self.signature.inputs, rows, dynamic).is_ok_and(|inputs| run(&inputs));
        match (self.probed, self.known_good.get()) {
            (true, _) => made_up(5) || made_up(1),
            (false, Some(inputs)) => run(inputs),
            (false, None) => true,
        }
    }

    /// One batch, after the NULL policy.
    fn score_rows(
        &self,
        arguments: &[ArrayRef],
        rows: usize,
        context: &RunContext,
        stats: &mut ScoreStats,
    ) -> Result<ArrayRef> {
        let kept = rows_without_nulls(arguments, |argument, column| match self.null_policy {
            // A float may be NaN, in a list too; a list may not.
            NullPolicy::Nan if self.call.encoder().has_nan(argument) => {
                match self.call.encoder().takes_list(argument, arguments) {
                    true => list_nulls(column),
                    false => None,
                }
            }
            _ => row_nulls(column),
        });
        let Some(kept) = kept else {
            return self.score_groups(arguments, rows, context, stats);
        };
        if self.null_policy == NullPolicy::Error {
            let null =
                |argument: &ArrayRef| rows_without_nulls(std::slice::from_ref(argument), |_, column| row_nulls(column));
            let found = arguments.iter().map(null).enumerate().find_map(|(i, kept)| kept.map(|kept| (i, kept)));
            let (argument, kept) = found.unwrap_or((0, kept));
            let row = (0..rows as u64).find(|row| kept.values().binary_search(row).is_err()).unwrap_or(0);
            bail!(
                UnscorableRow,
                "model '{}': {} is NULL in row {} of a batch (option on_null 'error')",
                self.label,
                self.call.argument(argument),
                row + 1
            );
        }
        if kept.is_empty() {
            return Ok(new_null_array(self.call.returns(), rows));
        }
        let present = self.rows_at(arguments, &kept)?;
        let scores = self.score_groups(&present, kept.len(), context, stats)?;
        self.in_arrow(scatter(&scores, &kept, rows))
    }

    /// One run, or several where lists differ in length.
    fn score_groups(
        &self,
        arguments: &[ArrayRef],
        rows: usize,
        context: &RunContext,
        stats: &mut ScoreStats,
    ) -> Result<ArrayRef> {
        let dynamic = self.signature.inputs.iter().any(|input| input.row_elements().is_none());
        let groups = if dynamic { self.call.encoder().ragged_groups(arguments, rows) } else { None };
        let Some(groups) = groups else {
            return self.score_chunks(arguments, rows, context, stats);
        };
        let mut scores = Vec::with_capacity(groups.len());
        let mut place = vec![0; rows];
        let mut scored = 0;
        for group in &groups {
            let members = self.rows_at(arguments, group)?;
            scores.push(self.score_chunks(&members, group.len(), context, stats)?);
            for row in group.values() {
                place[*row as usize] = scored;
                scored += 1;
            }
        }
        let scores = self.in_arrow(concat(&scores.iter().map(AsRef::as_ref).collect::<Vec<_>>()))?;
        self.in_arrow(take(&scores, &UInt32Array::from(place), None))
    }

    /// One run, or as many as a fixed batch dimension asks for; the last is filled up with its own last row.
    fn score_chunks(
        &self,
        arguments: &[ArrayRef],
        rows: usize,
        context: &RunContext,
        stats: &mut ScoreStats,
    ) -> Result<ArrayRef> {
        let Some(fixed) = self.fixed_batch else {
            return self.run(arguments, rows, rows, context, stats);
        };
        let mut scores = vec![];
        for start in (0..rows).step_by(fixed) {
            let count = fixed.min(rows - start);
            let indices: UInt64Array = (start..start + fixed).map(|row| row.min(rows - 1) as u64).collect();
            scores.push(self.run(&self.rows_at(arguments, &indices)?, fixed, count, context, stats)?);
        }
        self.in_arrow(concat(&scores.iter().map(AsRef::as_ref).collect::<Vec<_>>()))
    }

    /// Encodes `rows` rows, runs the model, and decodes the first `wanted`.
    fn run(
        &self,
        arguments: &[ArrayRef],
        rows: usize,
        wanted: usize,
        context: &RunContext,
        stats: &mut ScoreStats,
    ) -> Result<ArrayRef> {
        let mut clock = Instant::now();
        let columns =
            self.executable.columnar().and_then(|engine| Some((engine, self.call.encoder().columns(arguments)?)));
        let outputs = match columns {
            Some((engine, columns)) => {
                let columns = columns.map_err(|error| self.call.unscorable(&self.label, error))?;
                lap(&mut clock, &mut stats.encode);
                let max_run = self.options.max_run;
                let outputs =
                    limited(&self.label, max_run, context, |context| engine.run_columns(&columns, rows, context))?;
                lap(&mut clock, &mut stats.run);
                outputs
            }
            None => self.run_tensors(arguments, rows, context, stats, &mut clock)?,
        };
        let scores = self.decode(outputs, rows, wanted)?;
        lap(&mut clock, &mut stats.decode);
        stats.rows += wanted;
        stats.batches += 1;
        Ok(scores)
    }

    fn run_tensors(
        &self,
        arguments: &[ArrayRef],
        rows: usize,
        context: &RunContext,
        stats: &mut ScoreStats,
        clock: &mut Instant,
    ) -> Result<Vec<Tensor>> {
        let inputs =
            self.call.encoder().encode(arguments, rows).map_err(|error| self.call.unscorable(&self.label, error))?;
        lap(clock, &mut stats.encode);
        let max_run = self.options.max_run;
        let outputs = limited(&self.label, max_run, context, |context| self.executable.run(&inputs, context))?;
        lap(clock, &mut stats.run);
        if !self.probed {
            self.known_good.get_or_init(|| {
                let rows = self.fixed_batch.unwrap_or(1);
                // They outlive the query, whose columns should not.
                inputs.into_iter().map(|input| input.truncated(rows).detached()).collect()
            });
        }
        Ok(outputs)
    }

    fn decode(&self, outputs: Vec<Tensor>, rows: usize, wanted: usize) -> Result<ArrayRef> {
        if outputs.len() != self.columns.len() {
            bail!(
                InvalidOutput,
                "model '{}': the engine gave {} outputs, expected {}",
                self.label,
                outputs.len(),
                self.columns.len()
            );
        }
        let arrays = self.columns.iter().zip(outputs).map(|(column, output)| {
            let checked = match output.rows() == rows {
                true => column.decode(&output.truncated(wanted), wanted),
                false => column.decode(&output, rows),
            };
            checked
                .map_err(|problem| error!(InvalidOutput, "model '{}': output '{}' {problem}", self.label, column.name))
        });
        let array = tensor::concat(&self.columns, arrays.collect::<Result<Vec<_>>>()?);
        if array.data_type() != self.call.returns() {
            bail!(InvalidOutput, "model '{}' gave {}, expected {}", self.label, array.data_type(), self.call.returns());
        }
        Ok(array)
    }

    fn rows_at(&self, arguments: &[ArrayRef], rows: &UInt64Array) -> Result<Vec<ArrayRef>> {
        arguments.iter().map(|argument| self.in_arrow(take(argument, rows, None))).collect()
    }

    fn in_arrow<T>(&self, result: Result<T, datafusion::arrow::error::ArrowError>) -> Result<T> {
        result.map_err(|cause| {
            error!(EngineFailed, "model '{}': its columns can't be put together", self.label).with_source(cause)
        })
    }
}

/// Whether other rows might be scored where these failed.
fn may_be_the_rows(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::UnscorableRow | ErrorKind::EngineFailed)
}
