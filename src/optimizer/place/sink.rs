//! The way of a prediction down the joins of a plan.

use std::ops::Range;
use std::sync::Arc;

use datafusion::common::{JoinSide, Result};
use datafusion::physical_expr::PhysicalExprRef;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::utils::collect_columns;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::joins::HashJoinExec;
use datafusion::physical_plan::joins::utils::{ColumnIndex, JoinFilter};
use datafusion::physical_plan::projection::{ProjectionExec, ProjectionExpr};

use super::estimate::Estimates;
use super::nodes::{filter, with_children, with_columns};
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
    build: Box<dyn Fn(Placement) -> Result<Scored> + 'a>,
}

impl Place<'_> {
    /// The plan that the prediction was over, with it below.
    pub(super) fn plan_at(&self, placement: Placement) -> Result<Scored> {
        (self.build)(placement)
    }
}

/// A plan with the prediction, in place of one that it was over.
pub(super) struct Scored {
    pub(super) plan: Arc<dyn ExecutionPlan>,
    /// Where each column of the plan before is now, and behind them the prediction; `None` for a column that nobody needs.
    places: Vec<Option<usize>>,
}

impl Scored {
    /// The column of `plan` that is at `place` of the plan before, with the prediction behind its columns.
    pub(super) fn column(&self, place: usize) -> Option<PhysicalExprRef> {
        let place = (*self.places.get(place)?)?;
        Some(Arc::new(Column::new(self.plan.schema().field(place).name(), place)))
    }

    /// `expr`, which is over the columns of the plan before, over those of this one.
    pub(super) fn expr(&self, expr: &PhysicalExprRef) -> Result<PhysicalExprRef> {
        let moved = with_columns(expr, &|column| self.column(column.index()))?;
        moved.ok_or_else(|| datafusion::common::internal_datafusion_err!("{expr} needs a column that was left out"))
    }

    /// Without the rows for which a filter is not true.
    fn filtered(self, filters: &[PhysicalExprRef]) -> Result<Self> {
        let filters = filters.iter().map(|filter| self.expr(filter)).collect::<Result<Vec<_>>>()?;
        Ok(Self { plan: filter(&filters, self.plan.clone())?, places: self.places })
    }

    /// With the columns at the places that they had before, all of which must be there, and the prediction behind them.
    fn in_order(self) -> Result<Self> {
        if self.places.iter().enumerate().all(|(before, now)| *now == Some(before)) {
            return Ok(self);
        }
        let schema = self.plan.schema();
        let columns = self.places.iter().flatten().map(|place| {
            let name = schema.field(*place).name();
            ProjectionExpr { expr: Arc::new(Column::new(name, *place)), alias: name.clone() }
        });
        let columns: Vec<_> = columns.collect();
        let places = (0..columns.len()).map(Some).collect();
        Ok(Self { plan: Arc::new(ProjectionExec::try_new(columns, self.plan)?), places })
    }

    /// Without the columns that are not `needed`.
    fn narrowed(self, needed: &[bool]) -> Result<Self> {
        if needed.iter().all(|needed| *needed) {
            return Ok(self);
        }
        let schema = self.plan.schema();
        let (mut exprs, mut places) = (vec![], vec![]);
        for (place, now) in self.places.iter().enumerate() {
            // The prediction stands behind the others.
            let kept = now.filter(|_| needed.get(place).copied().unwrap_or(true));
            places.push(kept.map(|_| exprs.len()));
            if let Some(kept) = kept {
                let name = schema.field(kept).name();
                exprs.push(ProjectionExpr { expr: Arc::new(Column::new(name, kept)), alias: name.clone() });
            }
        }
        Ok(Self { plan: Arc::new(ProjectionExec::try_new(exprs, self.plan)?), places })
    }
}

/// The columns among `needed`, and those that `exprs` read, but for the prediction behind them.
fn needed_by(needed: &[bool], exprs: &[PhysicalExprRef]) -> Vec<bool> {
    let mut needed = needed.to_vec();
    for column in exprs.iter().flat_map(collect_columns) {
        if let Some(needed) = needed.get_mut(column.index()) {
            *needed = true;
        }
    }
    needed
}

/// The way of one prediction down a plan.
pub(super) struct Sinking<'a> {
    pub(super) predict: &'a PredictExec,
    pub(super) estimates: &'a Estimates,
}

