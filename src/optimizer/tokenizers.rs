//! Names in `token_count('minilm', …)` and its kin, by which a query stays with one version of the model.

use datafusion::common::Result;
use datafusion::common::tree_node::Transformed;
use datafusion::logical_expr::LogicalPlan;

use super::bind::Pinned;

/// `plan` with the version in each name of a model whose tokenizer is asked: `minilm` becomes `minilm/3`, as the catalog says now.
#[cfg(feature = "text")]
pub(super) fn with_versions(plan: LogicalPlan, pinned: &mut Pinned) -> Result<Transformed<LogicalPlan>> {
    use datafusion::common::tree_node::TreeNode;
    use datafusion::logical_expr::expr::ScalarFunction;
    use datafusion::logical_expr::expr_rewriter::NamePreserver;
    use datafusion::logical_expr::{Expr, ExprSchemable, lit};
    use datafusion_predict_udfs::TokensFunction;

    use super::bind::input_schema;
    use super::calls::has_expr;
    use super::names::keep_name;
    use crate::registry::RegisteredModel;

    fn call(expr: &Expr) -> Option<(&TokensFunction, &ScalarFunction)> {
        match expr {
            Expr::ScalarFunction(call) => Some((call.func.inner().downcast_ref::<TokensFunction>()?, call)),
            _ => None,
        }
    }

    if !has_expr(&plan, |expr| call(expr).is_some())? {
        return Ok(Transformed::no(plan));
    }
    let schema = input_schema(&plan);
    let names = NamePreserver::new(&plan);
    plan.map_expressions(|expr| {
        let original = expr.clone();
        let versioned = expr.transform_up(|expr| {
            let Some((function, call)) = call(&expr) else { return Ok(Transformed::no(expr)) };
            let types = call.args.iter().map(|argument| argument.get_type(&schema)).collect::<Result<Vec<_>>>()?;
            let (true, Some(Expr::Literal(name, _))) = (function.names_a_model(&types), call.args.first()) else {
                return Ok(Transformed::no(expr));
            };
            let Some(Some(name)) = name.try_as_str() else { return Ok(Transformed::no(expr)) };
            let resolved = pinned.of(function.resolver()).resolve(name)?;
            // A model of another resolver has no version that it could be called by.
            let ours = RegisteredModel::of(resolved.first()?).filter(|model| model.handle().version().is_some());
            let Some(label) = ours.map(|model| model.handle().label().to_owned()) else {
                return Ok(Transformed::no(expr));
            };
            if label == name {
                return Ok(Transformed::no(expr));
            }
            let arguments = std::iter::once(lit(label)).chain(call.args[1..].iter().cloned()).collect();
            Ok(Transformed::yes(Expr::ScalarFunction(ScalarFunction::new_udf(call.func.clone(), arguments))))
        })?;
        Ok(versioned.update_data(|expr| keep_name(&original, expr, &names)))
    })
}

/// In a build without the feature `text` there are no such calls.
#[cfg(not(feature = "text"))]
pub(super) fn with_versions(plan: LogicalPlan, _: &mut Pinned) -> Result<Transformed<LogicalPlan>> {
    Ok(Transformed::no(plan))
}
