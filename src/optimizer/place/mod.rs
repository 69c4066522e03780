//! Decides by numbers of rows on which side of a join a prediction is made.

mod estimate;
mod join;

use std::ops::Range;
use std::sync::Arc;

use datafusion::common::Result;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::config::ConfigOptions;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::utils::collect_columns;
use datafusion::physical_expr::{PhysicalExprRef, conjunction, split_conjunction};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::execution_plan::{ChildrenPropertiesMode, ReplaceChildrenOptions};
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::limit::GlobalLimitExec;
use datafusion::physical_plan::projection::{ProjectionExec, ProjectionExpr};
use datafusion::physical_plan::statistics::StatisticsContext;

use crate::config::PredictConfig;
use crate::plan::{Placement, PredictExec};
pub(super) use join::JoinView;
use join::Side;

/// Moves a [`PredictExec`], and the filter on its output, below joins, where it has fewer rows to score there.
///
/// ```text
/// FilterExec: p > 150                              ProjectionExec: the columns in their order
///   PredictExec: f(b) AS p      (200,000 rows)       HashJoinExec: a.k = b.k
///     HashJoinExec: a.k = b.k                          a
///       a (200,000 rows)                               FilterExec: p > 150
///       b (442 rows)                                     PredictExec: f(b) AS p     (442 rows)
///                                                          b (442 rows)
/// ```
///
/// A prediction is made where its arguments first come together, above the joins: a selective join or a filter leaves
/// fewer rows there. Numbers of rows are known of physical plans alone. The rule comes before `JoinSelection`, so that
/// the side to build the hash table from is chosen with the filter in place.
///
/// A model may refuse rows (an unknown category, an index that is too large). Rows that the join drops must not make the
/// query fail, so such a call moves only together with a condition on it, which DataFusion itself would have moved there.
/// Sides that a join fills up with NULL stay as they are.
#[derive(Debug)]
pub(crate) struct PlacePredict;

impl PlacePredict {
    pub(crate) const NAME: &str = "PlacePredict";
}

impl PhysicalOptimizerRule for PlacePredict {
    fn name(&self) -> &str {
        Self::NAME
    }

    fn schema_check(&self) -> bool {
        true
    }

    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, config: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        if !PredictConfig::of(config).place_by_rows || !plan.exists(|plan| Ok(plan.is::<PredictExec>()))? {
            return Ok(plan);
        }
        place(plan, None, &StatisticsContext::new())
    }
}

/// `plan` with its predictions placed, the lowest first; `limit` is the number of rows that are taken from it.
fn place(
    plan: Arc<dyn ExecutionPlan>,
    limit: Option<usize>,
    statistics: &StatisticsContext,
) -> Result<Arc<dyn ExecutionPlan>> {
    if let Some(unit) = FilteredPrediction::of(&plan)? {
        let input = place(unit.predict.input().clone(), None, statistics)?;
        return unit.placed_over(input, plan, limit, statistics);
    }
    let limit = match plan.downcast_ref::<GlobalLimitExec>() {
        Some(limit) => limit.fetch().map(|fetch| fetch + limit.skip()),
        None if plan.is::<ProjectionExec>() => limit,
        None => None,
    };
    let children = plan.children().into_iter().map(|child| place(child.clone(), limit, statistics));
    let children = children.collect::<Result<Vec<_>>>()?;
    with_children(plan, children)
}

/// A prediction, and the filter on it.
struct FilteredPrediction {
    predict: PredictExec,
    /// Over the columns of the prediction's node.
    conditions: Vec<PhysicalExprRef>,
    /// What is computed of the columns afterwards.
    projection: Option<ProjectionExec>,
}

