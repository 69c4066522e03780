//! Calls of models among the expressions of a plan.

use std::sync::Arc;

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, Result};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{Expr, LogicalPlan, ScalarUDF};
use datafusion_predict_udfs::ModelFunction;

use crate::registry::RegisteredModel;

/// The function and the call, if `expr` calls a version of a model.
pub(super) fn as_call(expr: &Expr) -> Option<(&ModelFunction, &ScalarFunction)> {
    match expr {
        Expr::ScalarFunction(call) => Some((call.func.inner().downcast_ref::<ModelFunction>()?, call)),
        _ => None,
    }
}

/// Whether `expr` calls a version of a model.
pub(super) fn is_call(expr: &Expr) -> bool {
    as_call(expr).is_some()
}

/// Whether there is a call in `expr`, or `expr` is one.
pub(super) fn has_call(expr: &Expr) -> bool {
    expr.exists(|expr| Ok(is_call(expr))).unwrap_or(false)
}

/// Whether any expression of this node, not of those below it, holds such an expression.
pub(super) fn has_expr(plan: &LogicalPlan, wanted: impl Fn(&Expr) -> bool) -> Result<bool> {
    let mut found = false;
    plan.apply_expressions(|expr| {
        found = found || expr.exists(|expr| Ok(wanted(expr)))?;
        Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    Ok(found)
}

/// Whether any node of `plan`, in subqueries too, calls a version of a model.
pub(crate) fn calls_models(plan: &LogicalPlan) -> Result<bool> {
    let mut found = false;
    plan.apply_with_subqueries(|plan| {
        found = found || has_expr(plan, is_call)?;
        Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    Ok(found)
}

/// Whether `call` may become a node: one of a model of ours, whose arguments differ from row to row. With constants alone it
/// is made once for each batch as a function, and a model of another kind is only ever a function.
pub(super) fn can_be_lifted(call: &Expr) -> bool {
    as_call(call).is_some_and(|(function, _)| RegisteredModel::of(function.model()).is_some())
        && call.exists(|expr| Ok(matches!(expr, Expr::Column(_)))).unwrap_or(false)
}

/// A call without its guard, and the guard if it has one.
pub(super) fn split_guard(call: &Expr) -> (Expr, Option<Expr>) {
    if let Some((function, found)) = as_call(call)
        && let Some((function, args, guard)) = function.without_guard(&found.args)
    {
        let function = Arc::new(ScalarUDF::new_from_impl(function));
        return (Expr::ScalarFunction(ScalarFunction::new_udf(function, args)), Some(guard));
    }
    (call.clone(), None)
}

/// A call with one more argument, its guard.
pub(super) fn with_guard(call: &Expr, guard: Expr) -> Expr {
    match as_call(call) {
        Some((function, found)) => {
            let function = Arc::new(ScalarUDF::new_from_impl(function.with_guard()));
            let args = found.args.iter().cloned().chain([guard]).collect();
            Expr::ScalarFunction(ScalarFunction::new_udf(function, args))
        }
        None => call.clone(),
    }
}

/// Whether `expr` can be evaluated for each row of a plan with the columns of `schema`, and as often as one likes.
pub(super) fn is_at_hand(expr: &Expr, schema: &DFSchema) -> bool {
    let foreign = expr.exists(|expr| {
        Ok(matches!(
            expr,
            Expr::LambdaVariable(_)
                | Expr::OuterReferenceColumn(_, _)
                | Expr::ScalarSubquery(_)
                | Expr::Exists(_)
                | Expr::InSubquery(_)
                | Expr::AggregateFunction(_)
                | Expr::WindowFunction(_)
                | Expr::Placeholder(_)
        ))
    });
    let has_columns = expr.column_refs().into_iter().all(|column| schema.has_column(column));
    // A volatile expression has another value each time.
    has_columns && matches!(foreign, Ok(false)) && !expr.is_volatile()
}
