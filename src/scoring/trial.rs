//! Tries a model on made-up rows before it scores real ones.
//!
//! What a file declares is often wrong or silent: where the rows are, which sizes are free, whether rows are scored
//! independently of each other. Runs on rows that are known tell.

use std::sync::Arc;
use std::time::{Duration, Instant};

use datafusion_predict_native::{Dimension, Precision, Tensor, TensorSpec};

use super::agreement::{by_rows, tolerance};
use super::axes::{Input, RowAxes, RowAxis, output_candidates, placed, rows_first};
use super::limit::limited;
use super::made_up::{self, Floats};
use crate::cancel::CancelToken;
use crate::engine::{Columnar, Device, Executable, RunContext};
use crate::error::{Error, ErrorKind, Result, bail};

/// Sizes that are given to dimensions which are not fixed. Small ones show little behind a stride, and large ones are too large
/// for some models. The last ones are for models that run in none of the others: they insist on one step, on nothing, or on the
/// window of a sound.
pub(super) const SIZES: [usize; 7] = [7, 3, 64, 160, 1, 0, 512];

/// Those of [`SIZES`] in which a model is not tried that runs in another.
pub(super) const LAST_RESORTS: [usize; 3] = [1, 0, 512];

/// Rows that are scored together and apart.
const ROWS: usize = 5;

/// As many where a row is large: what a model computes in between may be many times that.
pub(super) const LARGE_ROWS: usize = 2;

/// Elements of a large row.
const LARGE: usize = 1 << 15;

/// Time for all of it, unless one run takes longer.
pub(super) const LONGEST: Duration = Duration::from_secs(2);

/// The same on a device, which plans each new number of rows.
const LONGEST_ON_DEVICE: Duration = Duration::from_secs(10);

/// Whether a row's score depends on the rows that are scored with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dependence {
    /// Rows had the same scores together, apart and in another order.
    Independent,
    /// They had not.
    Dependent,
    /// The model does not run on made-up rows, or takes too long.
    Unknown,
}

/// What runs with one assignment of rows to dimensions have shown.
struct Found {
    axes: RowAxes,
    dependence: Dependence,
    /// Whether each output has a dimension that is as long as there are rows.
    has_rows: bool,
}

/// What is made of a made-up tensor: words of empty texts, pictures of no bytes.
pub(super) type MakeUp = fn(&mut Tensor);

/// Runs of a model on made-up rows, when it is prepared.
#[derive(Clone, Copy)]
pub(super) struct Trial<'a> {
    pub(super) label: &'a str,
    executable: &'a Arc<dyn Executable>,
    /// Ends them when nobody waits for the model any more.
    cancel: &'a CancelToken,
    /// The longest that one may take.
    max_run: Option<Duration>,
    /// Makes of a made-up tensor what a model of texts or of images takes in its place.
    make_up: Option<MakeUp>,
    /// When all of it should be over. None where the answer decides what is scored: it must not depend on how fast the machine
    /// is today.
    deadline: Option<Instant>,
    /// How much two scores of one row may differ, relative to the largest in their place.
    tolerance: f64,
}

impl<'a> Trial<'a> {
    pub(super) fn new(
        label: &'a str,
        executable: &'a Arc<dyn Executable>,
        cancel: &'a CancelToken,
        max_run: Option<Duration>,
    ) -> Self {
        let longest = if executable.device() == Device::Cpu.to_string() { LONGEST } else { LONGEST_ON_DEVICE };
        Self {
            label,
            executable,
            cancel,
            max_run,
            make_up: None,
            deadline: Some(Instant::now() + longest),
            tolerance: tolerance(None),
        }
    }

    /// The same on what `make_up` makes of each tensor.
    pub(super) fn with(self, make_up: Option<MakeUp>) -> Self {
        Self { make_up, ..self }
    }

    /// The same of a model that computes in so many digits, if not in all.
    pub(super) fn with_digits_of(self, precision: Option<Precision>) -> Self {
        Self { tolerance: tolerance(precision), ..self }
    }

    /// Rows that differ, as the model takes them.
    pub(super) fn rows(&self, inputs: &[TensorSpec], rows: usize, size: usize, floats: Floats) -> Result<Vec<Tensor>> {
        let mut made_up = made_up::rows(inputs, rows, size, floats)?;
        if let Some(make_up) = self.make_up {
            made_up.iter_mut().for_each(make_up);
        }
        Ok(made_up)
    }

    pub(super) fn run(&self, executable: &dyn Executable, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
        self.run_timed(executable, inputs).map(|(outputs, _)| outputs)
    }