impl<'a> Sinking<'a> {
    /// The best place for `call` below the joins of `plan`, of whose columns those that are `needed` above come out.
    pub(super) fn below(
        &'a self,
        call: &Call,
        plan: &Arc<dyn ExecutionPlan>,
        needed: &[bool],
    ) -> Result<Option<Place<'a>>> {
        if let Some(projection) = plan.downcast_ref::<ProjectionExec>() {
            return self.below_projection(call, projection, needed);
        }
        let Some(join) = JoinView::of(plan) else { return Ok(None) };
        for side in [Side::Left, Side::Right] {
            let Some(columns) = join.columns_below(side) else { continue };
            if let Some(place) = self.on_side(call, plan, &join, side, columns, needed)? {
                return Ok(Some(place));
            }
        }
        Ok(None)
    }

    fn below_projection(
        &'a self,
        call: &Call,
        projection: &ProjectionExec,
        needed: &[bool],
    ) -> Result<Option<Place<'a>>> {
        let width = projection.expr().len();
        let input = projection.input();
        let input_width = input.schema().fields().len();
        let column = |place: usize| {
            let expr = projection.expr().get(place)?;
            expr.expr.is::<Column>().then(|| expr.expr.clone())
        };
        let prediction = Arc::new(Column::new(self.predict.output_name(), input_width));
        let Some((moved, left)) = call.over(&column, width, prediction)? else { return Ok(None) };
        let needed = needed_by(needed, &left);
        let kept: Vec<_> = projection.expr().iter().zip(&needed).map(|(e, needed)| needed.then(|| e.clone())).collect();
        let read: Vec<_> = kept.iter().flatten().map(|expr| expr.expr.clone()).collect();
        let needed_below = needed_by(&vec![false; input_width], &read);
        let Some(Place { rows, filtered, build }) = self.below(&moved, input, &needed_below)? else { return Ok(None) };
        let build = move |placement| {
            let below = build(placement)?;
            let (mut exprs, mut places) = (vec![], vec![]);
            for expr in &kept {
                places.push(expr.is_some().then_some(exprs.len()));
                if let Some(ProjectionExpr { expr, alias }) = expr {
                    exprs.push(ProjectionExpr { expr: below.expr(expr)?, alias: alias.clone() });
                }
            }
            places.push(Some(exprs.len()));
            if let Some(expr) = below.column(input_width) {
                exprs.push(ProjectionExpr { expr, alias: self.predict.output_name().to_owned() });
            }
            Scored { plan: Arc::new(ProjectionExec::try_new(exprs, below.plan)?), places }.filtered(&left)
        };
        Ok(Some(Place { rows, filtered, build: Box::new(build) }))
    }

    /// The best place on one side of a join, if all arguments are there.
    fn on_side(
        &'a self,
        call: &Call,
        plan: &Arc<dyn ExecutionPlan>,
        join: &JoinView<'_>,
        side: Side,
        columns: Range<usize>,
        needed: &[bool],
    ) -> Result<Option<Place<'a>>> {
        let (width, input) = (plan.schema().fields().len(), join.input(side));
        let of_side = |place: usize| -> Option<PhysicalExprRef> {
            let schema = input.schema();
            let place = columns.contains(&place).then(|| place - columns.start)?;
            Some(Arc::new(Column::new(schema.field(place).name(), place)))
        };
        let prediction = Arc::new(Column::new(self.predict.output_name(), columns.len()));
        let Some((moved, left)) = call.over(&of_side, width, prediction)? else { return Ok(None) };
        if call.features.iter().chain(&call.condition).all(|expr| collect_columns(expr).is_empty()) {
            return Ok(None); // of constants: no side supplies them
        }
        let on_prediction =
            |filter: &PhysicalExprRef| collect_columns(filter).iter().any(|column| column.index() == columns.len());
        if self.predict.may_refuse_rows() && !moved.filters.iter().any(on_prediction) {
            return Ok(None);
        }
        let Some(rows) = self.estimates.rows(input) else { return Ok(None) };
        let needed = needed_by(needed, &left);
        let needed_of_side = needed_of_side(plan, side, &needed[columns.clone()]);
        let deeper = self.below(&moved, input, &needed_of_side)?.filter(|deeper| deeper.rows <= rows.rows);
        let place = match deeper {
            Some(deeper) => deeper,
            None => self.on_top(moved, input.clone(), rows.rows, needed_of_side),
        };
        let (left_width, one_side) = (join.left.schema().fields().len(), width == columns.len());
        let plan = plan.clone();
        let Place { rows, filtered, build } = place;
        let build = move |placement| {
            // Only of a hash join are keys and filter told where their columns are.
            let scored = build(placement)?;
            let scored = if plan.is::<HashJoinExec>() { scored } else { scored.in_order()? };
            let scored_width = scored.plan.schema().fields().len();
            let joined = with_scored_side(&plan, side, &scored)?;
            // Where the columns of either side start among those that come out.
            let (start, other) = match side {
                Side::Left => (0, scored_width),
                Side::Right if one_side => (0, 0),
                Side::Right => (left_width, 0),
            };
            let mut places: Vec<_> = (0..width)
                .map(|place| match place.checked_sub(columns.start).filter(|_| columns.contains(&place)) {
                    Some(of_side) => scored.places[of_side].map(|place| start + place),
                    None => Some(other + place - if side == Side::Left { columns.end } else { 0 }),
                })
                .collect();
            places.push(scored.places.last().copied().flatten().map(|place| start + place));
            Scored { plan: joined, places }.filtered(&left)
        };
        Ok(Some(Place { rows, filtered, build: Box::new(build) }))
    }

    /// Directly on top of `input`.
    fn on_top(&'a self, call: Call, input: Arc<dyn ExecutionPlan>, rows: f64, needed: Vec<bool>) -> Place<'a> {
        let filtered = !call.filters.is_empty();
        let build = move |placement| {
            let Call { features, condition, filters } = &call;
            let predict = self.predict.moved_to(input.clone(), features.clone(), condition.clone())?;
            let predict: Arc<dyn ExecutionPlan> = Arc::new(predict.with_placement(placement));
            let places = (0..predict.schema().fields().len()).map(Some).collect();
            Scored { plan: predict, places }.filtered(filters)?.narrowed(&needed)
        };
        Place { rows, filtered, build: Box::new(build) }
    }
}

