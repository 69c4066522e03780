//! Small changes to nodes and expressions of physical plans.

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{PhysicalExprRef, conjunction};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::execution_plan::{ChildrenPropertiesMode, ReplaceChildrenOptions};
use datafusion::physical_plan::filter::FilterExec;

/// `plan` over other children.
pub(super) fn with_children(
    plan: Arc<dyn ExecutionPlan>,
    children: Vec<Arc<dyn ExecutionPlan>>,
) -> Result<Arc<dyn ExecutionPlan>> {
    let same = plan.children().into_iter().zip(&children).all(|(before, now)| Arc::ptr_eq(before, now));
    if same {
        return Ok(plan);
    }
    plan.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
}

/// `plan` without the rows for which a condition is not true.
pub(super) fn filter(conditions: &[PhysicalExprRef], plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    if conditions.is_empty() {
        return Ok(plan);
    }
    Ok(Arc::new(FilterExec::try_new(conjunction(conditions.iter().cloned()), plan)?))
}

/// `expr` with other expressions for its columns; `None` if there is none for one of them.
pub(super) fn with_columns(
    expr: &PhysicalExprRef,
    replacement: &dyn Fn(&Column) -> Option<PhysicalExprRef>,
) -> Result<Option<PhysicalExprRef>> {
    let mut missing = false;
    let replaced = expr.clone().transform_up(|expr| match expr.downcast_ref::<Column>() {
        None => Ok(Transformed::no(expr)),
        Some(column) => match replacement(column) {
            Some(other) => Ok(Transformed::yes(other)),
            None => {
                missing = true;
                Ok(Transformed::no(expr))
            }
        },
    });
    let replaced = replaced.data()?;
    Ok((!missing).then_some(replaced))
}
