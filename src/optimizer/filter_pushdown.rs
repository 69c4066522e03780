//! Keeps filters off columns that only share a name with theirs.

use std::collections::HashSet;
use std::sync::Arc;

use datafusion::common::Result;
use datafusion::common::tree_node::TreeNode;
use datafusion::config::ConfigOptions;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::projection::ProjectionExec;

use super::joins::JoinView;

/// DataFusion's rule that pushes filters down, where it finds the right columns.
///
/// On their way down, filters find their columns by name. In DataFusion 55.2 a node takes the first column of that name in
/// its input, so that above a join whose sides share a name rows are lost (apache/datafusion#25244). The rule is therefore
/// left out for a plan in which a node, an aggregate too, reads columns of which two have one name. Releases with the mend
/// (#25259) need no fence.
#[derive(Debug)]
pub(super) struct UnambiguousFilterPushdown {
    inner: Arc<dyn PhysicalOptimizerRule + Send + Sync>,
}

impl UnambiguousFilterPushdown {
    pub(super) fn new(inner: Arc<dyn PhysicalOptimizerRule + Send + Sync>) -> Self {
        Self { inner }
    }

    /// Whether the rule of this name needs the fence.
    pub(super) fn fences(rule: &str) -> bool {
        rule.starts_with("FilterPushdown")
    }
}

impl PhysicalOptimizerRule for UnambiguousFilterPushdown {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn schema_check(&self) -> bool {
        self.inner.schema_check()
    }

    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, config: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        if plan.exists(|plan| Ok(is_ambiguous(plan)))? { Ok(plan) } else { self.inner.optimize(plan, config) }
    }
}

/// Whether a filter that passes `plan` may find another column of the name: it is looked up among the columns of each input,
/// by a projection among its own.
fn is_ambiguous(plan: &Arc<dyn ExecutionPlan>) -> bool {
    if plan.is::<ProjectionExec>() {
        return repeats_a_name(plan);
    }
    let own = JoinView::of(plan).is_none() && repeats_a_name(plan);
    own || plan.children().into_iter().any(repeats_a_name)
}

fn repeats_a_name(plan: &Arc<dyn ExecutionPlan>) -> bool {
    let mut names = HashSet::new();
    plan.schema().fields().iter().any(|field| !names.insert(field.name().clone()))
}
