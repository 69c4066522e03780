//! Keeps calls lazy where SQL users expect it, and DataFusion evaluates both sides.

use std::collections::HashSet;
use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, Result};
use datafusion::logical_expr::expr::{
    AggregateFunction, AggregateFunctionParams, ScalarFunction, Sort, WindowFunctionParams,
};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{BinaryExpr, Expr, LogicalPlan, Operator, binary_expr};
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
    let is_filter = matches!(plan, LogicalPlan::Filter(_));
    let sides: Vec<Arc<DFSchema>> = match &plan {
        LogicalPlan::Join(join) => vec![join.left.schema().clone(), join.right.schema().clone()],
        _ => vec![],
    };
    let names = NamePreserver::new(&plan);
    plan.map_expressions(|expr| {
        let original = expr.clone();
        let guards = Guards { conditions: vec![], sides: &sides };
        let guarded = if is_filter { guards.put_in_filter(expr) } else { guards.put(expr) }?;
        Ok(guarded.update_data(|expr| keep_name(&original, expr, &names)))
    })
}

/// Whether `expr` is a place at which a call may stand behind a condition.
fn may_be_guarded(expr: &Expr) -> bool {
    let place = match expr {
        Expr::BinaryExpr(BinaryExpr { op, .. }) => matches!(op, Operator::And | Operator::Or),
        Expr::AggregateFunction(AggregateFunction { params, .. }) => params.filter.is_some(),
        Expr::WindowFunction(window) => window.params.filter.is_some(),
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
            Expr::AggregateFunction(mut aggregate) => {
                let AggregateFunctionParams { args, filter, order_by, .. } = &mut aggregate.params;
                let changed = self.put_in_filtered(args, order_by, filter)?;
                Ok(Transformed::new_transformed(Expr::AggregateFunction(aggregate), changed))
            }
            Expr::WindowFunction(mut window) => {
                // Its frames are made of all rows.
                let WindowFunctionParams { args, filter, .. } = &mut window.params;
                let changed = self.put_in_filtered(args, &mut [], filter)?;
                Ok(Transformed::new_transformed(Expr::WindowFunction(window), changed))
            }
            Expr::Lambda(_) => Ok(Transformed::no(expr)), // its conditions are no columns
            expr if is_call(&expr) => self.put_in_call(expr),
            expr => expr.map_children(|child| self.put(child)),
        }
    }

    /// The conditions of WHERE are pushed down one by one, and a guard of another table would hold one up.
    fn put_in_filter(&self, predicate: Expr) -> Result<Transformed<Expr>> {
        let tables = |expr: &Expr| -> HashSet<_> {
            expr.column_refs().into_iter().filter_map(|column| column.relation.clone()).collect()
        };
        self.put_among(operands(predicate, Operator::And), Operator::And, |condition, guarded| {
            tables(condition).is_subset(&tables(guarded))
        })
    }

    fn put_in_chain(&self, expr: Expr, op: Operator) -> Result<Transformed<Expr>> {
        self.put_among(operands(expr, op), op, |_, _| true)
    }

    /// Of the operands of AND or OR, those without a call guard the others, of which `guards` says which it guards.
    fn put_among(
        &self,
        operands: Vec<Expr>,
        op: Operator,
        guards: impl Fn(&Expr, &Expr) -> bool,
    ) -> Result<Transformed<Expr>> {
        let plain = operands.iter().filter(|operand| !has_call(operand) && !operand.is_volatile());
        let plain: Vec<Expr> = plain.cloned().collect();
        let mut changed = false;
        let mut chain: Option<Expr> = None;
        for operand in operands {
            let mut of_operand = self.clone();
            if has_call(&operand) {
                for condition in plain.iter().filter(|condition| guards(condition, &operand)) {
                    let condition = Box::new(condition.clone());
                    of_operand.conditions.push(match op {
                        Operator::And => Expr::IsNotFalse(condition),
                        _ => Expr::IsNotTrue(condition),
                    });
                }
            }
            let operand = of_operand.put(operand)?;
            changed |= operand.transformed;
            chain = Some(match chain {
                Some(chain) => binary_expr(chain, op, operand.data),
                None => operand.data,
            });
        }
        Ok(Transformed::new_transformed(chain.unwrap_or_default(), changed))
    }

    /// FILTER guards the arguments, and their order. It may hold calls itself, which are made first.
    fn put_in_filtered(
        &self,
        arguments: &mut [Expr],
        order_by: &mut [Sort],
        filter: &mut Option<Box<Expr>>,
    ) -> Result<bool> {
        let unguarded = Guards { conditions: vec![], ..self.clone() };
        let mut changed = false;
        let mut put = |guards: &Self, expr: &mut Expr| -> Result<()> {
            let put = guards.put(std::mem::take(expr))?;
            changed |= put.transformed;
            *expr = put.data;
            Ok(())
        };
        let mut of_arguments = unguarded.clone();
        if let Some(filter) = filter {
            put(&unguarded, filter)?;
            let conditions = split_conjunction(filter).into_iter().filter(|condition| !condition.is_volatile());
            of_arguments.conditions.extend(conditions.cloned());
        }
        let ordered = order_by.iter_mut().map(|sort| &mut sort.expr);
        arguments.iter_mut().chain(ordered).try_for_each(|expr| put(&of_arguments, expr))?;
        Ok(changed)
    }

    fn put_in_call(&self, call: Expr) -> Result<Transformed<Expr>> {
        let is_guarded =
            |(function, call): (&ModelFunction, &ScalarFunction)| function.without_guard(&call.args).is_some();
        if as_call(&call).is_some_and(is_guarded) {
            return Ok(Transformed::no(call)); // by an earlier pass
        }
        let mut conditions: Vec<Expr> = vec![];
        for condition in self.conditions.iter().filter(|condition| self.is_beside(condition, &call)) {
            if !conditions.contains(condition) {
                conditions.push(condition.clone());
            }
        }
        let guard = all_of(&conditions);
        let call = call.map_children(|child| self.put(child))?;
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

/// The operands of a chain of `op`, however it is nested. A chain may be deeper than the stack allows to follow.
fn operands(chain: Expr, op: Operator) -> Vec<Expr> {
    let (mut operands, mut left) = (vec![], vec![chain]);
    while let Some(expr) = left.pop() {
        match expr {
            Expr::BinaryExpr(binary) if binary.op == op => left.extend([*binary.right, *binary.left]),
            operand => operands.push(operand),
        }
    }
    operands
}

/// The conjunction of `conditions`, as flat as can be.
fn all_of(conditions: &[Expr]) -> Option<Expr> {
    match conditions {
        [] => None,
        [only] => Some(only.clone()),
        several => {
            let (left, right) = several.split_at(several.len() / 2);
            Some(all_of(left)?.and(all_of(right)?))
        }
    }
}
