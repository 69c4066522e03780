//! Calls of group keys alone: the same for all rows of a group, so made once for each group.

use std::sync::Arc;

use datafusion::common::{Column, ExprSchema, Result};
use datafusion::logical_expr::{Aggregate, Expr, ExprSchemable, LogicalPlan, Projection};

use super::{Extraction, has_call, is_at_hand};

/// Aggregates that give the value itself where all rows of a group have the same.
const KEEPING: [&str; 5] = ["min", "max", "any_value", "first_value", "last_value"];

impl Extraction {
    /// An aggregate whose calls of group keys are made above it; the aggregate itself if there are none.
    ///
    /// ```text
    /// Aggregate: by k, predict(m, k); max(predict(n, k)), count(*)
    ///
    /// Projection: k, predict(m, k), predict(n, k), count(*)
    ///   Aggregate: by k; count(*)
    /// ```
    pub(super) fn move_above_groups(&mut self, aggregate: Aggregate) -> Result<LogicalPlan> {
        let schema = aggregate.schema.clone();
        let input = aggregate.input.schema();
        // A group of a float may hold 0.0 and -0.0, of which a model could make different things.
        let is_exact = |key: &&Column| input.field_from_column(key).is_ok_and(|field| !field.data_type().is_floating());
        let keys: Vec<&Column> = aggregate.group_expr.iter().filter_map(Expr::try_as_col).filter(is_exact).collect();
        let only_keys = |expr: &Expr| {
            let columns = expr.column_refs();
            has_call(expr)
                && is_at_hand(expr, input)
                && !columns.is_empty()
                && columns.into_iter().all(|column| keys.contains(&column))
        };
        let above_aggregate = |(expr, place): (&Expr, usize)| {
            let value = kept_value(expr).filter(|value| only_keys(value))?;
            // Some aggregates give another type than they take.
            (value.get_type(input).ok()? == *schema.field(place).data_type()).then(|| value.clone())
        };
        let groups = aggregate.group_expr.iter().map(|expr| only_keys(expr).then(|| expr.clone()));
        let first = aggregate.group_expr.len();
        let values = aggregate.aggr_expr.iter().zip(first..).map(above_aggregate);
        let moved: Vec<Option<Expr>> = groups.chain(values).collect();
        if moved.len() != schema.fields().len() || moved.iter().all(Option::is_none) {
            return Ok(LogicalPlan::Aggregate(aggregate)); // grouping sets have one more column
        }
        self.changed = true;
        let (of_groups, of_values) = moved.split_at(first);
        let kept = |exprs: &[Expr], moved: &[Option<Expr>]| -> Vec<Expr> {
            exprs.iter().zip(moved).filter(|(_, moved)| moved.is_none()).map(|(expr, _)| expr.clone()).collect()
        };
        let groups = kept(&aggregate.group_expr, of_groups);
        let values = kept(&aggregate.aggr_expr, of_values);
        let below = Aggregate::try_new(aggregate.input.clone(), groups, values)?;
        let columns = moved.into_iter().enumerate().map(|(place, moved)| {
            let (qualifier, field) = schema.qualified_field(place);
            match moved {
                Some(expr) => expr.alias_qualified(qualifier.cloned(), field.name()),
                None => Expr::Column(Column::new(qualifier.cloned(), field.name())),
            }
        });
        let columns = columns.collect();
        Ok(LogicalPlan::Projection(Projection::try_new(columns, Arc::new(LogicalPlan::Aggregate(below)))?))
    }
}

/// The argument of an aggregate that gives one of its values, whatever the rows.
fn kept_value(expr: &Expr) -> Option<&Expr> {
    match expr {
        Expr::Alias(alias) => kept_value(&alias.expr),
        Expr::AggregateFunction(aggregate) if KEEPING.contains(&aggregate.func.name()) => {
            match (aggregate.params.args.as_slice(), &aggregate.params.filter) {
                ([value], None) => Some(value),
                _ => None, // with FILTER, a group may have no row at all
            }
        }
        _ => None,
    }
}
