//! The way of a prediction down the joins of a plan.

use std::ops::Range;
use std::sync::Arc;

use datafusion::common::Result;
use datafusion::physical_expr::PhysicalExprRef;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::utils::collect_columns;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::projection::{ProjectionExec, ProjectionExpr};

use super::estimate::Estimates;
use super::nodes::{filter, with_children, with_column_last, with_columns};
use crate::optimizer::joins::{JoinView, Side};
use crate::plan::{Placement, PredictExec};

/// What is to be placed, over the columns of some plan; the prediction is the column behind them.
#[derive(Clone)]
pub(super) struct Call {
    pub(super) features: Vec<PhysicalExprRef>,
    pub(super) condition: Option<PhysicalExprRef>,
    pub(super) filters: Vec<PhysicalExprRef>,
}

impl Call {
    /// Over other columns, and the filters that stay behind; `None` if an argument is not among them.
    fn over(
        &self,
        places: &dyn Fn(usize) -> Option<PhysicalExprRef>,
        width: usize,
        prediction: PhysicalExprRef,
    ) -> Result<Option<(Self, Vec<PhysicalExprRef>)>> {
        let of_input = |column: &Column| if column.index() < width { places(column.index()) } else { None };
        let features = self.features.iter().map(|feature| with_columns(feature, &of_input));
        let Some(features) = features.collect::<Result<Option<Vec<_>>>>()? else { return Ok(None) };
        let condition = match &self.condition {
            None => None,
            Some(condition) => match with_columns(condition, &of_input)? {
                Some(condition) => Some(condition),
                None => return Ok(None),
            },
        };
        let of_output =
            |column: &Column| if column.index() == width { Some(prediction.clone()) } else { of_input(column) };
        let (mut filters, mut left) = (vec![], vec![]);
        for filter in &self.filters {
            match with_columns(filter, &of_output)? {
                Some(moved) => filters.push(moved),
                None => left.push(filter.clone()),
            }
        }
        Ok(Some((Self { features, condition, filters }, left)))
    }
}

/// A place that was found.
pub(super) struct Place<'a> {
    /// The rows that are scored there.
    pub(super) rows: f64,
    /// Whether a filter on the prediction is applied there.
    pub(super) filtered: bool,
    /// The plan that the prediction was over, with it below; its columns, and the prediction behind them.
    build: Box<dyn Fn(Placement) -> Result<Arc<dyn ExecutionPlan>> + 'a>,
}

impl Place<'_> {
    pub(super) fn plan_at(&self, placement: Placement) -> Result<Arc<dyn ExecutionPlan>> {
        (self.build)(placement)
    }
}

/// The way of one prediction down a plan.
pub(super) struct Sinking<'a> {
    pub(super) predict: &'a PredictExec,
    pub(super) estimates: &'a Estimates,
}

impl<'a> Sinking<'a> {
    /// The best place for `call` below the joins of `plan`, through projections.
    pub(super) fn below(&'a self, call: &Call, plan: &Arc<dyn ExecutionPlan>) -> Result<Option<Place<'a>>> {
        if let Some(projection) = plan.downcast_ref::<ProjectionExec>() {
            return self.below_projection(call, projection);
        }
        match JoinView::of(plan) {
            Some(join) => self.below_join(call, plan, &join),
            None => Ok(None),
        }
    }

    fn below_projection(&'a self, call: &Call, projection: &ProjectionExec) -> Result<Option<Place<'a>>> {
        let width = projection.expr().len();
        let input = projection.input();
        let prediction = Column::new(self.predict.output_name(), input.schema().fields().len());
        let column = |place: usize| {
            let expr = projection.expr().get(place)?;
            expr.expr.is::<Column>().then(|| expr.expr.clone())
        };
        let Some((moved, left)) = call.over(&column, width, Arc::new(prediction.clone()))? else { return Ok(None) };
        let Some(place) = self.below(&moved, input)? else { return Ok(None) };
        let mut exprs = projection.expr().to_vec();
        exprs.push(ProjectionExpr { expr: Arc::new(prediction), alias: self.predict.output_name().to_owned() });
        let Place { rows, filtered, build } = place;
        let build =
            move |placement| filter(&left, Arc::new(ProjectionExec::try_new(exprs.clone(), build(placement)?)?));
        Ok(Some(Place { rows, filtered, build: Box::new(build) }))
    }

    fn below_join(
        &'a self,
        call: &Call,
        plan: &Arc<dyn ExecutionPlan>,
        join: &JoinView<'_>,
    ) -> Result<Option<Place<'a>>> {
        for side in [Side::Left, Side::Right] {
            let Some(columns) = join.columns_below(side) else { continue };
            if let Some(place) = self.on_side(call, plan, join, side, columns)? {
                return Ok(Some(place));
            }
        }
        Ok(None)
    }

    /// The best place on one side of a join, if all arguments are there.
    fn on_side(
        &'a self,
        call: &Call,
        plan: &Arc<dyn ExecutionPlan>,
        join: &JoinView<'_>,
        side: Side,
        columns: Range<usize>,
    ) -> Result<Option<Place<'a>>> {
        let (width, input) = (plan.schema().fields().len(), join.input(side));
        let prediction = Column::new(self.predict.output_name(), columns.len());
        let of_side = |place: usize| -> Option<PhysicalExprRef> {
            let schema = input.schema();
            let place = columns.contains(&place).then(|| place - columns.start)?;
            Some(Arc::new(Column::new(schema.field(place).name(), place)))
        };
        let Some((moved, left)) = call.over(&of_side, width, Arc::new(prediction))? else { return Ok(None) };
        if call.features.iter().chain(&call.condition).all(|expr| collect_columns(expr).is_empty()) {
            return Ok(None); // of constants: no side supplies them
        }
        let on_prediction =
            |filter: &PhysicalExprRef| collect_columns(filter).iter().any(|column| column.index() == columns.len());
        if self.predict.may_refuse_rows() && !moved.filters.iter().any(on_prediction) {
            return Ok(None);
        }
        let Some(rows) = self.estimates.rows(input) else { return Ok(None) };
        let deeper = self.below(&moved, input)?.filter(|deeper| deeper.rows <= rows.rows);
        let place = match deeper {
            Some(deeper) => deeper,
            None => self.on_top(moved, input.clone(), rows.rows),
        };
        let plan = plan.clone();
        let other = match side {
            Side::Left => join.right.clone(),
            Side::Right => join.left.clone(),
        };
        let Place { rows, filtered, build } = place;
        let build = move |placement| {
            let scored = build(placement)?;
            let children = match side {
                Side::Left => vec![scored, other.clone()],
                Side::Right => vec![other.clone(), scored],
            };
            let joined = with_children(plan.clone(), children)?;
            filter(&left, with_column_last(joined, columns.end)?)
        };
        Ok(Some(Place { rows, filtered, build: Box::new(build) }))
    }

    /// Directly on top of `input`.
    fn on_top(&'a self, call: Call, input: Arc<dyn ExecutionPlan>, rows: f64) -> Place<'a> {
        let filtered = !call.filters.is_empty();
        let build = move |placement| {
            let Call { features, condition, filters } = &call;
            let predict = self.predict.moved_to(input.clone(), features.clone(), condition.clone())?;
            filter(filters, Arc::new(predict.with_placement(placement)))
        };
        Place { rows, filtered, build: Box::new(build) }
    }
}
