//! A model behind inputs and outputs whose rows are first.

use std::sync::Arc;

use datafusion_predict_native::Tensor;

use super::axes::{RowAxes, placed};
use crate::engine::{Executable, Placement, RunContext};
use crate::error::Result;

/// A model whose rows are not first everywhere, or that takes more than calls give, behind inputs and outputs whose rows are
/// first.
///
/// Its tensors are copied into the order that the model wants, and back; its constants are put beside them.
#[derive(Debug)]
pub(super) struct RowsFirst {
    inner: Arc<dyn Executable>,
    axes: RowAxes,
    /// For each input of the model one row, if that is what all rows have.
    constants: Vec<Option<Tensor>>,
}

impl RowsFirst {
    /// `inner` itself, if its rows are first and it has no constants.
    pub(super) fn around(
        inner: Arc<dyn Executable>,
        axes: &RowAxes,
        constants: Vec<Option<Tensor>>,
    ) -> Arc<dyn Executable> {
        if axes.are_first() && constants.iter().all(Option::is_none) {
            return inner;
        }
        Arc::new(Self { inner, axes: axes.clone(), constants })
    }
}

impl Executable for RowsFirst {
    fn run(&self, inputs: &[Tensor], context: &RunContext) -> Result<Vec<Tensor>> {
        let rows = inputs.first().map_or(0, Tensor::rows);
        let mut given = inputs.iter();
        let each = self.constants.iter().zip(&self.axes.inputs);
        let inputs = each.filter_map(|(constant, axis)| match constant {
            Some(row) if axis.is_none() => Some(placed(row, None)),
            Some(row) => Some(placed(&row.rows_at(&vec![0; rows]), *axis)),
            None => given.next().map(|tensor| placed(tensor, *axis)),
        });
        let outputs = self.inner.run(&inputs.collect::<Vec<_>>(), context)?;
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

    fn placement(&self) -> Option<Placement> {
        self.inner.placement()
    }

    fn notes(&self) -> Vec<String> {
        self.inner.notes()
    }

    fn variant(&self) -> String {
        self.inner.variant()
    }

    fn sessions(&self) -> usize {
        self.inner.sessions()
    }

    fn size(&self) -> Option<usize> {
        self.inner.size()
    }
}
