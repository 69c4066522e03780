//! Keeps models from being run while a plan is optimized.

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::common::tree_node::Transformed;
use datafusion::logical_expr::LogicalPlan;
use datafusion::optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule};

use crate::registry::planning;

/// Any rule, during which no model is called.
///
/// Several of DataFusion's rules evaluate what has only constants for arguments, `predict('m', 1, 2)`, or a condition on
/// NULLs that they make up, on the thread that plans. That would load and run a model for EXPLAIN. A call refuses inside this
/// fence, upon which DataFusion leaves it as it is: it is made once for each batch when the query runs.
#[derive(Debug)]
pub(super) struct WithoutCalls {
    inner: Arc<dyn OptimizerRule + Send + Sync>,
}

impl WithoutCalls {
    pub(super) fn new(inner: Arc<dyn OptimizerRule + Send + Sync>) -> Self {
        Self { inner }
    }
}

impl OptimizerRule for WithoutCalls {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        self.inner.apply_order()
    }

    fn rewrite(&self, plan: LogicalPlan, config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        let _planning = planning::begin();
        self.inner.rewrite(plan, config)
    }
}
