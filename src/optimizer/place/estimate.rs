//! How many rows a plan gives, as far as that is known before it runs.

use std::sync::Arc;

use datafusion::common::{ColumnStatistics, JoinType, ScalarValue, Statistics};
use datafusion::physical_expr::PhysicalExprRef;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::execution_plan::CardinalityEffect;
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::statistics::{StatisticsArgs, StatisticsContext};

use super::join::JoinView;

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

/// The rows of `plan`; `None` if nothing is known of its tables.
///
/// DataFusion's own estimates are taken, but for joins whose keys have neither a range nor a number of distinct values
/// (texts, tables in memory). It would answer with the smaller side's rows there. Most joins follow a foreign key: each row
/// of the larger side finds one of the smaller, unless a filter has taken that away.
pub(super) fn rows(plan: &Arc<dyn ExecutionPlan>, statistics: &StatisticsContext) -> Option<Rows> {
    if let Some(join) = JoinView::of(plan) {
        return rows_of_join(&join, statistics);
    }
    match plan.children().as_slice() {
        [] => {
            let rows = *known(plan, statistics)?.num_rows.get_value()? as f64;
            Some(Rows { rows, unfiltered: rows })
        }
        [input] => {
            let below = rows(input, statistics)?;
            if plan.is::<FilterExec>() {
                let kept = kept_by_filter(plan, input, statistics).unwrap_or(UNKNOWN_SELECTIVITY);
                return Some(Rows { rows: below.rows * kept, ..below });
            }
            if let Some(fetch) = plan.fetch() {
                let rows = below.rows.min(fetch as f64);
                return Some(Rows { rows, unfiltered: rows });
            }
            if matches!(plan.cardinality_effect(), CardinalityEffect::Equal) {
                return Some(below);
            }
            let rows = *known(plan, statistics)?.num_rows.get_value()? as f64;
            Some(Rows { rows, unfiltered: rows })
        }
        _ => {
            let rows = *known(plan, statistics)?.num_rows.get_value()? as f64;
            Some(Rows { rows, unfiltered: rows })
        }
    }
}

fn known(plan: &Arc<dyn ExecutionPlan>, statistics: &StatisticsContext) -> Option<Arc<Statistics>> {
    statistics.compute(plan.as_ref(), &StatisticsArgs::new()).ok()
}

/// The part of the rows that DataFusion thinks a filter keeps.
fn kept_by_filter(
    filter: &Arc<dyn ExecutionPlan>,
    input: &Arc<dyn ExecutionPlan>,
    statistics: &StatisticsContext,
) -> Option<f64> {
    let after = *known(filter, statistics)?.num_rows.get_value()? as f64;
    let before = *known(input, statistics)?.num_rows.get_value()? as f64;
    (before > 0.0).then(|| (after / before).min(1.0))
}

fn rows_of_join(join: &JoinView<'_>, statistics: &StatisticsContext) -> Option<Rows> {
    let (left, right) = (rows(join.left, statistics)?, rows(join.right, statistics)?);
    let matching = |left: f64, right: f64| -> f64 {
        if join.on.is_empty() {
            return left * right;
        }
        match distinct_keys(join, left, right, statistics) {
            Some(distinct) => left * right / distinct.max(1.0),
            None => f64::NAN,
        }
    };
    let mut inner = matching(left.rows, right.rows);
    let mut unfiltered = matching(left.unfiltered, right.unfiltered);
    if inner.is_nan() || unfiltered.is_nan() {
        let (large, small) = if left.unfiltered >= right.unfiltered { (left, right) } else { (right, left) };
        inner = large.rows * (small.rows / small.unfiltered.max(1.0)).min(1.0);
        unfiltered = large.unfiltered;
    }
    let rows = match join.join_type {
        JoinType::Inner => inner,
        JoinType::Left => inner.max(left.rows),
        JoinType::Right => inner.max(right.rows),
        JoinType::Full => inner.max(left.rows + right.rows),
        JoinType::LeftSemi | JoinType::LeftAnti => inner.min(left.rows),
        JoinType::RightSemi | JoinType::RightAnti => inner.min(right.rows),
        JoinType::LeftMark => left.rows,
        JoinType::RightMark => right.rows,
    };
    Some(Rows { rows, unfiltered: unfiltered.max(rows) })
}

/// The number of distinct keys of the side that has more of them, among so many rows of either side; of several keys, of
/// the one that has the most. `None` if nothing is known of any.
fn distinct_keys(join: &JoinView<'_>, left: f64, right: f64, statistics: &StatisticsContext) -> Option<f64> {
    let (of_left, of_right) = (known(join.left, statistics)?, known(join.right, statistics)?);
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
