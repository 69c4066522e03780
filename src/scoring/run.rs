//! One run of a model: encode, run, decode.

use std::time::{Duration, Instant};

use datafusion::arrow::array::{Array, ArrayRef};
use datafusion::arrow::compute::cast;
use datafusion_predict_native::Tensor;

use super::Predictor;
use super::batch::Batch;
use super::limit::limited;
use super::score::Scorer;
use crate::encode;
use crate::engine::RunContext;
use crate::error::{Result, bail, error};

/// Adds the time since `start` to `total`, and starts anew.
fn lap(start: &mut Instant, total: &mut Duration) {
    let now = Instant::now();
    *total += now - *start;
    *start = now;
}

/// Does `run` within the time that the model's option `max_run` allows.
pub(super) fn run_limited<T>(
    predictor: &Predictor,
    context: &RunContext,
    run: impl FnOnce(&RunContext) -> Result<T>,
) -> Result<T> {
    limited(predictor.label(), predictor.options().max_run, context, run)
}

impl Scorer<'_> {
    /// Encodes the rows of `batch`, runs the model, and decodes the first `wanted`.
    pub(super) fn run(&mut self, batch: &Batch, wanted: usize) -> Result<ArrayRef> {
        let mut clock = Instant::now();
        let predictor = self.predictor;
        self.context.counts.take_waited(); // that of a run that failed
        let unscorable = |error| predictor.call.unscorable(predictor.label(), error);
        let executable = predictor.runner.executable.as_ref();
        let columns = executable
            .columnar()
            .and_then(|engine| Some((engine, predictor.call.encoder().columns(&batch.arguments)?)));
        let outputs = match columns {
            Some((engine, columns)) => {
                let columns = columns.map_err(unscorable)?;
                lap(&mut clock, &mut self.stats.encode);
                run_limited(predictor, self.context, |context| engine.run_columns(&columns, batch.rows, context))?
            }
            None => {
                let inputs = predictor.call.encoder().encode(&batch.arguments, batch.rows).map_err(unscorable)?;
                lap(&mut clock, &mut self.stats.encode);
                let outputs = run_limited(predictor, self.context, |context| executable.run(&inputs, context))?;
                predictor.health.note(inputs, predictor.fixed_batch.unwrap_or(1));
                outputs
            }
        };
        let mut run = Duration::ZERO;
        lap(&mut clock, &mut run);
        let waited = self.context.counts.take_waited();
        self.stats.wait += waited;
        self.stats.run += run.saturating_sub(waited);
        self.stats.idle += self.context.counts.take_idle();
        self.stats.texts += self.context.counts.take();
        let scores = predictor.decode(outputs, batch.rows, wanted)?;
        lap(&mut clock, &mut self.stats.decode);
        self.stats.rows += wanted;
        self.stats.batches += 1;
        Ok(scores)
    }
}

impl Predictor {
    fn decode(&self, outputs: Vec<Tensor>, rows: usize, wanted: usize) -> Result<ArrayRef> {
        if outputs.len() != self.tensors.len() {
            bail!(
                InvalidOutput,
                "model '{}': the engine gave {} outputs, expected {}",
                self.label(),
                outputs.len(),
                self.tensors.len()
            );
        }
        let given = self.tensors.iter().zip(outputs).map(|(spec, mut output)| {
            // A model that drops dimensions of one drops that of a single row, too.
            if rows == 1 && output.shape.len() + 1 == spec.shape.len() {
                output.shape.insert(0, 1);
            }
            output
        });
        let given: Vec<_> = given.collect();
        let mut rest = given.as_slice();
        let arrays = self.columns.iter().map(|column| {
            let tensors;
            (tensors, rest) = rest.split_at(column.tensors());
            let checked = if wanted < rows && tensors.iter().all(|output| output.rows() == rows) {
                let wanted_rows: Vec<_> = tensors.iter().map(|output| output.clone().truncated(wanted)).collect();
                column.decode(&wanted_rows, wanted)
            } else {
                column.decode(tensors, rows)
            };
            let array = checked.map_err(|problem| {
                let problem = format!("model '{}': output '{}' {problem}", self.label(), column.name);
                if column.is_label() { error!(UnscorableRow, "{problem}") } else { error!(InvalidOutput, "{problem}") }
            })?;
            // An engine may compute in other floats than the file declares.
            if column.holds_floats() && tensors.iter().all(|tensor| tensor.data.element().is_float()) {
                self.in_arrow(cast(&array, column.data_type())) // the same array, if it has that type
            } else {
                Ok(array)
            }
        });
        let arrays = arrays.collect::<Result<Vec<_>>>()?;
        for (column, array) in self.columns.iter().zip(&arrays) {
            if array.data_type() != column.data_type() {
                bail!(
                    InvalidOutput,
                    "model '{}' gave {}, expected {}",
                    self.label(),
                    array.data_type(),
                    column.data_type()
                );
            }
        }
        let array = encode::concat(&self.columns, arrays);
        Ok(array)
    }
}