impl FilteredPrediction {
    /// `PredictExec`, with a `FilterExec` on top or not, and maybe a projection between them: fields of a struct are taken
    /// out before the filter.
    fn of(plan: &Arc<dyn ExecutionPlan>) -> Result<Option<Self>> {
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
    fn placed_over(
        self,
        input: Arc<dyn ExecutionPlan>,
        original: Arc<dyn ExecutionPlan>,
        limit: Option<usize>,
        statistics: &StatisticsContext,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let mut here = estimate::rows(&input, statistics).map(|rows| rows.rows);
        if let (Some(rows), Some(limit), true) = (&mut here, limit, self.conditions.is_empty()) {
            *rows = rows.min(limit as f64);
        }
        let call = Call {
            features: self.predict.features().to_vec(),
            condition: self.predict.condition().cloned(),
            filters: self.conditions.clone(),
        };
        let sinking = Sinking { predict: &self.predict, statistics };
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

/// What is to be placed, over the columns of some plan; the prediction is the column behind them.
#[derive(Clone)]
struct Call {
    features: Vec<PhysicalExprRef>,
    condition: Option<PhysicalExprRef>,
    filters: Vec<PhysicalExprRef>,
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
struct Place<'a> {
    /// The rows that are scored there.
    rows: f64,
    /// Whether a filter on the prediction is applied there.
    filtered: bool,
    /// The plan that the prediction was over, with it below; its columns, and the prediction behind them.
    build: Box<dyn Fn(Placement) -> Result<Arc<dyn ExecutionPlan>> + 'a>,
}

impl Place<'_> {
    fn plan_at(&self, placement: Placement) -> Result<Arc<dyn ExecutionPlan>> {
        (self.build)(placement)
    }
}

/// The way of one prediction down a plan.
struct Sinking<'a> {
    predict: &'a PredictExec,
    statistics: &'a StatisticsContext,
}

impl<'a> Sinking<'a> {
    /// The best place for `call` below the joins of `plan`, through projections.
    fn below(&'a self, call: &Call, plan: &Arc<dyn ExecutionPlan>) -> Result<Option<Place<'a>>> {
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
        if moved.filters.is_empty() && self.predict.may_refuse_rows() {
            return Ok(None);
        }
        let Some(rows) = estimate::rows(input, self.statistics) else { return Ok(None) };
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

fn with_children(
    plan: Arc<dyn ExecutionPlan>,
    children: Vec<Arc<dyn ExecutionPlan>>,
) -> Result<Arc<dyn ExecutionPlan>> {
    let same = plan.children().into_iter().zip(&children).all(|(before, now)| Arc::ptr_eq(before, now));
    if same {
        return Ok(plan);
    }
    plan.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
}

/// `plan` without the rows for which a condition is not true.
fn filter(conditions: &[PhysicalExprRef], plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    if conditions.is_empty() {
        return Ok(plan);
    }
    Ok(Arc::new(FilterExec::try_new(conjunction(conditions.iter().cloned()), plan)?))
}

/// `plan` with the column at `place` behind the others.
fn with_column_last(plan: Arc<dyn ExecutionPlan>, place: usize) -> Result<Arc<dyn ExecutionPlan>> {
    let schema = plan.schema();
    let width = schema.fields().len();
    if place + 1 == width {
        return Ok(plan);
    }
    let order = (0..width).filter(|other| *other != place).chain([place]);
    let exprs = order.map(|place| {
        let name = schema.field(place).name();
        ProjectionExpr { expr: Arc::new(Column::new(name, place)), alias: name.clone() }
    });
    Ok(Arc::new(ProjectionExec::try_new(exprs.collect::<Vec<_>>(), plan)?))
}

/// `expr` with other expressions for its columns; `None` if there is none for one of them.
fn with_columns(
    expr: &PhysicalExprRef,
    replacement: &dyn Fn(&Column) -> Option<PhysicalExprRef>,
) -> Result<Option<PhysicalExprRef>> {
    let mut missing = false;
    let replaced = expr.clone().transform_up(|expr| match expr.downcast_ref::<Column>() {
        None => Ok(Transformed::no(expr)),
        Some(column) => match replacement(column) {
            Some(other) => Ok(Transformed::yes(other)),
            None => {
                missing = true;
                Ok(Transformed::no(expr))
            }
        },
    });
    let replaced = replaced.data()?;
    Ok((!missing).then_some(replaced))
}
