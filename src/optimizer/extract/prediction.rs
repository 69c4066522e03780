//! Predictions among the columns of a plan.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchema, Result};
use datafusion::logical_expr::{Expr, LogicalPlan, Projection};

/// A plan that may have predictions behind the columns that it had before.
pub(super) struct Lifted {
    pub(super) plan: LogicalPlan,
    pub(super) predictions: Vec<Prediction>,
}

/// A prediction among a plan's columns, which an equal call above can use.
#[derive(Clone)]
pub(super) struct Prediction {
    /// The call, over the plan's columns, without a guard.
    pub(super) call: Expr,
    /// The rows that were scored: those for which any of these is true; all if there is none.
    pub(super) conditions: Vec<Expr>,
    pub(super) column: Column,
}

impl Lifted {
    pub(super) fn plain(plan: LogicalPlan) -> Self {
        Self { plan, predictions: vec![] }
    }

    /// The plan with the columns of `schema` alone.
    pub(super) fn stripped_to(self, schema: &DFSchema) -> Result<LogicalPlan> {
        if self.plan.schema().fields().len() == schema.fields().len() {
            return Ok(self.plan);
        }
        let columns = schema.columns().into_iter().map(Expr::Column).collect();
        Ok(LogicalPlan::Projection(Projection::try_new(columns, Arc::new(self.plan))?))
    }

    /// The column that holds what `call`, without its guard, gives for the rows for which `condition` is true.
    pub(super) fn serving(&self, call: &Expr, condition: Option<&Expr>) -> Option<Expr> {
        let found = self.predictions.iter().find(|prediction| {
            let covered = prediction.conditions.is_empty()
                || condition.is_some_and(|condition| prediction.conditions.contains(condition));
            covered && prediction.call == *call
        });
        found.map(|prediction| Expr::Column(prediction.column.clone()))
    }
}

impl Prediction {
    /// The prediction with other names for the columns of its call; `None` if one has no other name.
    pub(super) fn renamed(&self, rename: impl Fn(&Column) -> Option<Column>) -> Option<Self> {
        let missing = |expr: &Expr| expr.column_refs().into_iter().any(|column| rename(column).is_none());
        if missing(&self.call) || self.conditions.iter().any(missing) {
            return None;
        }
        let replace = |expr: &Expr| {
            let replaced = expr.clone().transform(|expr| match &expr {
                Expr::Column(column) => {
                    Ok(Transformed::yes(Expr::Column(rename(column).unwrap_or_else(|| column.clone()))))
                }
                _ => Ok(Transformed::no(expr)),
            });
            replaced.map(|expr| expr.data).ok()
        };
        let conditions = self.conditions.iter().map(&replace).collect::<Option<Vec<_>>>()?;
        Some(Self { call: replace(&self.call)?, conditions, column: self.column.clone() })
    }
}