    /// As [`run`](Self::run), with the time that it took, without that in the line before a device.
    pub(super) fn run_timed(&self, executable: &dyn Executable, inputs: &[Tensor]) -> Result<(Vec<Tensor>, Duration)> {
        let start = Instant::now();
        let context = RunContext { cancel: self.cancel.clone(), is_trial: true, ..Default::default() };
        let outputs = limited(self.label, self.max_run, &context, |context| executable.run(inputs, context))?;
        Ok((outputs, start.elapsed().saturating_sub(context.counts.take_waited())))
    }

    /// Whether the time for all of it is over.
    pub(super) fn is_late(&self) -> bool {
        self.deadline.is_some_and(|deadline| Instant::now() > deadline)
    }

    /// Of the `assignments` of rows to the inputs' dimensions, the first with which rows are not seen to depend on each other, and
    /// the outputs' dimensions that go with it. Of a single assignment rows are compared only if `compare`.
    ///
    /// # Errors
    /// Several assignments, with all of which rows depend on each other: which one is meant can't be told.
    pub(super) fn find_rows(
        &mut self,
        assignments: &[Vec<RowAxis>],
        inputs: &[Input],
        outputs: &[TensorSpec],
        compare: bool,
    ) -> Result<(RowAxes, Dependence)> {
        let deadline = self.deadline;
        if assignments.len() > 1 {
            self.deadline = None;
        }
        let found = self.first_of(assignments, inputs, outputs, compare || assignments.len() > 1);
        self.deadline = deadline;
        found
    }

    fn first_of(
        &self,
        assignments: &[Vec<RowAxis>],
        inputs: &[Input],
        outputs: &[TensorSpec],
        compare: bool,
    ) -> Result<(RowAxes, Dependence)> {
        let (mut dependent, mut without_rows) = (vec![], vec![]);
        for assignment in assignments {
            match self.find_outputs(assignment, inputs, outputs, compare)? {
                Some(Found { axes, dependence: Dependence::Dependent, .. }) => dependent.push(axes),
                // What is wrong with an output is said when its sizes are learned, unless there is another way.
                Some(Found { axes, has_rows: false, .. }) => without_rows.push(axes),
                Some(Found { axes, dependence, .. }) => return Ok((axes, dependence)),
                None => {}
            }
        }
        if dependent.is_empty() && !without_rows.is_empty() {
            return Ok((without_rows.swap_remove(0), Dependence::Unknown));
        }
        if assignments.len() > 1 && !dependent.is_empty() {
            let tried: Vec<_> = dependent.iter().map(|axes| place(&axes.inputs, inputs)).collect();
            bail!(
                InvalidModel,
                "model '{}': which dimension is that of the rows can't be told: with {} the score of a row depends on the others; name it 'batch' when the model is exported",
                self.label,
                tried.join(", and with ")
            );
        }
        match dependent.pop() {
            Some(axes) => Ok((axes, Dependence::Dependent)),
            None => {
                // It does not run, or is too slow to be tried: names decide, else it is the first dimension.
                let declared = |output: &TensorSpec| {
                    output_candidates(output, None, &vec![ROWS; output.shape.len()], ROWS).first().copied().unwrap_or(0)
                };
                let ranks = outputs.iter().map(|output| output.shape.len()).collect();
                let outputs = outputs.iter().map(|output| Some(declared(output))).collect();
                Ok((RowAxes { inputs: assignments[0].clone(), outputs, ranks }, Dependence::Unknown))
            }
        }
    }

