//! Gives wildcards in calls their columns before columns are pruned.

use datafusion::common::Result;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::functions::core::named_struct;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::{Expr, LogicalPlan, lit};
use datafusion::optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule};
use datafusion_predict_udfs::{is_wildcard, wildcard_columns};

use super::bind::{input_schema, unbound};
use super::calls::has_expr;
use super::sort_wildcards::with_columns_of_from;

/// `predict('churn', t.*)` → `predict('churn', {id: t.id, age: t.age, …})`, where the call is not bound yet.
///
/// That is so in PREPARE alone, whose plan is optimized when it is stored and bound when it is executed.
#[derive(Debug)]
pub(crate) struct ExpandWildcards;

impl OptimizerRule for ExpandWildcards {
    fn name(&self) -> &str {
        "expand_predict_wildcards"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::BottomUp)
    }

    fn rewrite(&self, plan: LogicalPlan, _config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        if !has_expr(&plan, |expr| unbound(expr).is_some_and(|(_, call)| call.args.iter().any(is_wildcard)))? {
            return Ok(Transformed::no(plan));
        }
        let plan = with_columns_of_from(plan)?;
        if plan.transformed {
            return Ok(plan);
        }
        let plan = plan.data;
        let schema = input_schema(&plan);
        let input = plan.inputs().first().map(|input| (*input).clone());
        let names = NamePreserver::new(&plan);
        plan.map_expressions(|expr| {
            let name = names.save(&expr);
            let expanded = expr.transform_up(|expr| {
                let Expr::ScalarFunction(mut call) = expr else {
                    return Ok(Transformed::no(expr));
                };
                let expr = Expr::ScalarFunction(call.clone());
                if unbound(&expr).is_none() || !call.args.iter().any(is_wildcard) {
                    return Ok(Transformed::no(expr));
                }
                let wildcards = call.args.split_off(1);
                let Ok(columns) = wildcard_columns("", &wildcards, input.as_ref(), &schema) else {
                    return Ok(Transformed::no(expr)); // refused when the call is bound
                };
                let fields = columns.into_iter().flat_map(|(name, column)| [lit(name), column]).collect();
                call.args.push(named_struct().call(fields));
                Ok(Transformed::yes(Expr::ScalarFunction(call)))
            })?;
            Ok(expanded.update_data(|expr| name.restore(expr)))
        })
    }
}
