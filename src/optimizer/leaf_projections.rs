//! Leaves out a step of DataFusion's that fails over subqueries.

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::common::tree_node::{Transformed, TreeNodeRecursion};
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion::optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule};

use super::calls::has_expr;
use crate::plan::Predict;

/// DataFusion's rules that read the fields of structs early, where they work.
///
/// In DataFusion 55.2 the columns of a plan are mixed up by these rules where a field of a struct is read beside a subquery
/// in an expression: planning fails with "No field named …", for tables with structs, too. Models with several outputs
/// give structs, so the rules are left out for a plan with a prediction and such a subquery. Its rows are the same.
#[derive(Debug)]
pub(super) struct LeafProjections {
    inner: Arc<dyn OptimizerRule + Send + Sync>,
}

impl LeafProjections {
    pub(super) fn new(inner: Arc<dyn OptimizerRule + Send + Sync>) -> Self {
        Self { inner }
    }

    /// Whether the rule of this name needs the fence.
    pub(super) fn fences(rule: &str) -> bool {
        ["extract_leaf_expressions", "push_down_leaf_projections"].contains(&rule)
    }
}

impl OptimizerRule for LeafProjections {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn rewrite(&self, plan: LogicalPlan, config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        if fails_for(&plan)? {
            return Ok(Transformed::no(plan));
        }
        let each = |plan| self.inner.rewrite(plan, config);
        match self.inner.apply_order() {
            Some(ApplyOrder::TopDown) => plan.transform_down_with_subqueries(each),
            Some(ApplyOrder::BottomUp) => plan.transform_up_with_subqueries(each),
            None => self.inner.rewrite(plan, config),
        }
    }
}

fn fails_for(plan: &LogicalPlan) -> Result<bool> {
    let (mut predicts, mut subqueries) = (false, false);
    plan.apply_with_subqueries(|plan| {
        predicts |= matches!(plan, LogicalPlan::Extension(extension) if extension.node.as_any().is::<Predict>());
        let is_subquery = |expr: &Expr| matches!(expr, Expr::ScalarSubquery(_) | Expr::InSubquery(_) | Expr::Exists(_));
        subqueries = subqueries || has_expr(plan, is_subquery)?;
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(predicts && subqueries)
}
