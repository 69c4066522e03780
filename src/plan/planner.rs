//! From the logical to the physical node.

use std::fmt::Debug;
use std::sync::{Arc, Weak};

use async_trait::async_trait;
use datafusion::catalog::Session;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{Result, exec_datafusion_err};
use datafusion::execution::SessionStateBuilder;
use datafusion::execution::context::{QueryPlanner, SessionContext};
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{Expr, LogicalPlan, UserDefinedLogicalNode, WriteOp};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::utils::collect_columns;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::async_func::AsyncMapper;
use datafusion::physical_plan::projection::{ProjectionExec, ProjectionExpr};
use datafusion::physical_planner::{DefaultPhysicalPlanner, ExtensionPlanner, PhysicalPlanner};
use datafusion_predict_udfs::ModelFunction;

use super::hidden::hide;
use super::{Predict, PredictExec, dml};
use crate::config::PredictConfig;
use crate::files::waiting_for;
use crate::registry::RegisteredModel;

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
        let columns = physical.schema().fields().len();
        let waiting = with_waiting_calls(physical.clone(), features, condition)?;
        let mut exec =
            PredictExec::try_new(waiting.input, function.clone(), waiting.features, waiting.condition, node.output())?;
        let batch_size = PredictConfig::of(session.config_options()).batch_size;
        if batch_size > 0 {
            exec = exec.with_batch_size(batch_size);
        }
        let exec: Arc<dyn ExecutionPlan> = Arc::new(exec);
        let fields = exec.schema().fields().len();
        if fields == columns + 1 {
            return Ok(Some(exec));
        }
        // Without what the calls gave that waited.
        let kept = (0..columns).chain([fields - 1]).map(|place| {
            let name = exec.schema().field(place).name().clone();
            ProjectionExpr { expr: Arc::new(Column::new(&name, place)), alias: name }
        });
        let kept: Vec<_> = kept.collect();
        Ok(Some(Arc::new(ProjectionExec::try_new(kept, exec)?)))
    }
}

/// What a prediction is computed from, and the expressions that it reads there.
struct Waiting {
    input: Arc<dyn ExecutionPlan>,
    features: Vec<Arc<dyn PhysicalExpr>>,
    condition: Option<Arc<dyn PhysicalExpr>>,
}

/// Puts a node below the prediction that computes the calls of its features and its condition which wait for something, such as
/// for a file, as DataFusion does for its own nodes.
fn with_waiting_calls(
    input: Arc<dyn ExecutionPlan>,
    features: Vec<Arc<dyn PhysicalExpr>>,
    condition: Option<Arc<dyn PhysicalExpr>>,
) -> Result<Waiting> {
    let schema = input.schema();
    let mut calls = AsyncMapper::new(schema.fields().len());
    for expr in features.iter().chain(&condition) {
        calls.find_references(expr, &schema)?;
    }
    if calls.is_empty() {
        return Ok(Waiting { input, features, condition });
    }
    let read = |expr: Arc<dyn PhysicalExpr>| expr.transform_up(|expr| Ok(calls.map_expr(expr))).map(|read| read.data);
    let features = features.into_iter().map(read).collect::<Result<_>>()?;
    let condition = condition.map(read).transpose()?;
    // What is lazy stays lazy: no file is read for a row that is not scored. The condition itself may have to wait.
    let lazy = condition.as_ref().filter(|condition| is_over(condition, schema.fields().len()));
    let input = waiting_for(&calls.async_exprs, input, lazy)?;
    Ok(Waiting { input, features, condition })
}

/// Whether `expr` reads none but the first `columns` columns.
fn is_over(expr: &Arc<dyn PhysicalExpr>, columns: usize) -> bool {
    collect_columns(expr).iter().all(|column| column.index() < columns)
}

/// A query planner that knows [`Predict`] nodes, and leaves everything else to the one that was there before.
///
/// A plan without them goes to that one as it is. So does a plan with them, each in the guise of a table, unless that is
/// DataFusion's own: nodes of other extensions are planned by who brought them.
///
/// It also sees to it that DELETE and UPDATE change the rows that they name, and EXPLAIN of them none; and that models are
/// loaded which DataFusion calls while it plans, as it does for those two and for VALUES.
#[derive(Debug)]
pub struct PredictQueryPlanner {
    inner: Arc<dyn QueryPlanner + Send + Sync>,
    this: Weak<Self>,
}

