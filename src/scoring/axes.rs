//! Which dimension of each input and output is that of the rows.
//!
//! It is mostly the first, but not always: PyTorch's recurrent layers have their batch second by default, and the states of
//! an LSTM have the layers first. Names of dimensions tell (`batch`, or the name that is another input's first); where there
//! are none, several assignments are possible, and the model is [tried](super::trial) with each.
//!
//! Some inputs have no dimension for the rows: a sampling rate, a temperature. All rows of a run share their value.

use std::collections::HashSet;

use datafusion_predict_native::{Dimension, Tensor, TensorSpec};

use super::constant::Constant;
use crate::error::{Result, bail};

/// Assignments that are tried, at most, and those that are looked at.
const MOST_ASSIGNMENTS: usize = 16;
const MOST_COMBINATIONS: usize = 4096;

/// The dimension of an input that is that of the rows; `None` if it has none, since all rows of a run share its value.
pub(super) type RowAxis = Option<usize>;

/// The dimension of the rows, of each input and of each output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RowAxes {
    pub inputs: Vec<RowAxis>,
    /// `None` where the whole output is the value of the only row.
    pub outputs: Vec<Option<usize>>,
    /// Dimensions of each output in a run of several rows: a model may drop that of a single row.
    pub ranks: Vec<usize>,
}

impl RowAxes {
    /// Whether the rows are first everywhere.
    pub(super) fn are_first(&self) -> bool {
        self.inputs.iter().all(|axis| *axis == Some(0)) && self.outputs.iter().all(|axis| *axis == Some(0))
    }

    /// What is unusual about them, in words.
    pub(super) fn note(&self, inputs: &[Input], outputs: &[TensorSpec]) -> Option<String> {
        let elsewhere = |axis: usize, spec: &TensorSpec| format!("rows are dimension {} of '{}'", axis + 1, spec.name);
        let of_inputs = inputs.iter().zip(&self.inputs).filter_map(|(input, axis)| match axis {
            _ if input.constant.is_some() => None,
            Some(0) => None,
            Some(axis) => Some(elsewhere(*axis, &input.spec)),
            None if self.inputs.iter().all(Option::is_none) => None, // rows are scored one by one
            None => Some(format!("rows of one run share '{}', so others run for each of its values", input.spec.name)),
        });
        let of_outputs = outputs.iter().zip(&self.outputs).filter_map(|(output, axis)| match axis {
            Some(0) => None,
            Some(axis) => Some(elsewhere(*axis, output)),
            None => Some(format!("a row's value is all of '{}'", output.name)),
        });
        let places: Vec<_> = of_inputs.chain(of_outputs).collect();
        (!places.is_empty()).then(|| places.join(", "))
    }
}

/// An input of a model, as its file declares it.
#[derive(Debug, Clone)]
pub(super) struct Input {
    pub spec: TensorSpec,
    /// What all rows have there, if an option says so.
    pub constant: Option<Constant>,
}

/// `spec` with dimension `axis` first.
pub(super) fn with_axis_first(spec: &TensorSpec, axis: usize) -> TensorSpec {
    let mut shape = spec.shape.clone();
    if axis < shape.len() {
        let rows = shape.remove(axis);
        shape.insert(0, rows);
    }
    TensorSpec { shape, ..spec.clone() }
}

/// The inputs' specs with the rows first. One that all rows of a run share gets a dimension for them, so that it is a feature
/// like others; if no input has rows, each row is a run of its own.
pub(super) fn rows_first(inputs: &[Input], axes: &[RowAxis]) -> Vec<TensorSpec> {
    let alone = axes.iter().all(Option::is_none);
    let rows = || if alone { Dimension::Fixed(1) } else { Dimension::Dynamic(None) };
    let specs = inputs.iter().zip(axes).map(|(Input { spec, .. }, axis)| match axis {
        Some(axis) => with_axis_first(spec, *axis),
        None => TensorSpec { shape: std::iter::once(rows()).chain(spec.shape.clone()).collect(), ..spec.clone() },
    });
    specs.collect()
}

/// The values of an input for rows, which are first, as the graph takes them.
pub(super) fn placed(tensor: &Tensor, axis: RowAxis) -> Tensor {
    match axis {
        Some(axis) => tensor.with_first_axis_at(axis),
        None => {
            let mut shared = tensor.clone().truncated(1); // all rows have the same
            shared.shape.remove(0);
            shared
        }
    }
}

