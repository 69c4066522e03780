//! From the logical to the physical node.

use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::catalog::Session;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Result, exec_datafusion_err};
use datafusion::execution::context::QueryPlanner;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{LogicalPlan, UserDefinedLogicalNode};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_planner::{DefaultPhysicalPlanner, ExtensionPlanner, PhysicalPlanner};
use datafusion_predict_udfs::ModelFunction;

use super::{Predict, PredictExec, dml};
use crate::config::PredictConfig;

/// Plans [`Predict`] nodes. Give it to a planner of your own if you have one.
#[derive(Debug, Default)]
pub struct PredictExtensionPlanner;

#[async_trait]
impl ExtensionPlanner for PredictExtensionPlanner {
    async fn plan_extension(
        &self,
        planner: &dyn PhysicalPlanner,
        node: &dyn UserDefinedLogicalNode,
        logical_inputs: &[&LogicalPlan],
        physical_inputs: &[Arc<dyn ExecutionPlan>],
        session: &dyn Session,
        planning_ctx: &PhysicalPlanningContext,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        let Some(node) = node.as_any().downcast_ref::<Predict>() else {
            return Ok(None);
        };
        let ([logical], [physical]) = (logical_inputs, physical_inputs) else {
            return Err(exec_datafusion_err!("a Predict node has one input"));
        };
        let function = node.function().inner().downcast_ref::<ModelFunction>();
        let function = function.ok_or_else(|| exec_datafusion_err!("a Predict node calls a function of a model"))?;
        let physical_expr = |expr| planner.create_physical_expr(expr, logical.schema(), session, planning_ctx);
        let features = function.features(node.arguments());
        let features = features.iter().map(physical_expr).collect::<Result<Vec<Arc<dyn PhysicalExpr>>>>()?;
        let condition = node.condition().map(physical_expr).transpose()?;
        let mut exec = PredictExec::try_new(physical.clone(), function.clone(), features, condition, node.output())?;
        let batch_size = PredictConfig::of(session.config_options()).batch_size;
        if batch_size > 0 {
            exec = exec.with_batch_size(batch_size);
        }
        Ok(Some(Arc::new(exec)))
    }
}

/// A query planner that knows [`Predict`] nodes, and leaves plans without them to the one that was there before.
///
/// It also sees to it that DELETE and UPDATE change the rows that they name, and EXPLAIN of them none.
#[derive(Debug)]
pub struct PredictQueryPlanner {
    inner: Arc<dyn QueryPlanner + Send + Sync>,
}

impl PredictQueryPlanner {
    /// Wraps `inner`.
    pub fn new(inner: Arc<dyn QueryPlanner + Send + Sync>) -> Self {
        Self { inner }
    }
}

#[async_trait]
impl QueryPlanner for PredictQueryPlanner {
    async fn create_physical_plan(&self, plan: &LogicalPlan, session: &dyn Session) -> Result<Arc<dyn ExecutionPlan>> {
        let changed = dml::with_conditions_on_the_table(plan)?;
        let plan = changed.as_ref().unwrap_or(plan);
        let mut ours = false;
        plan.apply_with_subqueries(|plan| {
            ours = ours || matches!(plan, LogicalPlan::Extension(extension) if extension.node.as_any().is::<Predict>());
            Ok(if ours { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
        })?;
        if !ours {
            return self.inner.create_physical_plan(plan, session).await;
        }
        let planner = DefaultPhysicalPlanner::with_extension_planners(vec![Arc::new(PredictExtensionPlanner)]);
        planner.create_physical_plan(plan, session).await
    }
}
