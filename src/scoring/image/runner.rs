//! Runs pictures through a graph that takes pixels.

use datafusion::arrow::array::{ArrayRef, AsArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::DataType;
use datafusion_predict_native::Tensor;

use crate::encode::ImagePreparation;
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
        let prepared = self.preparation.prepare(&images, context.threads, &context.cancel);
        let data = prepared.map_err(|(row, problem)| {
            let place = if rows > 1 { format!(" in row {} of a batch", row + 1) } else { String::new() };
            let bytes = images[row].len();
            error!(UnscorableRow, "model '{}': an image of {bytes} bytes{place} {problem}", self.label)
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
}

impl ImageRunner {
    fn unexpected(&self, problem: String) -> Error {
        error!(InvalidOutput, "model '{}': output '{}' {problem}", self.label, self.output)
    }
}