    /// The outputs' dimensions of rows for an assignment of the inputs', and whether rows are independent with them; `None` if
    /// the model does not run.
    fn find_outputs(
        &self,
        assignment: &[RowAxis],
        inputs: &[Input],
        declared: &[TensorSpec],
        compare: bool,
    ) -> Result<Option<Found>> {
        let specs = rows_first(inputs, assignment);
        let made_up = |rows, size, floats| self.made_up(inputs, assignment, &specs, rows, size, floats);
        let fixed = fixed_rows(&specs);
        let rows_of = |size: usize| fixed.unwrap_or(if is_large(&specs, size) { LARGE_ROWS } else { ROWS });
        let mut together = None;
        for size in SIZES {
            let count = rows_of(size);
            let Some(rows) = made_up(count, size, Floats::Positive)? else { continue };
            if let Some(outputs) = self.run_placed(assignment, &rows)? {
                together = Some((size, rows, outputs));
                break;
            }
            if self.is_late() {
                return Ok(None);
            }
        }
        let Some((size, rows, outputs)) = together else { return Ok(None) };
        let count = rows_of(size);
        if outputs.len() != declared.len() {
            let (found, expected) = (outputs.len(), declared.len());
            bail!(InvalidOutput, "model '{}' gave {found} outputs, expected {expected}", self.label);
        }
        let first: Vec<_> = rows.iter().map(|input| input.rows_at(&[0])).collect();
        let one = if fixed.is_none() { self.run_placed(assignment, &first)? } else { None };
        let found = outputs.iter().zip(declared).enumerate().map(|(i, (output, declared))| {
            let one = one.as_ref().and_then(|outputs| outputs.get(i)).map(|output| output.shape.as_slice());
            output_candidates(declared, one, &output.shape, count)
        });
        let mut candidates: Vec<Vec<usize>> = found.collect();
        // A dimension may be as long as there are rows by accident.
        if candidates.iter().any(|axes| axes.len() > 1)
            && fixed.is_none()
            && let Some(more) = made_up(count + 1, size, Floats::Positive)?
            && let Some(outputs) = self.run_placed(assignment, &more)?
        {
            for (axes, output) in candidates.iter_mut().zip(&outputs) {
                axes.retain(|axis| output.shape.get(*axis) == Some(&(count + 1)));
            }
        }
        let found: Vec<Option<usize>> = candidates.iter().map(|axes| axes.first().copied()).collect();
        let assigned = assignment.to_vec();
        let ranks: Vec<_> = outputs.iter().map(|output| output.shape.len()).collect();
        if count == 1 {
            // A dimension that happens to be 1 in one size is not that of the row.
            let mut found = found;
            for other in SIZES.into_iter().filter(|other| *other != size && !LAST_RESORTS.contains(other)) {
                if specs.iter().all(|spec| spec.row_elements().is_some()) {
                    break;
                }
                let Some(rows) = made_up(count, other, Floats::Positive)? else { continue };
                let Some(outputs) = self.run_placed(assignment, &rows)? else { continue };
                for (axis, output) in found.iter_mut().zip(&outputs) {
                    *axis = axis.filter(|axis| output.shape.get(*axis) == Some(&1));
                }
            }
            // Of one row there is nothing to compare; an output without a dimension for it is its value.
            let axes = RowAxes { inputs: assigned, outputs: found, ranks };
            return Ok(Some(Found { axes, dependence: Dependence::Independent, has_rows: true }));
        }
        let known = found.iter().all(Option::is_some);
        // What is wrong with an output is said when its sizes are learned.
        let outputs_at = found.iter().map(|axis| Some(axis.unwrap_or(0))).collect();
        let mut axes = RowAxes { inputs: assigned, outputs: outputs_at, ranks };
        if self.executable.columnar().is_some_and(Columnar::scores_rows_apart) && known {
            // It computes row by row.
            return Ok(Some(Found { axes, dependence: Dependence::Independent, has_rows: true }));
        }
        if candidates.iter().any(|axes| axes.len() > 1) {
            // Of several the one along which rows agree, however long that takes: it decides what is scored.
            let patient = Trial { deadline: None, ..*self };
            for outputs_at in combinations(&candidates) {
                let tried = RowAxes { outputs: outputs_at, ..axes.clone() };
                if patient.compare(&tried, &rows, outputs.clone(), fixed)? != Dependence::Dependent {
                    axes = tried;
                    break;
                }
            }
        }
        if !known || !compare {
            return Ok(Some(Found { axes, dependence: Dependence::Unknown, has_rows: known }));
        }
        let mut dependence = self.compare(&axes, &rows, outputs, fixed)?;
        // What saturates a sigmoid hides what went before it.
        if dependence != Dependence::Dependent
            && !self.is_late()
            && let Some(small) = made_up(count, size, Floats::Small)?
            && let Some(outputs) = self.run_placed(assignment, &small)?
        {
            dependence = match (dependence, self.compare(&axes, &small, outputs, fixed)?) {
                (_, Dependence::Dependent) => Dependence::Dependent,
                (Dependence::Unknown, Dependence::Unknown) => Dependence::Unknown,
                _ => Dependence::Independent,
            };
        }
        Ok(Some(Found { axes, dependence, has_rows: true }))
    }

