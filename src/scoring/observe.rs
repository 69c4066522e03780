//! What runs on made-up rows show: the shapes and types of outputs, and what a row costs.

use std::time::{Duration, Instant};

use datafusion_predict_native::{Dimension, Tensor, TensorSpec};

use super::axes::{RowAxes, with_axis_first};
use super::made_up::{self, Floats};
use super::trial::{LARGE_ROWS, LAST_RESORTS, LONGEST, SIZES, Trial, fixed_rows, is_large, is_of_rows};
use crate::engine::{Device, Executable};
use crate::error::{Error, Result, bail, error};

/// Rows of the run that is timed, at most, and how long that run should take.
const TIMED_ROWS: usize = 256;
const TIMED: Duration = Duration::from_millis(100);

impl Trial<'_> {
    /// The outputs as runs show them, with 2 and with 3 rows and in several sizes, on zeros or else on other values; with rows
    /// first, and with a size in which the model runs. The reason if it runs in none. `by_rows` is the model with its rows first, which takes `inputs`.
    ///
    /// # Errors
    /// An output that is not one value or list for each row.
    pub(super) fn observe(
        &self,
        by_rows: &dyn Executable,
        inputs: &[TensorSpec],
        axes: &RowAxes,
        declared: &[TensorSpec],
    ) -> Result<Result<Observed, Failure>> {
        let (label, fixed) = (self.label, fixed_rows(inputs));
        let is_free = inputs.iter().any(|input| input.row_elements().is_none());
        let mut runs: Vec<(usize, usize, Vec<Tensor>)> = vec![];
        let (mut failed, mut was_run) = (None, false);
        let deadline = Instant::now() + LONGEST;
        let mut is_cut_short = false;
        let tries = [false, true]
            .into_iter()
            .flat_map(|varied| SIZES.into_iter().enumerate().map(move |(i, size)| (varied, i, size)));
        for (varied, i, size) in tries {
            // Other values and a size of 1 are the last resort, and what has no free size needs no other.
            let enough = !runs.is_empty() && (varied || LAST_RESORTS.contains(&size));
            if enough || (!is_free && i > 1) {
                continue;
            }
            if !runs.is_empty() && Instant::now() > deadline {
                is_cut_short = true;
                continue;
            }
            let rows = fixed.unwrap_or(if is_large(inputs, size) { LARGE_ROWS } else { 2 + i % 2 });
            let values = if varied {
                self.rows(inputs, rows, size, Floats::Positive)
            } else {
                made_up::zeros(inputs, rows, size)
            };
            let shapes = values.as_ref().map(|values| shapes(inputs, values)).unwrap_or_default();
            was_run |= values.is_ok();
            match values.and_then(|values| self.run(by_rows, &values)) {
                Ok(outputs) if outputs.len() == declared.len() => runs.push((rows, size, outputs)),
                Ok(outputs) => {
                    bail!(InvalidOutput, "model '{label}' gave {} outputs, expected {}", outputs.len(), declared.len())
                }
                Err(error) if is_of_rows(&error) => {
                    failed = Some(error.with_note(Some(&format!("the rows: {shapes}"))));
                }
                Err(error) => return Err(error),
            }
        }
        if runs.is_empty() {
            let failed = failed.unwrap_or_else(|| error!(EngineFailed, "model '{label}' could not be tried"));
            return Ok(Err(Failure { reason: failed, was_run }));
        }
        let outputs = declared.iter().enumerate().map(|(i, spec)| {
            let shapes: Vec<_> = runs.iter().map(|(rows, _, outputs)| (*rows, outputs[i].shape.as_slice())).collect();
            let declared = match axes.outputs.get(i) {
                Some(Some(axis)) => with_axis_first(spec, *axis),
                _ => {
                    let rows = [Dimension::Fixed(1)].into_iter();
                    TensorSpec { shape: rows.chain(spec.shape.iter().cloned()).collect(), ..spec.clone() }
                }
            };
            let shape = observed_shape(label, &declared, &shapes, is_free && (runs.len() < 2 || is_cut_short))?;
            Ok(TensorSpec { name: spec.name.clone(), element: runs[0].2[i].data.element(), shape })
        });
        let outputs = outputs.collect::<Result<Vec<_>>>()?;
        Ok(Ok(Observed { outputs, size: runs[0].1 }))
    }

    /// What a row costs in a run of many on one thread, about: the shorter of two runs, unless one takes long. `None` where the
    /// model fails on such rows, or where they would be too large.
    pub(super) fn cost(
        &self,
        by_rows: &dyn Executable,
        inputs: &[TensorSpec],
        size: usize,
    ) -> Result<Option<Duration>> {
        let mut shortest: Option<Duration> = None;
        let mut rows = fixed_rows(inputs).unwrap_or(2);
        for _ in 0..3 {
            let Ok(values) = self.rows(inputs, rows, size, Floats::Positive) else { break };
            let start = Instant::now();
            let mut took = match self.run_timed(by_rows, &values) {
                Ok((_, took)) => took,
                Err(error) if is_of_rows(&error) => break,
                Err(error) => return Err(error),
            };
            // A device plans the first run of a number of rows.
            if by_rows.device() != Device::Cpu.to_string() {
                took = self.run_timed(by_rows, &values)?.1;
            }
            let each = took / rows as u32;
            shortest = Some(shortest.map_or(each, |before| before.min(each)));
            if fixed_rows(inputs).is_none() && !is_large(inputs, size) {
                let fitting = TIMED.as_nanos() / each.as_nanos().max(1);
                rows = usize::try_from(fitting).unwrap_or(TIMED_ROWS).clamp(1, TIMED_ROWS);
            }
            if start.elapsed() > TIMED {
                break;
            }
        }
        Ok(shortest)
    }
}

