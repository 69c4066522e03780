//! Which dimension of each input and output is that of the rows.
//!
//! It is mostly the first, but not always: PyTorch's recurrent layers have their batch second by default, and the states of
//! an LSTM have the layers first. Names of dimensions tell (`batch`, or the name that is another input's first); where there
//! are none, several assignments are possible, and the model is [tried](super::trial) with each.

use std::sync::Arc;

use datafusion_predict_native::{Dimension, Tensor, TensorSpec};

use crate::engine::{Executable, RunContext};
use crate::error::{Result, bail};

/// Assignments that are tried, at most.
const MOST_ASSIGNMENTS: usize = 16;

/// The dimension of the rows, of each input and of each output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RowAxes {
    pub inputs: Vec<usize>,
    /// `None` where the whole output is the value of the only row.
    pub outputs: Vec<Option<usize>>,
    /// Dimensions of each output in a run of several rows: a model may drop that of a single row.
    pub ranks: Vec<usize>,
}

impl RowAxes {
    /// Whether the rows are first everywhere.
    pub(super) fn are_first(&self) -> bool {
        self.inputs.iter().all(|axis| *axis == 0) && self.outputs.iter().all(|axis| *axis == Some(0))
    }

    /// What is unusual about them, in words.
    pub(super) fn note(&self, inputs: &[TensorSpec], outputs: &[TensorSpec]) -> Option<String> {
        let of_inputs = inputs.iter().zip(self.inputs.iter().copied().map(Some));
        let of_outputs = outputs.iter().zip(self.outputs.iter().copied());
        let places = of_inputs.chain(of_outputs).filter(|(_, axis)| *axis != Some(0)).map(|(spec, axis)| match axis {
            Some(axis) => format!("rows are dimension {} of '{}'", axis + 1, spec.name),
            None => format!("a row's value is all of '{}'", spec.name),
        });
        let places: Vec<_> = places.collect();
        (!places.is_empty()).then(|| places.join(", "))
    }
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
        ["n", "b", "bs", "samples", "num_samples"].contains(&name.as_str()) || (simple && name.contains("batch"))
    })
}

/// The dimensions of an input that may be that of the rows, the most likely first.
fn candidates(input: &TensorSpec, inputs: &[TensorSpec]) -> Vec<usize> {
    let shape = &input.shape;
    if let Some(batch) = shape.iter().position(is_batch) {
        return vec![batch];
    }
    // The name that is first elsewhere.
    let firsts = inputs.iter().filter(|other| other.name != input.name).filter_map(|other| name(other.shape.first()?));
    for first in firsts {
        if let Some(same) = shape.iter().position(|dim| name(dim) == Some(first)) {
            return vec![same];
        }
    }
    let mut axes = vec![0];
    let fixed = inputs.iter().filter_map(|input| input.shape.first().and_then(Dimension::size)).collect::<Vec<_>>();
    for (axis, dim) in shape.iter().enumerate().skip(1) {
        let may_be = match dim {
            // A matrix has its rows first.
            Dimension::Dynamic(_) => name(dim).is_none() && (shape.len() > 2 || shape[0].size().is_some()),
            // Of a state with a fixed number of rows, where others say how many these are.
            Dimension::Fixed(size) => {
                let first = shape[0].size();
                shape.len() > 2 && first.is_some() && first != Some(*size) && fixed.contains(size)
            }
        };
        if may_be {
            axes.push(axis);
        }
    }
    axes
}

/// `spec`, whose rows are first, with them as dimension `axis`.
pub(super) fn with_first_axis_at(spec: &TensorSpec, axis: usize) -> TensorSpec {
    let mut shape = spec.shape.clone();
    if axis < shape.len() {
        let rows = shape.remove(0);
        shape.insert(axis, rows);
    }
    TensorSpec { shape, ..spec.clone() }
}

