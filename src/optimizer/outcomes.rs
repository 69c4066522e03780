//! Makes one call of `try_predict` and `predict_error` of the same arguments.

use std::collections::HashSet;
use std::sync::Arc;

use datafusion::common::Result;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::functions::core::get_field;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::{Expr, LogicalPlan, ScalarUDF, lit};
use datafusion_predict_udfs::{OUTCOME, OnFailure};

use super::calls::as_call;
use super::names::keep_name;

/// `plan` in which `try_predict` and `predict_error` of the same arguments are parts of one call, which is made once.
pub(super) fn share(plan: LogicalPlan) -> Result<LogicalPlan> {
    let mut outcomes: HashSet<Expr> = HashSet::new();
    plan.apply_with_subqueries(|plan| {
        plan.apply_expressions(|expr| {
            expr.apply(|expr| {
                if as_call(expr).is_some_and(|(function, _)| function.on_failure() == OnFailure::Reason) {
                    outcomes.insert(expr.clone());
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    if outcomes.is_empty() {
        return Ok(plan);
    }
    let shared = plan.transform_up_with_subqueries(|plan| {
        let names = NamePreserver::new(&plan);
        let shared = plan.map_expressions(|expr| {
            let original = expr.clone();
            let shared = expr.transform_up(|expr| {
                let Some((function, call)) = as_call(&expr) else { return Ok(Transformed::no(expr)) };
                let Some(function) = function.with_reason() else { return Ok(Transformed::no(expr)) };
                let udf = Arc::new(ScalarUDF::new_from_impl(function));
                let outcome = Expr::ScalarFunction(ScalarFunction::new_udf(udf, call.args.clone()));
                if !outcomes.contains(&outcome) {
                    return Ok(Transformed::no(expr));
                }
                Ok(Transformed::yes(get_field().call(vec![outcome, lit(OUTCOME[0])])))
            })?;
            Ok(shared.update_data(|expr| keep_name(&original, expr, &names)))
        })?;
        if shared.transformed { Ok(Transformed::yes(shared.data.recompute_schema()?)) } else { Ok(shared) }
    })?;
    Ok(shared.data)
}
