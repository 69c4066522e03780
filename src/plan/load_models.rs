//! Loads the models of calls that stayed functions.

use std::fmt;
use std::sync::Arc;

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{DataFusionError, Result, exec_err};
use datafusion::config::ConfigOptions;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{PhysicalExpr, ScalarFunctionExpr};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::execution_plan::CardinalityEffect;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};
use datafusion_predict_udfs::ModelFunction;
use futures::{StreamExt, TryStreamExt, stream};

use crate::registry::RegisteredModel;

/// Passes its input's rows through; before the first of them, the models are loaded that plain calls below need.
///
/// A call that is an expression is synchronous: it can't wait for a network without holding up a thread of the runtime. A
/// node can.
#[derive(Debug)]
pub struct LoadModelsExec {
    input: Arc<dyn ExecutionPlan>,
    models: Vec<RegisteredModel>,
}

impl LoadModelsExec {
    /// Loads `models` before it asks `input` for rows.
    pub fn new(input: Arc<dyn ExecutionPlan>, models: Vec<RegisteredModel>) -> Self {
        Self { input, models }
    }

    /// The models that are loaded.
    pub fn models(&self) -> &[RegisteredModel] {
        &self.models
    }
}

impl DisplayAs for LoadModelsExec {
    fn fmt_as(&self, t: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        let models: Vec<_> = self.models.iter().map(|model| model.handle().label()).collect();
        match t {
            DisplayFormatType::TreeRender => writeln!(f, "models={}", models.join(", ")),
            _ => write!(f, "LoadModelsExec: models=[{}]", models.join(", ")),
        }
    }
}

impl ExecutionPlan for LoadModelsExec {
    fn name(&self) -> &str {
        "LoadModelsExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.input.properties()
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
    }

    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false]
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        _f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(self: Arc<Self>, mut children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        match (children.pop(), children.is_empty()) {
            (Some(input), true) => Ok(Arc::new(Self { input, models: self.models.clone() })),
            _ => exec_err!("LoadModelsExec has one child"),
        }
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let (input, models) = (self.input.clone(), self.models.clone());
        let rows = async move {
            let mut loaded = vec![];
            for model in &models {
                loaded.push(model.load().await?);
            }
            // They are held as long as there are rows: calls below find them, whatever else is loaded meanwhile.
            let rows = input.execute(partition, context)?;
            Ok::<_, DataFusionError>(rows.inspect(move |_| {
                let _held = &loaded;
            }))
        };
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), stream::once(rows).try_flatten())))
    }

    fn supports_limit_pushdown(&self) -> bool {
        true
    }

    fn cardinality_effect(&self) -> CardinalityEffect {
        CardinalityEffect::Equal
    }
}

/// Puts [`LoadModelsExec`] on top of a plan in which calls of models are expressions.
#[derive(Debug, Default)]
pub(crate) struct LoadModels;

impl LoadModels {
    pub(crate) const NAME: &str = "load_models";
}

impl PhysicalOptimizerRule for LoadModels {
    fn name(&self) -> &str {
        Self::NAME
    }

    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _config: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        if (plan.as_ref() as &dyn std::any::Any).is::<LoadModelsExec>() {
            return Ok(plan);
        }
        let models = called_by_expressions(&plan)?;
        Ok(if models.is_empty() { plan } else { Arc::new(LoadModelsExec::new(plan, models)) })
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// The models that expressions of `plan` call.
fn called_by_expressions(plan: &Arc<dyn ExecutionPlan>) -> Result<Vec<RegisteredModel>> {
    let mut models: Vec<RegisteredModel> = vec![];
    plan.apply(|node| {
        node.apply_expressions(&mut |expr| {
            collect(expr, &mut models);
            Ok(TreeNodeRecursion::Continue)
        })
    })?;
    Ok(models)
}

fn collect(expr: &Arc<dyn PhysicalExpr>, models: &mut Vec<RegisteredModel>) {
    let function = expr.downcast_ref::<ScalarFunctionExpr>().map(|call| call.fun().inner());
    let model = function.and_then(|function| function.downcast_ref::<ModelFunction>());
    if let Some(model) = model.and_then(|function| RegisteredModel::of(function.model()))
        && !models.contains(model)
    {
        models.push(model.clone());
    }
    expr.children().into_iter().for_each(|child| collect(child, models));
}
