//! Leaves out a step of DataFusion's that mixes up the columns of a join's condition.

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::common::tree_node::TreeNode;
use datafusion::config::ConfigOptions;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::joins::SortMergeJoinExec;

/// DataFusion's rule that pushes projections down, where it keeps what a join's condition reads.
///
/// In DataFusion 55.2 a sort-merge join that a projection is pushed through keeps its condition as it was, over other
/// columns: it reads the wrong ones, or panics. Such joins are planned where `datafusion.optimizer.prefer_hash_join` is
/// off. The rule is left out for a plan with one that has a condition beside its keys.
#[derive(Debug)]
pub(super) struct ProjectionPushdown {
    inner: Arc<dyn PhysicalOptimizerRule + Send + Sync>,
}

impl ProjectionPushdown {
    pub(super) fn new(inner: Arc<dyn PhysicalOptimizerRule + Send + Sync>) -> Self {
        Self { inner }
    }

    /// Whether the rule of this name needs the fence.
    pub(super) fn fences(rule: &str) -> bool {
        rule == "ProjectionPushdown"
    }
}

impl PhysicalOptimizerRule for ProjectionPushdown {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn schema_check(&self) -> bool {
        self.inner.schema_check()
    }

    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, config: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        let has_condition = |plan: &Arc<dyn ExecutionPlan>| {
            plan.downcast_ref::<SortMergeJoinExec>().is_some_and(|join| join.filter().is_some())
        };
        if plan.exists(|plan| Ok(has_condition(plan)))? { Ok(plan) } else { self.inner.optimize(plan, config) }
    }
}