/// The dimension's name, if it is one that somebody chose.
fn name(dimension: &Dimension) -> Option<&str> {
    let Dimension::Dynamic(Some(name)) = dimension else { return None };
    // What tf2onnx and torch.onnx call dimensions that nobody has named.
    let number = ["s", "d", "dim", "dim_", "?"].iter().find_map(|prefix| name.strip_prefix(prefix)).unwrap_or(name);
    let is_numbered = !number.is_empty() && number.chars().all(|c| c.is_ascii_digit());
    let made_up = name.contains("unk_") || name.contains("dynamic_axes") || name == "None" || is_numbered;
    (!made_up).then_some(name)
}

/// Whether a dimension's name says that it is that of the rows.
fn is_batch(dimension: &Dimension) -> bool {
    name(dimension).is_some_and(|name| {
        let name = name.to_ascii_lowercase();
        let simple = name.chars().all(|c| c.is_alphanumeric() || c == '_');
        ["n", "b", "bs", "samples", "num_samples", "rows", "num_rows", "n_rows"].contains(&name.as_str())
            || (simple && name.contains("batch"))
    })
}

/// Whether a dimension's name says that it is another than that of the rows.
fn is_other(dimension: &Dimension) -> bool {
    const OTHERS: [&str; 10] =
        ["seq", "time", "step", "len", "frame", "token", "height", "width", "channel", "feature"];
    name(dimension).is_some_and(|name| OTHERS.iter().any(|other| name.to_ascii_lowercase().contains(other)))
}

/// The dimensions of an input that may be that of the rows, the most likely first.
fn candidates(input: &Input, inputs: &[Input]) -> Vec<RowAxis> {
    let is_constant = input.constant.is_some();
    let input = &input.spec;
    let shape = &input.shape;
    if let Some(batch) = shape.iter().position(is_batch) {
        return vec![Some(batch)];
    }
    let others = || inputs.iter().map(|other| &other.spec).filter(|other| other.name != input.name);
    // The name that is first elsewhere.
    for first in others().filter_map(|other| name(other.shape.first()?)) {
        if let Some(same) = shape.iter().position(|dim| name(dim) == Some(first)) {
            return vec![Some(same)];
        }
    }
    if shape.is_empty() {
        return vec![None];
    }
    // Where others take any number of rows, one of a fixed size has none; the state of a recurrent model may have one row, where
    // nobody says which dimension is that of the others.
    let is_free = |dim: &Dimension| dim.size().is_none();
    let may_have_rows =
        |other: &TensorSpec| other.shape.first().is_some_and(is_free) || other.shape.iter().any(is_batch);
    if !shape.iter().any(is_free) && others().any(may_have_rows) {
        let one = shape.iter().position(|dim| dim.size() == Some(1)).map(Some);
        let is_state = shape.len() > 1 && !others().any(|other| other.shape.iter().any(is_batch));
        return [None].into_iter().chain(one.filter(|_| is_state)).collect();
    }
    // All sizes of a constant are known but that of the rows.
    if let (true, [only]) =
        (is_constant, (0..shape.len()).filter(|axis| is_free(&shape[*axis])).collect::<Vec<_>>().as_slice())
    {
        return vec![Some(*only)];
    }
    let mut axes = vec![0];
    let firsts = inputs.iter().filter_map(|input| input.spec.shape.first());
    let fixed: Vec<_> = firsts.filter_map(Dimension::size).collect();
    for (axis, dim) in shape.iter().enumerate().skip(1) {
        let may_be = match dim {
            // A matrix has its rows first.
            Dimension::Dynamic(_) => !is_other(dim) && (shape.len() > 2 || shape[0].size().is_some()),
            // Of a state with a fixed number of rows, where others say how many these are.
            Dimension::Fixed(size) => {
                let first = shape[0].size();
                let is_alone = *size == 1 && inputs.len() == 1; // a batch of one behind the time
                shape.len() > 2 && first.is_some() && first != Some(*size) && (fixed.contains(size) || is_alone)
            }
        };
        if may_be {
            axes.push(axis);
        }
    }
    axes.into_iter().map(Some).collect()
}

