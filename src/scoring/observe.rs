//! Learns the shapes of a model's outputs by running it: declared shapes lie.

use std::time::Duration;

use datafusion_predict_native::{Dimension, Tensor, TensorSpec};

use super::limit::limited;
use crate::cancel::CancelToken;
use crate::engine::{Executable, RunContext};
use crate::error::{ErrorKind, Result, bail, error};

/// Made-up inputs: zeros, with `rows` rows and `dynamic` for every other size that is not fixed.
///
/// # Errors
/// A tensor that would be too large to be made up.
pub(super) fn made_up(inputs: &[TensorSpec], rows: usize, dynamic: usize) -> Result<Vec<Tensor>> {
    let tensors = inputs.iter().map(|input| {
        let row = input.row_shape().iter().map(|dim| dim.size().unwrap_or(dynamic));
        let shape: Vec<usize> = std::iter::once(rows).chain(row).collect();
        let elements = shape.iter().try_fold(1usize, |n, size| n.checked_mul(*size));
        match elements {
            Some(elements) if elements <= LARGEST => Ok(Tensor::zeros(input.element, shape)),
            _ => Err(error!(EngineFailed, "input {input} is too large to be tried with made-up values")),
        }
    });
    tensors.collect()
}

/// Elements of a made-up tensor, at most.
const LARGEST: usize = 1 << 26;

/// Runs of a model on made-up rows, when it is loaded.
pub(super) struct Trial<'a> {
    pub label: &'a str,
    pub executable: &'a dyn Executable,
    /// Ends them when nobody waits for the model any more.
    pub cancel: &'a CancelToken,
    /// The longest that one may take.
    pub max_run: Option<Duration>,
}

impl Trial<'_> {
    fn run(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
        let context = RunContext { cancel: self.cancel.clone(), ..Default::default() };
        limited(self.label, self.max_run, &context, |context| self.executable.run(inputs, context))
    }

    /// The outputs as two runs show them, with 2 and with 3 rows; `None` if the model does not run on made-up rows, which
    /// an unknown category among zeros may cause.
    ///
    /// # Errors
    /// An output that is not one value or list for each row.
    pub(super) fn observe(
        &self,
        inputs: &[TensorSpec],
        fixed_batch: Option<usize>,
        declared: &[TensorSpec],
    ) -> Result<Option<Vec<TensorSpec>>> {
        let label = self.label;
        let run = |rows, dynamic| self.run(&made_up(inputs, rows, dynamic)?);
        let (few, many) = fixed_batch.map_or((2, 3), |rows| (rows, rows));
        let mut reason = None;
        // Sizes that differ between the runs show which dimensions are dynamic; a model may insist on 1.
        for (first, second) in [(5, 7), (1, 1)] {
            let both = run(few, first).and_then(|few_rows| Ok((few_rows, run(many, second)?)));
            let (few_rows, many_rows) = match both {
                Ok(both) => both,
                Err(error) => {
                    if !matches!(error.kind(), ErrorKind::EngineFailed) {
                        return Err(error);
                    }
                    reason = Some(error);
                    continue;
                }
            };
            if few_rows.len() != declared.len() || many_rows.len() != declared.len() {
                bail!(InvalidOutput, "model '{label}' gave {} outputs, expected {}", few_rows.len(), declared.len());
            }
            let outputs = declared.iter().zip(few_rows.iter().zip(&many_rows)).map(|(spec, (a, b))| {
                let dynamic = |i: usize| first == second && spec.shape.get(i).is_some_and(|dim| dim.size().is_none());
                Ok(TensorSpec {
                    name: spec.name.clone(),
                    element: a.data.element(),
                    shape: shape(label, spec, (a, few), (b, many), dynamic)?,
                })
            });
            return outputs.collect::<Result<Vec<_>>>().map(Some);
        }
        if let Some(reason) = reason {
            log::debug!(
                "model '{label}': the declared shapes are trusted, since it does not run on made-up rows: {reason}"
            );
        }
        Ok(None)
    }
}

fn shape(
    label: &str,
    spec: &TensorSpec,
    (a, a_rows): (&Tensor, usize),
    (b, b_rows): (&Tensor, usize),
    dynamic: impl Fn(usize) -> bool,
) -> Result<Vec<Dimension>> {
    let name = &spec.name;
    for (tensor, rows) in [(a, a_rows), (b, b_rows)] {
        match tensor.shape.first() {
            Some(found) if *found == rows => {}
            Some(found) => bail!(InvalidOutput, "model '{label}': output '{name}' has {found} rows, expected {rows}"),
            None => bail!(InvalidOutput, "model '{label}': output '{name}' is one value, expected one for each row"),
        }
    }
    if a.shape.contains(&0) {
        bail!(InvalidOutput, "model '{label}': output '{name}' has no values: its shape is {:?}", a.shape);
    }
    if a.shape.len() != b.shape.len() {
        bail!(InvalidOutput, "model '{label}': output '{name}' has {} or {} dimensions", a.shape.len(), b.shape.len());
    }
    let sizes = a.shape.iter().zip(&b.shape).enumerate();
    Ok(sizes
        .map(|(i, (a, b))| match a == b && i > 0 && !dynamic(i) {
            true => Dimension::Fixed(*a),
            false => match spec.shape.get(i) {
                Some(Dimension::Dynamic(name)) => Dimension::Dynamic(name.clone()),
                _ => Dimension::Dynamic(None),
            },
        })
        .collect())
}
