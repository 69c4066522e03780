//! Binds each call by name to one version of its model.

use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, DataFusionError, Result, plan_err};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion::optimizer::AnalyzerRule;
use datafusion_predict_udfs::{ModelResolver, PredictFunction, ScoringModel, bind_call};

use super::calls::has_expr;
use super::names::keep_name;
use super::sort_wildcards::with_columns_of_from;
use super::{outcomes, provenance, tokenizers};
use crate::config::PredictConfig;
use crate::registry::RegisteredModel;

/// Replaces `predict('churn', t.*)` by a call of `churn/3` with its features in order.
///
/// From here on the statement holds on to that version, though the name may move on.
#[derive(Debug)]
pub(crate) struct BindPredict;

impl BindPredict {
    pub(crate) const NAME: &str = "bind_predict";

    /// `plan` with all calls bound, in subqueries too, to models by the engine that `options` name.
    ///
    /// All names are looked up in one state of the catalog.
    pub(crate) fn bind(plan: LogicalPlan, options: &ConfigOptions) -> Result<LogicalPlan> {
        let engine = PredictConfig::of(options).engine;
        let mut pinned = Pinned::default();
        let mut moved = false;
        let bound = plan.transform_up_with_subqueries(|plan| {
            let before = plan.schema().clone();
            let bound = bind_node(plan, &engine, &mut pinned)?;
            if let Some(plain) = provenance::without_conflicts(&bound.data)? {
                moved = true;
                return Ok(Transformed::yes(plain));
            }
            // Where a name has moved on since the plan was made, the fields say so up to the top.
            if moved && !bound.transformed {
                return Ok(Transformed::yes(bound.data.recompute_schema()?));
            }
            moved |= bound.transformed && provenance::differs(&before, bound.data.schema());
            Ok(bound)
        })?;
        outcomes::share(bound.data)
    }

    /// Whether any call of `plan`, in subqueries too, is not bound yet.
    pub(crate) fn is_needed(plan: &LogicalPlan) -> Result<bool> {
        let mut needed = false;
        plan.apply_with_subqueries(|plan| {
            needed = has_expr(plan, |expr| unbound(expr).is_some())?;
            Ok(if needed { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
        })?;
        Ok(needed)
    }
}

impl AnalyzerRule for BindPredict {
    fn name(&self) -> &str {
        Self::NAME
    }

    fn analyze(&self, plan: LogicalPlan, config: &ConfigOptions) -> Result<LogicalPlan> {
        Self::bind(plan, config)
    }
}

/// The function and the arguments, if `expr` is a call that is not bound yet.
pub(super) fn unbound(expr: &Expr) -> Option<(&PredictFunction, &ScalarFunction)> {
    match expr {
        Expr::ScalarFunction(call) => Some((call.func.inner().downcast_ref::<PredictFunction>()?, call)),
        _ => None,
    }
}

/// The columns that the expressions of `plan` can name.
pub(super) fn input_schema(plan: &LogicalPlan) -> DFSchema {
    let inputs = plan.inputs();
    if inputs.is_empty() { plan.schema().as_ref().clone() } else { merge_schema(&inputs) }
}

/// The model as the engine that the session chose runs it.
fn by_engine(model: Arc<dyn ScoringModel>, engine: &str) -> Arc<dyn ScoringModel> {
    match RegisteredModel::of(&model) {
        Some(ours) => Arc::new(ours.with_engine(engine)),
        None => model, // of another resolver
    }
}

/// The resolvers of a plan's calls, usually one, each as it was when the first call was bound.
#[derive(Default)]
pub(super) struct Pinned(Vec<(Arc<dyn ModelResolver>, Arc<dyn ModelResolver>)>);

impl Pinned {
    pub(super) fn of(&mut self, resolver: &Arc<dyn ModelResolver>) -> Arc<dyn ModelResolver> {
        if let Some((_, pinned)) = self.0.iter().find(|(known, _)| Arc::ptr_eq(known, resolver)) {
            return pinned.clone();
        }
        let pinned = resolver.pin();
        self.0.push((resolver.clone(), pinned.clone()));
        pinned
    }
}

fn bind_node(plan: LogicalPlan, engine: &str, pinned: &mut Pinned) -> Result<Transformed<LogicalPlan>> {
    let plan = tokenizers::with_versions(plan, pinned)?;
    if !has_expr(&plan.data, |expr| unbound(expr).is_some())? {
        return Ok(plan);
    }
    let plan = with_columns_of_from(plan.data)?;
    if plan.transformed {
        // The sort, which holds the calls, stands below the columns that come out.
        return plan.transform_data(|plan| plan.map_children(|sort| bind_node(sort, engine, pinned)));
    }
    let plan = plan.data;
    let schema = input_schema(&plan);
    let input = plan.inputs().first().map(|input| Arc::new((*input).clone()));
    let sorts_distinct = matches!((&plan, input.as_deref()), (LogicalPlan::Sort(_), Some(LogicalPlan::Distinct(_))));
    let names = NamePreserver::new(&plan);
    let planned = plan.schema().clone();
    let bound = plan.map_expressions(|expr| {
        let original = expr.clone();
        let bound = expr.transform_up(|expr| match unbound(&expr) {
            Some((function, call)) => {
                let choose = |model| by_engine(model, engine);
                let resolver = pinned.of(function.resolver());
                bind_call(function, resolver.as_ref(), call.args.clone(), input.as_deref(), &schema, &choose)
                    .map(Transformed::yes)
                    .map_err(|error| if sorts_distinct { of_select_list_alone(error) } else { error })
            }
            None => Ok(Transformed::no(expr)),
        })?;
        Ok(bound.update_data(|expr| keep_name(&original, expr, &names)))
    })?;
    let plan = bound.data.recompute_schema()?;
    for (before, now) in planned.fields().iter().zip(plan.schema().fields()) {
        if before.data_type() != now.data_type() {
            return plan_err!(
                "column '{}' was planned as {}, but its model now gives {}: the model was replaced by one with another output, plan the statement or the view again",
                before.name(),
                before.data_type(),
                now.data_type()
            );
        }
    }
    Ok(Transformed::yes(plan))
}

/// What to know of ORDER BY where a feature is missing.
fn of_select_list_alone(error: DataFusionError) -> DataFusionError {
    match error {
        DataFusionError::Plan(problem) if problem.contains("missing") => {
            DataFusionError::Plan(format!("{problem} (for SELECT DISTINCT, ORDER BY sees the SELECT list alone)"))
        }
        other => other,
    }
}
