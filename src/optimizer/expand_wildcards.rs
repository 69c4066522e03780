//! Gives wildcards in calls their columns before columns are pruned.

use datafusion::common::Result;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::functions::core::named_struct;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::{expand_qualified_wildcard, expand_wildcard};
use datafusion::logical_expr::{Expr, LogicalPlan, lit};
use datafusion::optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule};

use super::bind::{has_expr, input_schema, unbound};

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
                let mut fields = vec![];
                for wildcard in call.args.drain(1..) {
                    let columns = match (&wildcard, &input) {
                        #[expect(deprecated, reason = "a wildcard in a function's arguments is still this expression")]
                        (Expr::Wildcard { qualifier: Some(qualifier), options }, _) => {
                            expand_qualified_wildcard(qualifier, &schema, Some(options))?
                        }
                        #[expect(deprecated, reason = "a wildcard in a function's arguments is still this expression")]
                        (Expr::Wildcard { qualifier: None, options }, Some(input)) => {
                            expand_wildcard(&schema, input, Some(options))?
                        }
                        _ => return Ok(Transformed::no(expr)), // refused when the call is bound
                    };
                    fields.extend(columns.into_iter().flat_map(|column| [lit(column.qualified_name().1), column]));
                }
                call.args.push(named_struct().call(fields));
                Ok(Transformed::yes(Expr::ScalarFunction(call)))
            })?;
            Ok(expanded.update_data(|expr| name.restore(expr)))
        })
    }
}

#[expect(deprecated, reason = "a wildcard in a function's arguments is still this expression")]
fn is_wildcard(expr: &Expr) -> bool {
    matches!(expr, Expr::Wildcard { .. })
}
