//! Runs pictures through a graph that takes pixels.

use datafusion::arrow::array::{ArrayRef, AsArray};
use datafusion::arrow::compute::{cast, concat};
use datafusion::arrow::datatypes::DataType;
use datafusion_predict_native::Tensor;

use crate::encode::{ImagePreparation, element_tensor};
use crate::engine::{Executable, RunContext};
use crate::error::{Error, Result, bail, error};
use crate::scoring::front::BeforeGraph;
use crate::scoring::head::Head;

/// What makes pictures the pixels that a graph takes. It takes one column of bytes: the content of files.
#[derive(Debug, Clone)]
pub(super) struct ImageRunner {
    /// The model's name, for errors.
    pub label: String,
    pub preparation: ImagePreparation,
    /// What becomes of the graph's only output; none if its outputs are given as they are.
    pub head: Option<Head>,
    /// The name of that output.
    pub output: String,
}

impl BeforeGraph for ImageRunner {
    fn run_columns(
        &self,
        graph: &dyn Executable,
        inputs: &[Vec<ArrayRef>],
        rows: usize,
        context: &RunContext,
    ) -> Result<Vec<Tensor>> {
        let Some(column) = inputs.iter().flatten().next() else {
            bail!(EngineFailed, "model '{}' was given no images", self.label)
        };
        // As views, so that a picture stands once however often it occurs.
        let views = cast(column, &DataType::BinaryView).map_err(|cause| {
            error!(EngineFailed, "model '{}': its images can't be read", self.label).with_source(cause)
        })?;
        let images: Vec<&[u8]> = views.as_binary_view().iter().map(Option::unwrap_or_default).collect();
        // Runs of no more than fit: a session may ask for any number of rows.
        let runs = images.chunks(self.preparation.most_rows()).map(|images| self.run_images(graph, images, context));
        together(runs.collect::<Result<Vec<_>>>()?, rows).map_err(|problem| self.unexpected(problem))
    }
}

/// The outputs of several runs, of `rows` rows together, as those of one.
fn together(mut runs: Vec<Vec<Tensor>>, rows: usize) -> Result<Vec<Tensor>, String> {
    if runs.len() == 1 {
        return Ok(runs.swap_remove(0));
    }
    let outputs = runs.first().map_or(0, Vec::len);
    let joined = (0..outputs).map(|place| {
        let parts: Vec<&Tensor> = runs.iter().filter_map(|run| run.get(place)).collect();
        let row_shape = &parts[0].shape[1.min(parts[0].shape.len())..];
        if parts.len() != runs.len() || parts.iter().any(|part| part.shape.get(1..) != Some(row_shape)) {
            return Err("has other sizes in other runs: use a smaller batch_size".to_owned());
        }
        let arrays: Vec<_> = parts.iter().map(|part| part.data.to_array()).collect();
        let arrays: Vec<_> = arrays.iter().map(AsRef::as_ref).collect();
        let all = concat(&arrays).map_err(|cause| cause.to_string())?;
        let data = element_tensor(parts[0].data.element(), &all, all.len()).map_err(|error| error.problem)?;
        Ok(Tensor { shape: std::iter::once(rows).chain(row_shape.iter().copied()).collect(), data })
    });
    joined.collect()
}

impl ImageRunner {
    /// One run of the graph.
    fn run_images(&self, graph: &dyn Executable, images: &[&[u8]], context: &RunContext) -> Result<Vec<Tensor>> {
        let rows = images.len();
        let prepared = self.preparation.prepare(images, context.threads, &context.cancel);
        let data = prepared.map_err(|(row, problem)| {
            let bytes = images[row].len();
            error!(UnscorableRow, "model '{}': an image of {bytes} bytes {problem}", self.label)
        })?;
        let Some(data) = data else { bail!(Cancelled, "model '{}': the query was cancelled", self.label) };
        let shape = std::iter::once(rows).chain(self.preparation.shape()).collect();
        let outputs = graph.run(&[Tensor { shape, data }], context)?;
        let Some(head) = &self.head else { return Ok(outputs) };
        let [output] = outputs.as_slice() else {
            return Err(self.unexpected(format!("is one of {} outputs, expected one", outputs.len())));
        };
        // All of a picture's vectors, where there are several, are its own.
        let parts = if let [_, parts, _] = output.shape.as_slice() { *parts } else { 1 };
        let mut values = head.of_batch(output, &vec![parts; rows]).map_err(|problem| self.unexpected(problem))?;
        let width = values.len().checked_div(rows).unwrap_or(0);
        values.chunks_exact_mut(width.max(1)).for_each(|values| head.finish(values));
        head.outputs(values, rows).map_err(|problem| self.unexpected(problem))
    }

    fn unexpected(&self, problem: String) -> Error {
        error!(InvalidOutput, "model '{}': output '{}' {problem}", self.label, self.output)
    }
}
