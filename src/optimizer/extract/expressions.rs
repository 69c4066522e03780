//! Replaces the calls in the expressions of one node by columns of its input.

use std::collections::HashSet;
use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, Result};
use datafusion::logical_expr::utils::disjunction;
use datafusion::logical_expr::{Case, Expr, LogicalPlan, Projection, lit};

use super::{Extraction, Lifted, Names, Prediction, can_be_lifted, has_call, is_at_hand, is_call, split_guard};
use crate::plan::Predict;

impl Extraction {
    /// `exprs` over `input` with columns in place of calls, and `input` with the nodes that give these columns.
    ///
    /// Calls whose arguments `input` lacks stay.
    pub(super) fn replace(&mut self, exprs: Vec<Expr>, input: Lifted) -> Result<(Vec<Expr>, Lifted)> {
        if !exprs.iter().any(has_call) {
            return Ok((exprs, input));
        }
        let mut replacement = Replacement { extraction: self, input, selectors: vec![], room: MOST_NODES };
        for expr in &exprs {
            replacement.lift_unconditional(expr)?;
        }
        let exprs = exprs.into_iter().map(|expr| replacement.serve(expr)).collect::<Result<Vec<_>>>()?;
        replacement.lift_shared(&exprs)?;
        let exprs = exprs.into_iter().map(|expr| replacement.replace(expr, None)).collect::<Result<_>>()?;
        Ok((exprs, replacement.input))
    }
}

/// The replacement of the calls of one node.
///
/// A condition, where one is given, says for which rows an expression is evaluated. It is cheap and can't fail: what it
/// tests was computed before, in a column of its own where that matters.
pub(super) struct Replacement<'a> {
    pub(super) extraction: &'a mut Extraction,
    pub(super) input: Lifted,
    /// Columns that were added to the input, by their expressions: see [`Self::select`].
    selectors: Vec<(Expr, Column)>,
    /// How many nodes may still be put on top of the input.
    room: usize,
}

/// Nodes that the calls of one node's expressions are lifted into, at most; further calls stay functions, which CASE makes
/// as lazily. DataFusion plans and runs nodes by recursion, and a query must not overflow the stack.
const MOST_NODES: usize = 32;