/// The ways in which the inputs' dimensions may be those of the rows, the most likely first.
///
/// # Errors
/// Inputs whose rows can't be the same.
pub(super) fn assignments(label: &str, inputs: &[Input]) -> Result<Vec<Vec<RowAxis>>> {
    let mut all: Vec<Vec<RowAxis>> = vec![vec![]];
    for input in inputs {
        let candidates = candidates(input, inputs);
        all = all
            .into_iter()
            .flat_map(|before| candidates.iter().map(move |axis| before.iter().copied().chain([*axis]).collect()))
            .take(MOST_COMBINATIONS)
            .collect();
    }
    let rows = |axes: &[RowAxis]| -> Vec<(&TensorSpec, &Dimension)> {
        let dims =
            inputs.iter().zip(axes).filter_map(|(input, axis)| Some((&input.spec, input.spec.shape.get((*axis)?)?)));
        dims.collect()
    };
    let agree = |axes: &Vec<RowAxis>| {
        let rows: Vec<_> = rows(axes).into_iter().map(|(_, dim)| dim).collect();
        let mut sizes = rows.iter().filter_map(|dim| dim.size());
        let mut names = rows.iter().filter(|dim| !is_batch(dim)).filter_map(|dim| name(dim));
        let (size, first) = (sizes.next(), names.next());
        sizes.all(|other| Some(other) == size) && names.all(|other| Some(other) == first)
    };
    let first = all[0].clone();
    all.retain(agree);
    // Some rows of a fixed number, others of any: rather not, if it can be otherwise.
    let is_mixed = |axes: &Vec<RowAxis>| {
        let rows = rows(axes);
        let fixed = rows.iter().any(|(_, dim)| dim.size().is_some_and(|size| size > 1));
        fixed && rows.iter().any(|(_, dim)| dim.size().is_none())
    };
    // Where rows come one at a time there is nothing to share.
    let shares_alone =
        |axes: &Vec<RowAxis>| axes.contains(&None) && rows(axes).iter().any(|(_, dim)| dim.size() == Some(1));
    // One place for all is more likely than several.
    let places = |axes: &Vec<RowAxis>| axes.iter().flatten().collect::<HashSet<_>>().len();
    all.sort_by_key(|axes| (is_mixed(axes), shares_alone(axes), places(axes), axes.iter().flatten().sum::<usize>()));
    all.truncate(MOST_ASSIGNMENTS);
    if all.is_empty() {
        let rows = rows(&first).into_iter();
        let rows: Vec<_> = rows.map(|(spec, dim)| format!("'{}' has {dim}", spec.name)).collect();
        bail!(
            InvalidModel,
            "model '{label}': its inputs have different rows, so it can't be called for each row of a table: {}",
            rows.join(", ")
        );
    }
    Ok(all)
}

/// The dimensions of an output that may be that of the rows, by its shapes in a run of one row and in one of `rows`; the most
/// likely first.
pub(super) fn output_candidates(
    declared: &TensorSpec,
    one: Option<&[usize]>,
    several: &[usize],
    rows: usize,
) -> Vec<usize> {
    let grows = |axis: &usize| {
        let others = |shape: &[usize]| -> usize {
            shape.iter().enumerate().filter(|(i, _)| i != axis).map(|(_, size)| size).product()
        };
        // A model may drop the dimension where it is one.
        // Of a single row any dimension of 1 might be it.
        let may_be = rows > 1 || *axis == 0 || declared.shape.get(*axis).is_some_and(is_batch);
        may_be && several[*axis] == rows && one.is_none_or(|one| one.iter().product::<usize>() == others(several))
    };
    let mut axes: Vec<usize> = (0..several.len()).filter(grows).collect();
    axes.sort_by_key(|axis| !declared.shape.get(*axis).is_some_and(is_batch));
    axes
}

#[cfg(test)]
mod tests {
    use datafusion_predict_native::ElementType;

    use super::*;

    fn spec(name: &str, dims: &[&str]) -> TensorSpec {
        let shape = dims.iter().map(|dim| match dim.parse() {
            Ok(size) => Dimension::Fixed(size),
            Err(_) => Dimension::Dynamic((*dim != "?").then(|| (*dim).to_owned())),
        });
        TensorSpec { name: name.to_owned(), element: ElementType::Float32, shape: shape.collect() }
    }

    fn inputs(specs: Vec<TensorSpec>) -> Vec<Input> {
        specs.into_iter().map(|spec| Input { spec, constant: None }).collect()
    }

