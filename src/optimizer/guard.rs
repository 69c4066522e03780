//! Keeps calls lazy where SQL users expect it, and DataFusion evaluates both sides.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, Result};
use datafusion::logical_expr::expr::{AggregateFunction, ScalarFunction};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{BinaryExpr, Expr, LogicalPlan, Operator};
use datafusion::optimizer::{OptimizerConfig, OptimizerRule};
use datafusion_predict_udfs::ModelFunction;

use super::calls::{as_call, calls_models, has_call, has_expr, is_call, with_guard};
use super::names::keep_name;

/// Gives calls behind a condition that condition as their last argument, so that rows that it settles are not scored.
///
/// ```text
/// id < 10 AND predict('m', x) > 5          id < 10 AND predict('m', x, id < 10 IS NOT FALSE) > 5
/// id > 9 OR predict('m', x) > 5            id > 9 OR predict('m', x, id > 9 IS NOT TRUE) > 5
/// sum(predict('m', x)) FILTER (WHERE g)    sum(predict('m', x, g)) FILTER (WHERE g)
/// ```
///
/// DataFusion evaluates AND and OR on all rows, unless few are left, and an aggregate's arguments before its FILTER. A
/// model may refuse the other rows, and scoring them is waste. NULL settles nothing: `NULL AND false` is false.
///
/// The conditions of AND and OR are those operands that hold no call themselves. The rule stays on when calls are not
/// lifted into nodes. [`ExtractPredict`](super::ExtractPredict) turns the argument into the node's condition.
#[derive(Debug)]
pub(crate) struct GuardCalls;

impl OptimizerRule for GuardCalls {
    fn name(&self) -> &str {
        "guard_predict"
    }

    fn rewrite(&self, plan: LogicalPlan, _config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        if calls_models(&plan)? { plan.transform_up_with_subqueries(guard_node) } else { Ok(Transformed::no(plan)) }
    }
}

fn guard_node(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    if matches!(plan, LogicalPlan::Extension(_)) || !has_expr(&plan, may_be_guarded)? {
        return Ok(Transformed::no(plan));
    }
    let sides: Vec<Arc<DFSchema>> = match &plan {
        LogicalPlan::Join(join) => vec![join.left.schema().clone(), join.right.schema().clone()],
        _ => vec![],
    };
    let names = NamePreserver::new(&plan);
    plan.map_expressions(|expr| {
        let original = expr.clone();
        let guarded = Guards { conditions: vec![], sides: &sides }.put(expr)?;
        Ok(guarded.update_data(|expr| keep_name(&original, expr, &names)))
    })
}

/// Whether `expr` is a place at which a call may stand behind a condition.
fn may_be_guarded(expr: &Expr) -> bool {
    let place = match expr {
        Expr::BinaryExpr(BinaryExpr { op, .. }) => matches!(op, Operator::And | Operator::Or),
        Expr::AggregateFunction(AggregateFunction { params, .. }) => params.filter.is_some(),
        _ => false,
    };
    place && has_call(expr)
}

/// What has to be true of a row for a call to be made.
#[derive(Clone)]
struct Guards<'a> {
    conditions: Vec<Expr>,
    /// The inputs of a join. A condition on one of them does not guard a call on the other, which is made below the
    /// join, once for each row.
    sides: &'a [Arc<DFSchema>],
}

