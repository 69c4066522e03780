//! How many rows a plan gives, as far as that is known before it runs.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use datafusion::common::{ColumnStatistics, JoinType, ScalarValue, Statistics};
use datafusion::physical_expr::PhysicalExprRef;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::execution_plan::CardinalityEffect;
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::statistics::{StatisticsArgs, StatisticsContext};

use crate::optimizer::joins::JoinView;

/// The part of its rows that a filter keeps of which nothing is known.
const UNKNOWN_SELECTIVITY: f64 = 0.2;

/// An estimate of the rows of a plan.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Rows {
    /// The rows that it gives.
    pub(super) rows: f64,
    /// The rows that it would give without the filters below.
    unfiltered: f64,
}

/// Estimates for the plans of one query, each made once.
#[derive(Default)]
pub(super) struct Estimates {
    statistics: StatisticsContext,
    rows: RefCell<HashMap<usize, Option<Rows>>>,
    /// Both know plans by their addresses, which must not be used again meanwhile.
    plans: RefCell<Vec<Arc<dyn ExecutionPlan>>>,
}

impl Estimates {
    /// The rows of `plan`; `None` if nothing is known of its tables.
    ///
    /// DataFusion's own estimates are taken, but for joins whose keys have neither a range nor a number of distinct values
    /// (texts, tables in memory). It would answer with the smaller side's rows there. Most joins follow a foreign key: each
    /// row of the larger side finds one of the smaller, unless a filter has taken that away.
    pub(super) fn rows(&self, plan: &Arc<dyn ExecutionPlan>) -> Option<Rows> {
        let address = Arc::as_ptr(plan) as *const () as usize;
        if let Some(rows) = self.rows.borrow().get(&address) {
            return *rows;
        }
        let rows = self.estimate(plan);
        self.plans.borrow_mut().push(plan.clone());
        self.rows.borrow_mut().insert(address, rows);
        rows
    }

    fn estimate(&self, plan: &Arc<dyn ExecutionPlan>) -> Option<Rows> {
        if let Some(join) = JoinView::of(plan) {
            return self.rows_of_join(&join);
        }
        if let [input] = plan.children().as_slice() {
            let below = self.rows(input)?;
            if plan.is::<FilterExec>() {
                let kept = self.kept_by_filter(plan, input).unwrap_or(UNKNOWN_SELECTIVITY);
                return Some(Rows { rows: below.rows * kept, ..below });
            }
            if let Some(fetch) = plan.fetch() {
                let rows = below.rows.min(fetch as f64);
                return Some(Rows { rows, unfiltered: rows });
            }
            if matches!(plan.cardinality_effect(), CardinalityEffect::Equal) {
                return Some(below);
            }
        }
        let rows = *self.known(plan)?.num_rows.get_value()? as f64;
        Some(Rows { rows, unfiltered: rows })
    }

    fn known(&self, plan: &Arc<dyn ExecutionPlan>) -> Option<Arc<Statistics>> {
        self.statistics.compute(plan.as_ref(), &StatisticsArgs::new()).ok()
    }

    /// The part of the rows that DataFusion thinks a filter keeps.
    fn kept_by_filter(&self, filter: &Arc<dyn ExecutionPlan>, input: &Arc<dyn ExecutionPlan>) -> Option<f64> {
        let after = *self.known(filter)?.num_rows.get_value()? as f64;
        let before = *self.known(input)?.num_rows.get_value()? as f64;
        (before > 0.0).then(|| (after / before).min(1.0))
    }

    fn rows_of_join(&self, join: &JoinView<'_>) -> Option<Rows> {
        let (left, right) = (self.rows(join.left)?, self.rows(join.right)?);
        let matching = |left: f64, right: f64| -> Option<f64> {
            if join.on.is_empty() {
                return Some(left * right);
            }
            Some(left * right / self.distinct_keys(join, left, right)?.max(1.0))
        };
        let (inner, unfiltered) = match (matching(left.rows, right.rows), matching(left.unfiltered, right.unfiltered)) {
            (Some(inner), Some(unfiltered)) => (inner, unfiltered),
            _ => {
                let (large, small) = if left.unfiltered >= right.unfiltered { (left, right) } else { (right, left) };
                (large.rows * (small.rows / small.unfiltered.max(1.0)).min(1.0), large.unfiltered)
            }
        };
        let rows = match join.join_type {
            JoinType::Inner => inner,
            JoinType::Left => inner.max(left.rows),
            JoinType::Right => inner.max(right.rows),
            JoinType::Full => inner.max(left.rows + right.rows),
            JoinType::LeftSemi => inner.min(left.rows),
            JoinType::RightSemi => inner.min(right.rows),
            JoinType::LeftAnti => left.rows - inner.min(left.rows),
            JoinType::RightAnti => right.rows - inner.min(right.rows),
            JoinType::LeftMark => left.rows,
            JoinType::RightMark => right.rows,
        };
        Some(Rows { rows, unfiltered: unfiltered.max(rows) })
    }

    /// The number of distinct keys of the side that has more of them, among so many rows of either side; of several keys,
    /// of the one that has the most. `None` if nothing is known of any.
    fn distinct_keys(&self, join: &JoinView<'_>, left: f64, right: f64) -> Option<f64> {
        let (of_left, of_right) = (self.known(join.left)?, self.known(join.right)?);
        let distinct = |key: &PhysicalExprRef, statistics: &Statistics, rows: f64| -> Option<f64> {
            let column = key.downcast_ref::<Column>()?;
            Some(distinct_values(statistics.column_statistics.get(column.index())?)?.min(rows))
        };
        let keys = join.on.iter().filter_map(|(left_key, right_key)| {
            let (a, b) = (distinct(left_key, &of_left, left), distinct(right_key, &of_right, right));
            match (a, b) {
                (Some(a), Some(b)) => Some(a.max(b)),
                (one, other) => one.or(other),
            }
        });
        keys.reduce(f64::max)
    }
}

/// The distinct values of a column, at most.
fn distinct_values(column: &ColumnStatistics) -> Option<f64> {
    if let Some(distinct) = column.distinct_count.get_value() {
        return Some(*distinct as f64);
    }
    let (min, max) = (column.min_value.get_value()?, column.max_value.get_value()?);
    if !min.data_type().is_integer() {
        return None;
    }
    let as_float = |value: &ScalarValue| match value.cast_to(&datafusion::arrow::datatypes::DataType::Float64) {
        Ok(ScalarValue::Float64(value)) => value,
        _ => None,
    };
    Some(as_float(max)? - as_float(min)? + 1.0)
}
