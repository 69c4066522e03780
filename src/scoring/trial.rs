//! Tries a model on made-up rows before it scores real ones.
//!
//! What a file declares is often wrong or silent: where the rows are, which sizes are free, whether rows are scored
//! independently of each other. Runs on rows that are known tell.

use std::sync::Arc;
use std::time::{Duration, Instant};

use datafusion_predict_native::{Dimension, Tensor, TensorData, TensorSpec};

use super::axes::{Input, RowAxes, RowAxis, output_candidates, placed, rows_first, with_axis_first};
use super::limit::limited;
use super::made_up::{self, Floats};
use crate::cancel::CancelToken;
use crate::engine::{Executable, RunContext};
use crate::error::{Error, ErrorKind, Result, bail, error};

/// Sizes that are given to dimensions which are not fixed. Small ones show little behind a stride, and large ones are too large
/// for some models. The last ones are for models that run in none of the others: they insist on one step, on nothing, or on the
/// window of a sound.
const SIZES: [usize; 7] = [7, 3, 64, 160, 1, 0, 512];

/// Those of [`SIZES`] in which a model is not tried that runs in another.
const LAST_RESORTS: [usize; 3] = [1, 0, 512];

/// Rows that are scored together and apart.
const ROWS: usize = 5;

/// As many where a row is large: what a model computes in between may be many times that.
const LARGE_ROWS: usize = 2;

/// Elements of a large row.
const LARGE: usize = 1 << 15;

/// Time for all of it, unless one run takes longer.
const LONGEST: Duration = Duration::from_secs(2);

/// How much two scores of one row may differ, relative to the largest in their place.
const TOLERANCE: f64 = 1e-5;

/// How much they may differ besides, relative to the largest of the output: a small probability that is computed as what the others
/// leave of 1 is rounded as 1 is.
const ROUNDING: f64 = 8.0 * f32::EPSILON as f64;

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

/// Runs of a model on made-up rows, when it is prepared.
#[derive(Clone, Copy)]
pub(super) struct Trial<'a> {
    label: &'a str,
    executable: &'a Arc<dyn Executable>,
    /// Ends them when nobody waits for the model any more.
    cancel: &'a CancelToken,
    /// The longest that one may take.
    max_run: Option<Duration>,
    /// When all of it should be over. None where the answer decides what is scored: it must not depend on how fast the machine
    /// is today.
    deadline: Option<Instant>,
}

impl<'a> Trial<'a> {
    pub(super) fn new(
        label: &'a str,
        executable: &'a Arc<dyn Executable>,
        cancel: &'a CancelToken,
        max_run: Option<Duration>,
    ) -> Self {
        Self { label, executable, cancel, max_run, deadline: Some(Instant::now() + LONGEST) }
    }

    fn run(&self, executable: &dyn Executable, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
        let context = RunContext { cancel: self.cancel.clone(), is_trial: true, ..Default::default() };
        limited(self.label, self.max_run, &context, |context| executable.run(inputs, context))
    }

    fn is_late(&self) -> bool {
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
        if self.executable.columnar().is_some() && known {
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
        let Ok(varied) = made_up::rows(specs, rows, size, floats) else { return Ok(None) };
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
            Err(error) if error.kind() == ErrorKind::EngineFailed => Ok(None),
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
            if !expected.iter().zip(&found).all(|(expected, found)| expected.agrees(found, &company)) {
                return Ok(Dependence::Dependent);
            }
        }
        let differ = expected.iter().any(|scores| !scores.agrees(scores, &vec![0; count]));
        Ok(if differ { Dependence::Independent } else { Dependence::Unknown })
    }

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
                made_up::rows(inputs, rows, size, Floats::Positive)
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
                Err(error) if error.kind() == ErrorKind::EngineFailed => {
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
}

/// Rows of the run that is timed, at most, and how long that run should take.
const TIMED_ROWS: usize = 256;
const TIMED: Duration = Duration::from_millis(100);

impl Trial<'_> {
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
            let Ok(values) = made_up::rows(inputs, rows, size, Floats::Positive) else { break };
            let start = Instant::now();
            match self.run(by_rows, &values) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::EngineFailed => break,
                Err(error) => return Err(error),
            }
            let each = start.elapsed() / rows as u32;
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