/// The ways in which the inputs' dimensions may be those of the rows, the most likely first.
///
/// # Errors
/// An input without dimensions, and inputs whose rows can't be the same.
pub(super) fn assignments(label: &str, inputs: &[TensorSpec]) -> Result<Vec<Vec<usize>>> {
    let mut all: Vec<Vec<usize>> = vec![vec![]];
    for input in inputs {
        let candidates = candidates(input, inputs);
        all = all
            .into_iter()
            .flat_map(|before| candidates.iter().map(move |axis| before.iter().copied().chain([*axis]).collect()))
            .take(MOST_ASSIGNMENTS)
            .collect();
    }
    let rows = |axes: &[usize]| -> Vec<Dimension> {
        let dims = inputs.iter().zip(axes).filter_map(|(input, axis)| input.shape.get(*axis));
        dims.cloned().collect()
    };
    let agree = |axes: &Vec<usize>| {
        let rows = rows(axes);
        let mut sizes = rows.iter().filter_map(Dimension::size);
        let mut names = rows.iter().filter(|dim| !is_batch(dim)).filter_map(name);
        let (size, first) = (sizes.next(), names.next());
        sizes.all(|other| Some(other) == size) && names.all(|other| Some(other) == first)
    };
    let first = all[0].clone();
    all.retain(agree);
    // Some rows of a fixed number, others of any: rather not, if it can be otherwise.
    let is_mixed = |axes: &Vec<usize>| {
        let rows = rows(axes);
        rows.iter().any(|dim| dim.size().is_some_and(|size| size > 1)) && rows.iter().any(|dim| dim.size().is_none())
    };
    all.sort_by_key(|axes| (is_mixed(axes), axes.iter().sum::<usize>()));
    if all.is_empty() {
        let rows: Vec<_> =
            inputs.iter().zip(rows(&first)).map(|(input, dim)| format!("'{}' has {dim}", input.name)).collect();
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

/// A model whose rows are not first everywhere, behind inputs and outputs whose rows are.
///
/// Its tensors are copied into the order that the model wants, and back.
#[derive(Debug)]
pub(super) struct RowsFirst {
    inner: Arc<dyn Executable>,
    axes: RowAxes,
}

impl RowsFirst {
    /// `inner` itself, if its rows are first.
    pub(super) fn around(inner: Arc<dyn Executable>, axes: &RowAxes) -> Arc<dyn Executable> {
        if axes.are_first() { inner } else { Arc::new(Self { inner, axes: axes.clone() }) }
    }
}

impl Executable for RowsFirst {
    fn run(&self, inputs: &[Tensor], context: &RunContext) -> Result<Vec<Tensor>> {
        let rows = inputs.first().map_or(0, Tensor::rows);
        let inputs: Vec<_> =
            inputs.iter().zip(&self.axes.inputs).map(|(tensor, axis)| tensor.with_first_axis_at(*axis)).collect();
        let outputs = self.inner.run(&inputs, context)?;
        let RowAxes { outputs: axes, ranks, .. } = &self.axes;
        let first = |((mut tensor, axis), rank): ((Tensor, &Option<usize>), &usize)| {
            let place = axis.unwrap_or(0);
            let dropped = axis.is_none() || (rows == 1 && tensor.shape.len() + 1 == *rank);
            if dropped && place <= tensor.shape.len() {
                tensor.shape.insert(place, 1);
            }
            // What is wrong with another is said where it is decoded.
            if tensor.shape.len() > place { tensor.with_axis_first(place) } else { tensor }
        };
        Ok(outputs.into_iter().zip(axes).zip(ranks).map(first).collect())
    }

    fn device(&self) -> String {
        self.inner.device()
    }

    fn sessions(&self) -> usize {
        self.inner.sessions()
    }

    fn size(&self) -> Option<usize> {
        self.inner.size()
    }
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

    #[test]
    fn names_and_sizes_of_dimensions_tell_which_are_rows() {
        for (inputs, expected) in [
            (vec![spec("x", &["N", "4"])], vec![vec![0]]),
            (vec![spec("x", &["?", "?"])], vec![vec![0]]),
            (vec![spec("x", &["time", "batch", "2"])], vec![vec![1]]),
            (vec![spec("x", &["3", "batch", "2"])], vec![vec![1]]),
            (vec![spec("x", &["?", "?", "2"])], vec![vec![0], vec![1]]),
            (vec![spec("x", &["N", "?", "2"])], vec![vec![0]]),
            (vec![spec("x", &["batch", "3"]), spec("state", &["2", "batch", "3"])], vec![vec![0, 1]]),
            (vec![spec("x", &["m", "3"]), spec("state", &["2", "m", "3"])], vec![vec![0, 1]]),
            (vec![spec("x", &["?", "3"]), spec("state", &["2", "?", "3"])], vec![vec![0, 1], vec![0, 0]]),
            (vec![spec("x", &["1", "512"]), spec("state", &["2", "1", "64"])], vec![vec![0, 1]]),
            (vec![spec("ids", &["unk__1", "unk__2"]), spec("mask", &["unk__3", "unk__4"])], vec![vec![0, 0]]),
            (vec![spec("x", &["seq", "1", "3"])], vec![vec![0]]),
        ] {
            let found = assignments("m", &inputs).expect("rows");
            assert_eq!(found, expected, "{}", inputs[0]);
        }
    }

    #[test]
    fn inputs_with_different_rows_are_refused() {
        let error =
            assignments("m", &[spec("x", &["num_nodes", "4"]), spec("e", &["num_edges"])]).expect_err("a graph");
        assert_eq!(
            error.to_string(),
            "model 'm': its inputs have different rows, so it can't be called for each row of a table: 'x' has num_nodes, 'e' has num_edges"
        );
        assert!(assignments("m", &[spec("x", &["2", "4"]), spec("y", &["3", "4"])]).is_err());
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
