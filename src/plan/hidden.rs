//! Predictions as tables, for query planners that do not know our node.

use std::collections::BTreeSet;
use std::sync::{Arc, Weak};

use async_trait::async_trait;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::tree_node::Transformed;
use datafusion::common::{Result, TableReference, exec_datafusion_err};
use datafusion::datasource::provider_as_source;
use datafusion::execution::context::QueryPlanner;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{Expr, Extension, LogicalPlan, TableScan, TableType};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_planner::{DefaultPhysicalPlanner, ExtensionPlanner};

use super::{Predict, PredictExtensionPlanner, PredictQueryPlanner};

/// `plan` with a table in place of each [`Predict`] node and what is below it.
///
/// ```text
/// TheirNode                  TheirNode
///   Predict                    TableScan: predict, of the Predict node
///     TableScan: t
/// ```
///
/// Any planner plans a scan by asking the table, which asks `planner` for the input and puts the physical node on top. So a
/// plan with nodes of several extensions is planned, each by who knows it.
pub(super) fn hide(plan: LogicalPlan, planner: &Weak<PredictQueryPlanner>) -> Result<LogicalPlan> {
    let hidden = plan.transform_down_with_subqueries(|plan| match &plan {
        LogicalPlan::Extension(Extension { node }) if node.as_any().is::<Predict>() => {
            let schema = plan.schema().clone();
            let table = Arc::new(HiddenPredict { node: plan.clone(), planner: planner.clone() });
            let scan = TableScan {
                table_name: TableReference::bare("predict"),
                source: provider_as_source(table),
                projection: None,
                projected_schema: schema,
                filters: vec![],
                fetch: None,
                statistics_requests: BTreeSet::new(),
            };
            Ok(Transformed::yes(LogicalPlan::TableScan(scan)))
        }
        _ => Ok(Transformed::no(plan)),
    })?;
    Ok(hidden.data)
}

/// A [`Predict`] node with its input.
#[derive(Debug)]
struct HiddenPredict {
    node: LogicalPlan,
    planner: Weak<PredictQueryPlanner>,
}

#[async_trait]
impl TableProvider for HiddenPredict {
    fn schema(&self) -> SchemaRef {
        self.node.schema().inner().clone()
    }

    fn table_type(&self) -> TableType {
        TableType::View
    }

    async fn scan(
        &self,
        session: &dyn Session,
        _projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        _limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let gone = || exec_datafusion_err!("the planner of a Predict node is gone");
        let planner = self.planner.upgrade().ok_or_else(gone)?;
        let LogicalPlan::Extension(Extension { node }) = &self.node else { return Err(gone()) };
        let inputs = node.inputs();
        let mut planned = vec![];
        for input in &inputs {
            planned.push(planner.create_physical_plan(input, session).await?);
        }
        let context = PhysicalPlanningContext::default();
        let physical = DefaultPhysicalPlanner::default();
        let exec = PredictExtensionPlanner
            .plan_extension(&physical, node.as_ref(), &inputs, &planned, session, &context)
            .await?;
        exec.ok_or_else(gone)
    }
}