/// Whether a row of these inputs has many elements.
fn is_large(inputs: &[TensorSpec], size: usize) -> bool {
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

/// Scores of rows, to be compared.
struct Scores {
    rows: usize,
    values: Values,
}

enum Values {
    Numbers(Vec<f64>),
    Texts(Vec<String>),
}

/// The outputs with their rows first, as values.
fn by_rows(outputs: Vec<Tensor>, axes: &RowAxes, rows: usize) -> Vec<Scores> {
    let scores = outputs.into_iter().zip(&axes.outputs).map(|(output, axis)| {
        let axis = axis.filter(|axis| output.shape.get(*axis) == Some(&rows)).unwrap_or(0);
        let output = output.with_axis_first(axis);
        let width = output.data.len() / rows.max(1);
        Scores { rows, values: values(&output.data, width) }
    });
    scores.collect()
}

/// Values of a row that are compared, at most: of more every so many-th, so that a large output is not in memory again.
const COMPARED: usize = 1 << 16;

/// The values of rows of `width`.
fn values(data: &TensorData, width: usize) -> Values {
    // An odd step visits all channels.
    let step = width.div_ceil(COMPARED).max(1) | 1;
    macro_rules! numbers {
        ($data:expr, $to:expr) => {{
            let rows = $data.chunks(width.max(1));
            Values::Numbers(rows.flat_map(|row| row.iter().step_by(step).map(|value| $to(*value))).collect())
        }};
    }
    match data {
        TensorData::Float32(data) => numbers!(data, f64::from),
        TensorData::Float64(data) => numbers!(data, f64::from),
        TensorData::Float16(data) => numbers!(data, f64::from),
        TensorData::BFloat16(data) => numbers!(data, f64::from),
        TensorData::Int8(data) => numbers!(data, f64::from),
        TensorData::Int16(data) => numbers!(data, f64::from),
        TensorData::Int32(data) => numbers!(data, f64::from),
        TensorData::Int64(data) => numbers!(data, |value| value as f64),
        TensorData::UInt8(data) => numbers!(data, f64::from),
        TensorData::UInt16(data) => numbers!(data, f64::from),
        TensorData::UInt32(data) => numbers!(data, f64::from),
        TensorData::UInt64(data) => numbers!(data, |value| value as f64),
        TensorData::Bool(data) => numbers!(data, f64::from),
        TensorData::String(data) => {
            Values::Texts(data.iter().map(|text| text.unwrap_or_default().to_owned()).collect())
        }
    }
}

impl Scores {
    /// Whether `found`, the scores of the rows `company`, are those that these rows have here.
    fn agrees(&self, found: &Self, company: &[usize]) -> bool {
        let agree = |len: usize, found_len: usize, same: &dyn Fn(usize, usize, usize) -> bool| {
            let (width, found_width) = (len / self.rows.max(1), found_len / found.rows.max(1));
            // Of free sizes that depend on the values nothing can be said.
            width == found_width
                && company
                    .iter()
                    .enumerate()
                    .all(|(place, row)| (0..width).all(|item| same(item, row * width + item, place * width + item)))
        };
        match (&self.values, &found.values) {
            (Values::Texts(expected), Values::Texts(texts)) => {
                agree(expected.len(), texts.len(), &|_, a, b| expected.get(a) == texts.get(b))
            }
            (Values::Numbers(expected), Values::Numbers(numbers)) => {
                let width = expected.len() / self.rows.max(1);
                let finite = |value: f64| if value.is_finite() { value.abs() } else { 0.0 };
                let mut largest = vec![0.0_f64; width];
                for row in expected.chunks(width.max(1)) {
                    largest.iter_mut().zip(row).for_each(|(largest, value)| *largest = largest.max(finite(*value)));
                }
                let rounding = ROUNDING * largest.iter().copied().fold(0.0, f64::max);
                agree(expected.len(), numbers.len(), &|item, a, b| {
                    let (Some(a), Some(b)) = (expected.get(a), numbers.get(b)) else { return false };
                    let equal = a == b || (a.is_nan() && b.is_nan());
                    equal || (a - b).abs() <= TOLERANCE * largest[item].max(finite(*b)) + rounding
                })
            }
            _ => false,
        }
    }
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