/// Of the columns of one side of a join those that are needed above, and by the join itself: all, if it is of a kind that
/// can't be put over fewer.
fn needed_of_side(plan: &Arc<dyn ExecutionPlan>, side: Side, needed_above: &[bool]) -> Vec<bool> {
    let Some(join) = plan.downcast_ref::<HashJoinExec>() else { return vec![true; needed_above.len()] };
    let keys = join.on().iter().map(|(left, right)| if side == Side::Left { left } else { right });
    let mut needed = needed_by(needed_above, &keys.cloned().collect::<Vec<_>>());
    for column in join.filter().iter().flat_map(|filter| filter.column_indices()) {
        if column.side == join_side(side) {
            needed[column.index] = true;
        }
    }
    needed
}

fn join_side(side: Side) -> JoinSide {
    match side {
        Side::Left => JoinSide::Left,
        Side::Right => JoinSide::Right,
    }
}

/// The join `plan` with `scored` as one of its sides.
fn with_scored_side(plan: &Arc<dyn ExecutionPlan>, side: Side, scored: &Scored) -> Result<Arc<dyn ExecutionPlan>> {
    let mut children: Vec<_> = plan.children().into_iter().cloned().collect();
    children[usize::from(side == Side::Right)] = scored.plan.clone();
    let Some(join) = plan.downcast_ref::<HashJoinExec>() else { return with_children(plan.clone(), children) };
    let on = join.on().iter().map(|(left, right)| match side {
        Side::Left => Ok((scored.expr(left)?, right.clone())),
        Side::Right => Ok((left.clone(), scored.expr(right)?)),
    });
    let filter = join.filter().map(|filter| {
        let moved = |column: &ColumnIndex| ColumnIndex {
            index: if column.side == join_side(side) {
                scored.places[column.index].unwrap_or(column.index)
            } else {
                column.index
            },
            side: column.side,
        };
        let columns = filter.column_indices().iter().map(moved).collect();
        JoinFilter::new(filter.expression().clone(), columns, filter.schema().clone())
    });
    let builder = join.builder().with_on(on.collect::<Result<_>>()?).with_filter(filter);
    builder.with_new_children(children)?.recompute_properties().build_exec()
}
