//! A prediction and the filter on it, which are placed together.

use std::collections::HashSet;
use std::sync::Arc;

use datafusion::common::Result;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::utils::collect_columns;
use datafusion::physical_expr::{PhysicalExprRef, split_conjunction};
use datafusion::physical_expr_common::physical_expr::is_volatile;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::projection::{ProjectionExec, ProjectionExpr};

use super::estimate::Estimates;
use super::nodes::{with_children, with_columns};
use super::sink::{Call, Scored, Sinking};
use crate::plan::{Placement, PredictExec};

/// A prediction, and the filter on it.
pub(super) struct FilteredPrediction {
    predict: PredictExec,
    /// Over the columns of the prediction's node.
    conditions: Vec<PhysicalExprRef>,
    /// What is computed of the columns afterwards: only what it reads is needed.
    projection: Option<ProjectionExec>,
}

impl FilteredPrediction {
    pub(super) fn input(&self) -> &Arc<dyn ExecutionPlan> {
        self.predict.input()
    }

    /// `PredictExec`, with a `FilterExec` on top or not, and a projection on top or below the filter: fields of a struct are
    /// taken out before it.
    pub(super) fn of(plan: &Arc<dyn ExecutionPlan>) -> Result<Option<Self>> {
        if let Some(projection) = plan.downcast_ref::<ProjectionExec>() {
            let below = Self::without_projection(projection.input());
            return Ok(below.map(|unit| Self { projection: Some(projection.clone()), ..unit }));
        }
        if let Some(unit) = Self::without_projection(plan) {
            return Ok(Some(unit));
        }
        let Some(filter) = plain_filter(plan) else { return Ok(None) };
        let Some(projection) = filter.input().downcast_ref::<ProjectionExec>() else { return Ok(None) };
        let Some(predict) = projection.input().downcast_ref::<PredictExec>() else { return Ok(None) };
        let through = |column: &Column| projection.expr().get(column.index()).map(|expr| expr.expr.clone());
        let conditions = split_conjunction(filter.predicate())
            .into_iter()
            .map(|condition| with_columns(condition, &through))
            .collect::<Result<Option<Vec<_>>>>()?;
        let (predict, projection) = (predict.clone(), Some(projection.clone()));
        let conditions = conditions.filter(|conditions| !conditions.iter().any(is_volatile));
        Ok(conditions.map(|conditions| Self { predict, conditions, projection }))
    }

    fn without_projection(plan: &Arc<dyn ExecutionPlan>) -> Option<Self> {
        if let Some(predict) = plan.downcast_ref::<PredictExec>() {
            return Some(Self { predict: predict.clone(), conditions: vec![], projection: None });
        }
        let filter = plain_filter(plan)?;
        let predict = filter.input().downcast_ref::<PredictExec>()?.clone();
        // What has another value each time is asked of each row that the join gives.
        let conditions: Vec<_> = split_conjunction(filter.predicate()).into_iter().cloned().collect();
        (!conditions.iter().any(is_volatile)).then_some(Self { predict, conditions, projection: None })
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
            Some(_) => sinking.below(&call, &input, &self.needed(input.schema().fields().len()))?,
            None => None,
        };
        let (Some(here), Some(below)) = (here, below) else {
            let predict = self.predict.with_input(input)?;
            return over_prediction(original, Arc::new(predict));
        };
        // With a filter, fewer rows pass the join, too.
        if below.rows < here || (below.rows == here && below.filtered) {
            return self.with_columns_of(below.plan_at(Placement::BelowJoin { rows: below.rows, instead_of: here })?);
        }
        let predict = self.predict.with_input(input)?;
        let predict = predict.with_placement(Placement::AboveJoin { rows: here, instead_of: below.rows });
        over_prediction(original, Arc::new(predict))
    }

    /// The columns of the prediction's input that are read afterwards, of so many.
    fn needed(&self, width: usize) -> Vec<bool> {
        let Some(projection) = &self.projection else { return vec![true; width] };
        let read: HashSet<_> = projection.expr().iter().flat_map(|expr| collect_columns(&expr.expr)).collect();
        (0..width).map(|place| read.iter().any(|column| column.index() == place)).collect()
    }

    /// The columns that came out before, in their order.
    fn with_columns_of(&self, scored: Scored) -> Result<Arc<dyn ExecutionPlan>> {
        let exprs: Vec<_> = match &self.projection {
            Some(projection) => projection.expr().to_vec(),
            None => {
                let schema = self.predict.schema();
                let columns = schema.fields().iter().enumerate().map(|(place, field)| ProjectionExpr {
                    expr: Arc::new(Column::new(field.name(), place)),
                    alias: field.name().clone(),
                });
                columns.collect()
            }
        };
        let exprs = exprs
            .into_iter()
            .map(|ProjectionExpr { expr, alias }| Ok(ProjectionExpr { expr: scored.expr(&expr)?, alias }));
        let exprs = exprs.collect::<Result<Vec<_>>>()?;
        Ok(Arc::new(ProjectionExec::try_new(exprs, scored.plan)?))
    }
}

/// A filter that gives all columns and all rows that pass.
fn plain_filter(plan: &Arc<dyn ExecutionPlan>) -> Option<&FilterExec> {
    plan.downcast_ref::<FilterExec>().filter(|filter| filter.projection().is_none() && filter.fetch().is_none())
}

/// The nodes above a prediction as they were, over `predict`.
fn over_prediction(
    original: Arc<dyn ExecutionPlan>,
    predict: Arc<dyn ExecutionPlan>,
) -> Result<Arc<dyn ExecutionPlan>> {
    if original.is::<PredictExec>() {
        return Ok(predict);
    }
    let children = original.children().into_iter().map(|child| over_prediction(child.clone(), predict.clone()));
    let children = children.collect::<Result<Vec<_>>>()?;
    with_children(original, children)
}