impl PredictQueryPlanner {
    /// Wraps `inner`.
    pub fn new(inner: Arc<dyn QueryPlanner + Send + Sync>) -> Arc<Self> {
        Arc::new_cyclic(|this| Self { inner, this: this.clone() })
    }

    /// Wraps `planner`, or DataFusion's own where there is none; one of ours stays as it is.
    pub(crate) fn around(planner: Option<Arc<dyn QueryPlanner + Send + Sync>>) -> Arc<dyn QueryPlanner + Send + Sync> {
        match planner {
            Some(planner) if is_ours(&planner) => planner,
            Some(planner) => Self::new(planner),
            None => Self::new(Arc::new(PlainPlanner)),
        }
    }

    /// Wraps the session's planner, where another one was set after ours.
    pub(crate) fn keep(context: &SessionContext) {
        let state = context.state_ref();
        if is_ours(state.read().query_planner()) {
            return;
        }
        let mut state = state.write();
        let id = state.session_id().to_owned();
        let builder = SessionStateBuilder::new_from_existing(state.clone()).with_session_id(id);
        let planner = Self::new(state.query_planner().clone());
        *state = builder.with_query_planner(planner).build();
    }

    /// Whether DataFusion's own planner is wrapped, of which only the name is known outside DataFusion.
    fn wraps_the_default(&self) -> bool {
        let name = format!("{:?}", self.inner);
        name.starts_with("DefaultQueryPlanner") || name == "PlainPlanner"
    }
}

#[async_trait]
impl QueryPlanner for PredictQueryPlanner {
    async fn create_physical_plan(&self, plan: &LogicalPlan, session: &dyn Session) -> Result<Arc<dyn ExecutionPlan>> {
        let changed = dml::with_conditions_on_the_table(plan)?;
        let plan = changed.as_ref().unwrap_or(plan);
        for model in called_while_planning(plan)? {
            model.load().await?;
        }
        if !has_predict(plan)? {
            return self.inner.create_physical_plan(plan, session).await;
        }
        if self.wraps_the_default() {
            let planner = DefaultPhysicalPlanner::with_extension_planners(vec![Arc::new(PredictExtensionPlanner)]);
            return planner.create_physical_plan(plan, session).await;
        }
        let hidden = hide(plan.clone(), &self.this)?;
        self.inner.create_physical_plan(&hidden, session).await
    }
}

fn is_ours(planner: &Arc<dyn QueryPlanner + Send + Sync>) -> bool {
    (planner.as_ref() as &dyn std::any::Any).is::<PredictQueryPlanner>()
}

/// DataFusion's own planner, where a session has none yet.
#[derive(Debug)]
struct PlainPlanner;

#[async_trait]
impl QueryPlanner for PlainPlanner {
    async fn create_physical_plan(&self, plan: &LogicalPlan, session: &dyn Session) -> Result<Arc<dyn ExecutionPlan>> {
        DefaultPhysicalPlanner::default().create_physical_plan(plan, session).await
    }
}

fn has_predict(plan: &LogicalPlan) -> Result<bool> {
    let mut found = false;
    plan.apply_with_subqueries(|plan| {
        found = found || matches!(plan, LogicalPlan::Extension(node) if node.node.as_any().is::<Predict>());
        Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    Ok(found)
}

/// The models that DataFusion calls while it makes the physical plan: tables in memory change then, and rows of VALUES are
/// computed then.
fn called_while_planning(plan: &LogicalPlan) -> Result<Vec<RegisteredModel>> {
    let mut models = vec![];
    let mut changes = false;
    plan.apply_with_subqueries(|plan| {
        changes |= matches!(plan, LogicalPlan::Dml(dml) if matches!(dml.op, WriteOp::Delete | WriteOp::Update));
        if changes || matches!(plan, LogicalPlan::Values(_)) {
            plan.apply_expressions(|expr| {
                expr.apply(|expr| {
                    if let Expr::ScalarFunction(call) = expr
                        && let Some(function) = call.func.inner().downcast_ref::<ModelFunction>()
                    {
                        models.extend(RegisteredModel::of(function.model()).cloned());
                    }
                    Ok(TreeNodeRecursion::Continue)
                })
            })?;
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(models)
}