impl Replacement<'_> {
    /// `expr`, which is evaluated for the rows for which `condition` is true, with columns in place of calls.
    pub(super) fn replace(&mut self, expr: Expr, condition: Option<&Expr>) -> Result<Expr> {
        match expr {
            expr if !has_call(&expr) => Ok(expr),
            Expr::Case(case) => self.replace_in_case(case, condition),
            Expr::Lambda(_) => Ok(expr), // its arguments are no columns
            expr => {
                let expr = expr.map_children(|child| Ok(Transformed::yes(self.replace(child, condition)?)))?.data;
                if is_call(&expr) { self.replace_call(expr, condition) } else { Ok(expr) }
            }
        }
    }

    fn replace_call(&mut self, call: Expr, condition: Option<&Expr>) -> Result<Expr> {
        if !can_be_lifted(&call) || !is_at_hand(&call, self.input.plan.schema()) || self.room < 2 {
            return Ok(call);
        }
        let (call, guard) = split_guard(&call);
        let found = match self.input.serving(&call, None) {
            Some(column) => Some(column),
            None => {
                let rows = self.rows(condition, guard.as_ref())?;
                match self.input.serving(&call, rows.as_ref()) {
                    Some(column) => Some(column),
                    None => return self.lift(call, rows.into_iter().collect()),
                }
            }
        };
        self.extraction.changed = true;
        Ok(found.unwrap_or(call))
    }

    /// Lifts the calls that `expr` evaluates for every row, so that calls behind a condition find them.
    fn lift_unconditional(&mut self, expr: &Expr) -> Result<()> {
        match expr {
            expr if !has_call(expr) => Ok(()),
            Expr::Case(case) => {
                let first = case.when_then_expr.first().map(|(when, _)| when);
                case.expr.iter().chain(first).try_for_each(|always| self.lift_unconditional(always))
            }
            Expr::Lambda(_) => Ok(()),
            call if is_call(call) => match split_guard(call) {
                (_, Some(guard)) => self.lift_unconditional(&guard),
                (call, None) => self.replace(call, None).map(drop),
            },
            other => other
                .apply_children(|child| {
                    self.lift_unconditional(child)?;
                    Ok(TreeNodeRecursion::Continue)
                })
                .map(drop),
        }
    }

    /// `expr` with the columns of predictions that were made for all rows.
    fn serve(&mut self, expr: Expr) -> Result<Expr> {
        if matches!(expr, Expr::Lambda(_)) || !has_call(&expr) {
            return Ok(expr);
        }
        let expr = expr.map_children(|child| Ok(Transformed::yes(self.serve(child)?)))?.data;
        if !is_call(&expr) {
            return Ok(expr);
        }
        let served = self.input.serving(&split_guard(&expr).0, None);
        self.extraction.changed |= served.is_some();
        Ok(served.unwrap_or(expr))
    }

    /// Lifts the calls that stand behind several conditions, each once, for the rows of all of them.
    fn lift_shared(&mut self, exprs: &[Expr]) -> Result<()> {
        let mut calls: Vec<(Expr, Vec<Expr>)> = vec![];
        for expr in exprs {
            self.collect_conditional(expr, None, &mut calls)?;
        }
        for (call, conditions) in calls {
            if self.room > 0 && conditions.len() > 1 && self.input.serving(&call, conditions.first()).is_none() {
                self.lift(call, conditions)?;
            }
        }
        Ok(())
    }

    /// Adds the calls behind conditions that hold no other call to `calls`, each with all its conditions.
    pub(super) fn collect_conditional(
        &mut self,
        expr: &Expr,
        condition: Option<&Expr>,
        calls: &mut Vec<(Expr, Vec<Expr>)>,
    ) -> Result<()> {
        match expr {
            expr if !has_call(expr) => Ok(()),
            Expr::Case(case) => self.collect_in_case(case, condition, calls),
            Expr::Lambda(_) => Ok(()),
            call if is_call(call) => {
                let (bare, guard) = split_guard(call);
                let holds_another = call.exists(|inner| Ok(is_call(inner) && inner != call))?;
                if holds_another || !can_be_lifted(call) || !is_at_hand(call, self.input.plan.schema()) {
                    return Ok(());
                }
                let Some(condition) = self.rows(condition, guard.as_ref())? else { return Ok(()) };
                match calls.iter_mut().find(|(known, _)| *known == bare) {
                    Some((_, conditions)) if conditions.contains(&condition) => {}
                    Some((_, conditions)) => conditions.push(condition),
                    None => calls.push((bare, vec![condition])),
                }
                Ok(())
            }
            other => other
                .apply_children(|child| {
                    self.collect_conditional(child, condition, calls)?;
                    Ok(TreeNodeRecursion::Continue)
                })
                .map(drop),
        }
    }

    /// Whether the calls of `case` have room, each distinct call in a node and each CASE and WHEN with a call in one more.
    pub(super) fn has_room_for(&self, case: &Case) -> bool {
        let mut calls = HashSet::new();
        let mut branches = 1;
        let counted = Expr::Case(case.clone()).apply(|expr| {
            match expr {
                call if is_call(call) => drop(calls.insert(split_guard(call).0)),
                Expr::Case(case) => {
                    branches += 1 + case.when_then_expr.iter().filter(|(when, _)| has_call(when)).count();
                }
                _ => {}
            }
            Ok(TreeNodeRecursion::Continue)
        });
        counted.is_ok() && calls.len() + branches <= self.room
    }

    /// The condition for rows for which both are true. The guard is evaluated for the rows of `condition` alone.
    fn rows(&mut self, condition: Option<&Expr>, guard: Option<&Expr>) -> Result<Option<Expr>> {
        match (condition, guard) {
            (Some(condition), Some(guard)) => {
                let passed = super::case::number_of_branch(None, [guard.clone()], 1);
                let passed = self.select(super::case::for_rows(condition, passed))?;
                Ok(Some(passed.eq(lit(1))))
            }
            (one, None) | (None, one) => Ok(one.cloned()),
        }
    }

    /// A column with the value of `expr`, which is computed once, below the nodes that are still to come.
    ///
    /// Conditions on such a column can be combined as one likes, where conditions on `expr` itself would be rewritten by
    /// DataFusion to forms that evaluate all their parts.
    pub(super) fn select(&mut self, expr: Expr) -> Result<Expr> {
        if let Some((_, column)) = self.selectors.iter().find(|(known, _)| *known == expr) {
            return Ok(Expr::Column(column.clone()));
        }
        self.room = self.room.saturating_sub(1);
        let name = self.extraction.names.fresh(Names::BRANCH);
        let below = std::mem::take(&mut self.input.plan);
        let mut exprs: Vec<_> = below.schema().columns().into_iter().map(Expr::Column).collect();
        exprs.push(expr.clone().alias(&name));
        self.input.plan = LogicalPlan::Projection(Projection::try_new(exprs, Arc::new(below))?);
        let column = Column::new_unqualified(name);
        self.selectors.push((expr, column.clone()));
        Ok(Expr::Column(column))
    }

    /// Puts a node for `call` on top of the input, for the rows for which any of `conditions` is true, or for all.
    fn lift(&mut self, call: Expr, conditions: Vec<Expr>) -> Result<Expr> {
        let Expr::ScalarFunction(function) = &call else { return Ok(call) };
        self.extraction.changed = true;
        self.room = self.room.saturating_sub(1);
        let output = self.extraction.names.fresh(Names::PREDICTION);
        let condition = disjunction(conditions.iter().cloned());
        let below = std::mem::take(&mut self.input.plan);
        let node = Predict::try_new(below, function.func.clone(), function.args.clone(), condition, output.clone())?;
        self.input.plan = node.into_plan();
        let column = Column::new_unqualified(output);
        self.input.predictions.push(Prediction { call, conditions, column: column.clone() });
        Ok(Expr::Column(column))
    }
}