    #[test]
    fn names_and_sizes_of_dimensions_tell_which_are_rows() {
        let (zero, one) = (Some(0), Some(1));
        for (specs, expected) in [
            (vec![spec("x", &["N", "4"])], vec![vec![zero]]),
            (vec![spec("x", &["?", "?"])], vec![vec![zero]]),
            (vec![spec("x", &["time", "batch", "2"])], vec![vec![one]]),
            (vec![spec("x", &["3", "batch", "2"])], vec![vec![one]]),
            (vec![spec("x", &["?", "?", "2"])], vec![vec![zero], vec![one]]),
            (vec![spec("x", &["N", "?", "2"])], vec![vec![zero]]),
            (vec![spec("x", &["steps", "rows", "2"])], vec![vec![one]]),
            (vec![spec("x", &["12", "customers", "2"])], vec![vec![zero], vec![one]]),
            (vec![spec("x", &["customers", "steps", "2"])], vec![vec![zero]]),
            (vec![spec("x", &["batch", "3"]), spec("state", &["2", "batch", "3"])], vec![vec![zero, one]]),
            (vec![spec("x", &["m", "3"]), spec("state", &["2", "m", "3"])], vec![vec![zero, one]]),
            (vec![spec("x", &["?", "3"]), spec("state", &["2", "?", "3"])], vec![vec![zero, one], vec![zero, zero]]),
            (vec![spec("x", &["1", "512"]), spec("state", &["2", "1", "64"])], vec![vec![zero, one]]),
            (vec![spec("ids", &["unk__1", "unk__2"]), spec("mask", &["unk__3", "unk__4"])], vec![vec![zero, zero]]),
            (vec![spec("x", &["seq", "1", "3"])], vec![vec![zero]]),
            (vec![spec("x", &["12", "1", "3"])], vec![vec![zero], vec![one]]),
            (vec![spec("x", &["N", "4"]), spec("k", &[])], vec![vec![zero, None]]),
            (vec![spec("x", &["N", "4"]), spec("k", &["3"])], vec![vec![zero, None]]),
            (vec![spec("x", &["N", "4"]), spec("k", &["1"])], vec![vec![zero, None]]),
            (vec![spec("x", &["seq", "4"]), spec("h", &["1", "8"])], vec![vec![zero, None], vec![zero, zero]]),
            (vec![spec("k", &[])], vec![vec![None]]),
        ] {
            let found = assignments("m", &inputs(specs.clone())).expect("rows");
            assert_eq!(found, expected, "{}", specs[0]);
        }
    }

    #[test]
    fn one_place_for_all_inputs_is_tried_first_however_many_there_are() {
        let five: Vec<_> = (0..5).map(|i| spec(&format!("x{i}"), &["?", "?", "2"])).collect();
        let found = assignments("m", &inputs(five)).expect("rows");
        assert_eq!(found[..2], [vec![Some(0); 5], vec![Some(1); 5]]);
        assert_eq!(found.len(), MOST_ASSIGNMENTS);
    }

    #[test]
    fn inputs_with_different_rows_are_refused() {
        let refused = |specs| assignments("m", &inputs(specs)).expect_err("a graph").to_string();
        assert_eq!(
            refused(vec![spec("x", &["num_nodes", "4"]), spec("e", &["num_edges"])]),
            "model 'm': its inputs have different rows, so it can't be called for each row of a table: 'x' has num_nodes, 'e' has num_edges"
        );
        refused(vec![spec("x", &["2", "4"]), spec("y", &["3", "4"])]);
    }

    #[test]
    fn an_outputs_rows_are_the_dimension_that_grows() {
        let y = spec("y", &["?", "?", "2"]);
        assert_eq!(output_candidates(&y, Some(&[7, 1, 2]), &[7, 5, 2], 5), [1]);
        assert_eq!(output_candidates(&y, Some(&[1, 5, 2]), &[5, 5, 2], 5), [0, 1]);
        assert_eq!(output_candidates(&spec("y", &["N"]), Some(&[]), &[5], 5), [0]);
        assert_eq!(output_candidates(&spec("y", &["T", "batch"]), None, &[2, 2], 2), [1, 0]);
        assert_eq!(
            output_candidates(&spec("y", &["?", "1", "4"]), None, &[7, 1, 4], 1),
            [0; 0],
            "all of it is the value"
        );
    }
}