    /// Made-up rows for all inputs, with their constants, and with one value where rows share it; `None` if they would be too
    /// large.
    fn made_up(
        &self,
        inputs: &[Input],
        assignment: &[RowAxis],
        specs: &[TensorSpec],
        rows: usize,
        size: usize,
        floats: Floats,
    ) -> Result<Option<Vec<Tensor>>> {
        let Ok(varied) = self.rows(specs, rows, size, floats) else { return Ok(None) };
        let same = vec![0; rows];
        let each = varied.into_iter().zip(inputs).zip(assignment.iter().zip(specs));
        let each = each.map(|((tensor, input), (axis, spec))| match (&input.constant, axis) {
            // One that does not fit is said where the dimensions are known.
            (Some(constant), _) => constant.row(self.label, spec).ok().map(|row| row.rows_at(&same)),
            (None, None) => Some(tensor.rows_at(&same)),
            (None, Some(_)) => Some(tensor),
        });
        Ok(each.collect())
    }

    /// Runs the model on rows that are put where it wants them; `None` if it fails.
    fn run_placed(&self, assignment: &[RowAxis], rows: &[Tensor]) -> Result<Option<Vec<Tensor>>> {
        let placed = rows.iter().zip(assignment).map(|(tensor, axis)| placed(tensor, *axis));
        match self.run(self.executable.as_ref(), &placed.collect::<Vec<_>>()) {
            Ok(outputs) => Ok(Some(outputs)),
            Err(error) if is_of_rows(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether `rows`, which gave `outputs` together, give the same in other company; unknown if it can't be seen, since all rows
    /// give the same, or if the model fails or takes long.
    fn compare(
        &self,
        axes: &RowAxes,
        rows: &[Tensor],
        outputs: Vec<Tensor>,
        fixed: Option<usize>,
    ) -> Result<Dependence> {
        let count = fixed.unwrap_or_else(|| rows.first().map_or(0, Tensor::rows));
        let expected = by_rows(outputs, axes, count);
        let mut companies = vec![(0..count).rev().collect::<Vec<_>>()];
        match fixed {
            // Each row alone.
            None => companies.extend((0..count).map(|row| vec![row])),
            // Each row among copies of another.
            Some(_) => companies.extend((0..count.min(ROWS)).map(|row| {
                let other = (row + 1) % count;
                (0..count).map(|place| if place == row { row } else { other }).collect()
            })),
        }
        for company in companies {
            if self.is_late() {
                return Ok(Dependence::Unknown);
            }
            let rows: Vec<_> = rows.iter().map(|input| input.rows_at(&company)).collect();
            let Some(found) = self.run_placed(&axes.inputs, &rows)? else { return Ok(Dependence::Unknown) };
            let found = by_rows(found, axes, company.len());
            if !expected.iter().zip(&found).all(|(expected, found)| expected.agrees(found, &company, self.tolerance)) {
                return Ok(Dependence::Dependent);
            }
        }
        let differ = expected.iter().any(|scores| !scores.agrees(scores, &vec![0; count], self.tolerance));
        Ok(if differ { Dependence::Independent } else { Dependence::Unknown })
    }
}

/// Whether a run has failed that may succeed on other rows.
pub(super) fn is_of_rows(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::EngineFailed | ErrorKind::UnscorableRow)
}

/// Whether a row of these inputs has many elements.
pub(super) fn is_large(inputs: &[TensorSpec], size: usize) -> bool {
    let elements = |input: &TensorSpec| -> usize {
        let sizes = input.row_shape().iter().map(|dim| dim.size().unwrap_or(size));
        sizes.fold(1, usize::saturating_mul)
    };
    inputs.iter().map(elements).fold(0, usize::saturating_add) > LARGE
}

/// The only number of rows that a run can have, if there is one; `inputs` have their rows first.
pub(super) fn fixed_rows(inputs: &[TensorSpec]) -> Option<usize> {
    inputs.iter().find_map(|input| input.shape.first().and_then(Dimension::size))
}

/// One candidate for each output, in all combinations, but not more than a few.
fn combinations(candidates: &[Vec<usize>]) -> Vec<Vec<Option<usize>>> {
    const MOST: usize = 16;
    let mut all = vec![vec![]];
    for axes in candidates {
        let longer = all.into_iter().flat_map(|before: Vec<Option<usize>>| {
            axes.iter().map(move |axis| before.iter().copied().chain([Some(*axis)]).collect::<Vec<_>>())
        });
        all = longer.take(MOST).collect();
    }
    all
}

/// `dimension 1 of 'x' and dimension 2 of 'state'`
fn place(axes: &[RowAxis], inputs: &[Input]) -> String {
    let each = inputs.iter().zip(axes).map(|(Input { spec, .. }, axis)| match axis {
        Some(axis) => format!("dimension {} of '{}'", axis + 1, spec.name),
        None => format!("one '{}' for all", spec.name),
    });
    each.collect::<Vec<_>>().join(" and ")
}