/// The shapes of what a run was given: `'x' [2, 4], 'state' [2, 7]`, rows first.
fn shapes(inputs: &[TensorSpec], values: &[Tensor]) -> String {
    let each = inputs.iter().zip(values).map(|(input, tensor)| format!("'{}' {:?}", input.name, tensor.shape));
    each.collect::<Vec<_>>().join(", ")
}

/// Why a model was not observed.
pub(super) struct Failure {
    pub reason: Error,
    /// Whether it failed, and its rows were not merely too large to be made up.
    pub was_run: bool,
}

/// What runs on made-up rows have shown.
pub(super) struct Observed {
    /// The outputs, rows first.
    pub outputs: Vec<TensorSpec>,
    /// A size of free dimensions in which the model runs.
    pub size: usize,
}

/// The shape of an output whose rows are first: a size is fixed if it was the same in all runs. `unsure` leaves those free that
/// the file declares so.
fn observed_shape(
    label: &str,
    declared: &TensorSpec,
    shapes: &[(usize, &[usize])],
    unsure: bool,
) -> Result<Vec<Dimension>> {
    let name = &declared.name;
    for (rows, shape) in shapes {
        match shape.first() {
            Some(found) if found == rows => {}
            Some(found) => bail!(InvalidOutput, "model '{label}': output '{name}' has {found} rows, expected {rows}"),
            None => bail!(
                InvalidOutput,
                "model '{label}': output '{name}' is one value, expected one for each row; OPTIONS (output '…') names another"
            ),
        }
    }
    let (_, first) = shapes[0];
    if let Some((_, other)) = shapes.iter().find(|(_, shape)| shape.len() != first.len()) {
        bail!(InvalidOutput, "model '{label}': output '{name}' has {} or {} dimensions", first.len(), other.len());
    }
    let dims = (0..first.len()).map(|axis| {
        let same = shapes.iter().all(|(_, shape)| shape[axis] == first[axis]);
        let declared = declared.shape.get(axis);
        let free = axis == 0 || !same || first[axis] == 0;
        match declared {
            _ if !(free || unsure && declared.is_some_and(|dim| dim.size().is_none())) => Dimension::Fixed(first[axis]),
            Some(Dimension::Dynamic(name)) => Dimension::Dynamic(name.clone()),
            _ => Dimension::Dynamic(None),
        }
    });
    Ok(dims.collect())
}
