//! Reads the value of a key from a map within a struct in a way that scans understand.

use datafusion::arrow::datatypes::DataType;
use datafusion::common::Result;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::config::ConfigOptions;
use datafusion::functions::core::get_field;
use datafusion::functions_nested::expr_fn::{array_element, map_extract};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, lit};
use datafusion::optimizer::AnalyzerRule;

use super::bind::input_schema;
use super::calls::has_expr;
use super::names::keep_name;

/// `p['probabilities']['yes']` → `map_extract(p['probabilities'], 'yes')[1]`, where that is a map within a struct.
///
/// In DataFusion 55.2 a Parquet scan takes the key for the name of a column, finds none, and fails with an internal error.
/// That is the form in which scores of a classifier come back from a file.
#[derive(Debug)]
pub(crate) struct ReadMapKeys;

impl ReadMapKeys {
    pub(crate) const NAME: &str = "read_map_keys";
}

impl AnalyzerRule for ReadMapKeys {
    fn name(&self) -> &str {
        Self::NAME
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        Ok(plan.transform_up_with_subqueries(rewrite_node)?.data)
    }
}

/// The struct's field and the key, if `expr` may read a map within a struct.
fn parts(expr: &Expr) -> Option<(&Expr, &Expr)> {
    let is_get_field = |expr: &Expr| matches!(expr, Expr::ScalarFunction(call) if call.func == get_field());
    match expr {
        Expr::ScalarFunction(call) if call.func == get_field() => match call.args.as_slice() {
            [map, key] if is_get_field(map) => Some((map, key)),
            _ => None,
        },
        _ => None,
    }
}

fn rewrite_node(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    if !has_expr(&plan, |expr| parts(expr).is_some())? {
        return Ok(Transformed::no(plan));
    }
    let schema = input_schema(&plan);
    let names = NamePreserver::new(&plan);
    plan.map_expressions(|expr| {
        let original = expr.clone();
        let read = expr.transform_up(|expr| match parts(&expr) {
            Some((map, key)) if matches!(map.get_type(&schema), Ok(DataType::Map(_, _))) => {
                Ok(Transformed::yes(array_element(map_extract(map.clone(), key.clone()), lit(1_i64))))
            }
            _ => Ok(Transformed::no(expr)),
        })?;
        Ok(read.update_data(|expr| keep_name(&original, expr, &names)))
    })
}