impl Guards<'_> {
    /// Guards the calls in `expr`.
    fn put(&self, expr: Expr) -> Result<Transformed<Expr>> {
        if !has_call(&expr) {
            return Ok(Transformed::no(expr));
        }
        match expr {
            Expr::BinaryExpr(BinaryExpr { op: op @ (Operator::And | Operator::Or), .. }) => self.put_in_chain(expr, op),
            Expr::AggregateFunction(aggregate) => self.put_in_aggregate(aggregate),
            Expr::WindowFunction(_) => Guards { conditions: vec![], ..self.clone() }.put_in_children(expr),
            Expr::Lambda(_) => Ok(Transformed::no(expr)), // its conditions are no columns
            expr if is_call(&expr) => self.put_in_call(expr),
            expr => self.put_in_children(expr),
        }
    }

    fn put_in_children(&self, expr: Expr) -> Result<Transformed<Expr>> {
        expr.map_children(|child| self.put(child))
    }

    /// Of the operands of AND or OR, those without a call guard the others.
    fn put_in_chain(&self, expr: Expr, op: Operator) -> Result<Transformed<Expr>> {
        let mut operands = vec![];
        collect_operands(&expr, op, &mut operands);
        let settles_nothing = |operand: &Expr| {
            let operand = Box::new(operand.clone());
            if op == Operator::And { Expr::IsNotFalse(operand) } else { Expr::IsNotTrue(operand) }
        };
        let mut guards = self.clone();
        for operand in operands.into_iter().filter(|operand| !has_call(operand) && !operand.is_volatile()) {
            let guard = settles_nothing(operand);
            if !guards.conditions.contains(&guard) {
                guards.conditions.push(guard);
            }
        }
        guards.put_in_operands(expr, op)
    }

    /// Guards the calls in the operands of a chain, whose shape is kept.
    fn put_in_operands(&self, expr: Expr, op: Operator) -> Result<Transformed<Expr>> {
        match &expr {
            Expr::BinaryExpr(binary) if binary.op == op => expr.map_children(|child| self.put_in_operands(child, op)),
            _ => self.put(expr),
        }
    }

    /// FILTER guards the arguments. It may hold calls itself, which are made first.
    fn put_in_aggregate(&self, mut aggregate: AggregateFunction) -> Result<Transformed<Expr>> {
        let unguarded = Guards { conditions: vec![], ..self.clone() };
        let mut changed = false;
        let mut put = |guards: &Self, expr: Expr| -> Result<Expr> {
            let put = guards.put(expr)?;
            changed |= put.transformed;
            Ok(put.data)
        };
        let mut of_arguments = unguarded.clone();
        let params = &mut aggregate.params;
        if let Some(filter) = params.filter.take() {
            let filter = put(&unguarded, *filter)?;
            if !filter.is_volatile() {
                of_arguments.conditions.push(filter.clone());
            }
            params.filter = Some(Box::new(filter));
        }
        params.args = std::mem::take(&mut params.args)
            .into_iter()
            .map(|argument| put(&of_arguments, argument))
            .collect::<Result<_>>()?;
        for sort in &mut params.order_by {
            sort.expr = put(&of_arguments, sort.expr.clone())?;
        }
        Ok(Transformed::new_transformed(Expr::AggregateFunction(aggregate), changed))
    }

    fn put_in_call(&self, call: Expr) -> Result<Transformed<Expr>> {
        let is_guarded =
            |(function, call): (&ModelFunction, &ScalarFunction)| function.without_guard(&call.args).is_some();
        if as_call(&call).is_some_and(is_guarded) {
            return Ok(Transformed::no(call)); // by an earlier pass
        }
        let guard = conjunction(self.conditions.iter().filter(|condition| self.is_beside(condition, &call)).cloned());
        let call = self.put_in_children(call)?;
        Ok(match guard {
            Some(guard) => Transformed::yes(with_guard(&call.data, guard)),
            None => call,
        })
    }

    /// Whether `condition` is at hand where `call` is made.
    fn is_beside(&self, condition: &Expr, call: &Expr) -> bool {
        let side_of = |expr: &Expr| {
            let columns = expr.column_refs();
            self.sides.iter().position(|side| columns.iter().all(|column| side.has_column(column)))
        };
        side_of(call).is_none_or(|side| side_of(condition) == Some(side))
    }
}

/// The operands of a chain of `op`, however it is nested.
fn collect_operands<'e>(expr: &'e Expr, op: Operator, operands: &mut Vec<&'e Expr>) {
    match expr {
        Expr::BinaryExpr(binary) if binary.op == op => {
            collect_operands(&binary.left, op, operands);
            collect_operands(&binary.right, op, operands);
        }
        operand => operands.push(operand),
    }
}
