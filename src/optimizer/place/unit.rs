//! A prediction and the filter on it, which are placed together.

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{PhysicalExprRef, split_conjunction};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::projection::ProjectionExec;

use super::estimate::Estimates;
use super::nodes::{with_children, with_columns};
use super::sink::{Call, Sinking};
use crate::plan::{Placement, PredictExec};

/// A prediction, and the filter on it.
pub(super) struct FilteredPrediction {
    predict: PredictExec,
    /// Over the columns of the prediction's node.
    conditions: Vec<PhysicalExprRef>,
    /// What is computed of the columns afterwards.
    projection: Option<ProjectionExec>,
}

impl FilteredPrediction {
    pub(super) fn input(&self) -> &Arc<dyn ExecutionPlan> {
        self.predict.input()
    }

    /// `PredictExec`, with a `FilterExec` on top or not, and maybe a projection between them: fields of a struct are taken
    /// out before the filter.
    pub(super) fn of(plan: &Arc<dyn ExecutionPlan>) -> Result<Option<Self>> {
        if let Some(predict) = plan.downcast_ref::<PredictExec>() {
            return Ok(Some(Self { predict: predict.clone(), conditions: vec![], projection: None }));
        }
        let Some(filter) = plan.downcast_ref::<FilterExec>() else { return Ok(None) };
        if filter.projection().is_some() || filter.fetch().is_some() {
            return Ok(None);
        }
        if let Some(predict) = filter.input().downcast_ref::<PredictExec>() {
            let conditions = split_conjunction(filter.predicate()).into_iter().cloned().collect();
            return Ok(Some(Self { predict: predict.clone(), conditions, projection: None }));
        }
        let Some(projection) = filter.input().downcast_ref::<ProjectionExec>() else { return Ok(None) };
        let Some(predict) = projection.input().downcast_ref::<PredictExec>() else { return Ok(None) };
        let through = |column: &Column| projection.expr().get(column.index()).map(|expr| expr.expr.clone());
        let conditions = split_conjunction(filter.predicate())
            .into_iter()
            .map(|condition| with_columns(condition, &through))
            .collect::<Result<Option<Vec<_>>>>()?;
        Ok(conditions.map(|conditions| Self {
            predict: predict.clone(),
            conditions,
            projection: Some(projection.clone()),
        }))
    }

    /// The plan with the prediction where it has the fewest rows over `input`; `original`, with `input`, if that is where
    /// it is.
    pub(super) fn placed_over(
        self,
        input: Arc<dyn ExecutionPlan>,
        original: Arc<dyn ExecutionPlan>,
        limit: Option<usize>,
        estimates: &Estimates,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let mut here = estimates.rows(&input).map(|rows| rows.rows);
        if let (Some(rows), Some(limit), true) = (&mut here, limit, self.conditions.is_empty()) {
            *rows = rows.min(limit as f64);
        }
        let call = Call {
            features: self.predict.features().to_vec(),
            condition: self.predict.condition().cloned(),
            filters: self.conditions.clone(),
        };
        let sinking = Sinking { predict: &self.predict, estimates };
        let below = match here {
            Some(_) => sinking.below(&call, &input)?,
            None => None,
        };
        let (Some(here), Some(below)) = (here, below) else {
            let predict: Arc<dyn ExecutionPlan> = Arc::new(self.predict.with_input(input)?);
            return self.rebuilt(predict, original);
        };
        // With a filter, fewer rows pass the join, too.
        if below.rows < here || (below.rows == here && below.filtered) {
            let placed = below.plan_at(Placement::BelowJoin { rows: below.rows, instead_of: here })?;
            return match &self.projection {
                Some(projection) => Ok(Arc::new(ProjectionExec::try_new(projection.expr().to_vec(), placed)?)),
                None => Ok(placed),
            };
        }
        let predict = self.predict.with_input(input)?;
        let predict = predict.with_placement(Placement::AboveJoin { rows: here, instead_of: below.rows });
        self.rebuilt(Arc::new(predict), original)
    }

    /// The nodes above the prediction as they were.
    fn rebuilt(
        &self,
        predict: Arc<dyn ExecutionPlan>,
        original: Arc<dyn ExecutionPlan>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        if original.is::<PredictExec>() {
            return Ok(predict);
        }
        let below = match &self.projection {
            Some(projection) => Arc::new(ProjectionExec::try_new(projection.expr().to_vec(), predict)?),
            None => predict,
        };
        with_children(original, vec![below])
    }
}
