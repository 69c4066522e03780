//! Goes down the nodes of a plan, and carries predictions up.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, JoinType, Result};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::{conjunction, split_conjunction, split_conjunction_owned};
use datafusion::logical_expr::{
    DmlStatement, Expr, Filter, Join, LogicalPlan, Projection, Sort, SubqueryAlias, WriteOp,
};

use super::{Extraction, Lifted, Prediction, has_call, is_call, keep_name, split_guard, with_guard};

impl Extraction {
    /// `plan` with its calls in nodes, at most below the conditions and columns that need them.
    pub(super) fn lift(&mut self, plan: LogicalPlan) -> Result<Lifted> {
        // Their tables evaluate the conditions and the new values themselves: see `plan::dml`.
        if let LogicalPlan::Dml(DmlStatement { op: WriteOp::Delete | WriteOp::Update, .. }) = plan {
            return Ok(Lifted::plain(plan));
        }
        let plan = plan.map_subqueries(|subquery| {
            let schema = subquery.schema().clone();
            Ok(Transformed::yes(self.lift(subquery)?.stripped_to(&schema)?))
        })?;
        match plan.data {
            LogicalPlan::Projection(projection) => self.lift_projection(projection),
            LogicalPlan::Filter(filter) => {
                let input = self.lift(Arc::unwrap_or_clone(filter.input))?;
                self.filter(split_conjunction_owned(filter.predicate), input)
            }
            LogicalPlan::Sort(sort) => {
                let input = self.lift(Arc::unwrap_or_clone(sort.input))?;
                let exprs = sort.expr.iter().map(|sort| sort.expr.clone()).collect();
                let (exprs, input) = self.replace(exprs, input)?;
                let expr = sort.expr.into_iter().zip(exprs).map(|(sort, expr)| sort.with_expr(expr)).collect();
                let plan = LogicalPlan::Sort(Sort { expr, input: Arc::new(input.plan), fetch: sort.fetch });
                Ok(Lifted { plan, ..input })
            }
            LogicalPlan::Limit(mut limit) => {
                let input = self.lift(Arc::unwrap_or_clone(limit.input))?;
                limit.input = Arc::new(input.plan);
                Ok(Lifted { plan: LogicalPlan::Limit(limit), ..input })
            }
            LogicalPlan::SubqueryAlias(alias) => self.lift_alias(alias),
            LogicalPlan::Join(join) => self.lift_join(join),
            LogicalPlan::Aggregate(aggregate) => match self.move_above_groups(aggregate)? {
                LogicalPlan::Projection(projection) => self.lift_projection(projection),
                aggregate => self.lift_over_one_input(aggregate),
            },
            LogicalPlan::Window(_) => self.lift_over_one_input(plan.data),
            other => self.lift_inputs(other),
        }
    }

    /// Any other node: its inputs are lifted, with their columns as they were.
    fn lift_inputs(&mut self, plan: LogicalPlan) -> Result<Lifted> {
        let lifted = plan.map_children(|input| {
            let schema = input.schema().clone();
            Ok(Transformed::yes(self.lift(input)?.stripped_to(&schema)?))
        })?;
        Ok(Lifted::plain(lifted.data))
    }

    fn lift_projection(&mut self, projection: Projection) -> Result<Lifted> {
        let names = NamePreserver::new_for_projection();
        let saved: Vec<_> = projection.expr.iter().map(|expr| names.save(expr)).collect();
        let input = self.lift(Arc::unwrap_or_clone(projection.input))?;
        let (exprs, input) = self.replace(projection.expr, input)?;
        let mut exprs: Vec<_> = exprs.into_iter().zip(saved).map(|(expr, name)| name.restore(expr)).collect();
        let outputs: Vec<(Column, Column)> = exprs
            .iter()
            .filter_map(|expr| {
                let (qualifier, name) = expr.qualified_name();
                match expr.clone().unalias_nested().data {
                    Expr::Column(column) => Some((column, Column::new(qualifier, name))),
                    _ => None,
                }
            })
            .collect();
        let mut predictions = vec![];
        for prediction in input.predictions {
            // The call above the projection, if its arguments are there under any name.
            let Some(over) =
                prediction.renamed(|column| outputs.iter().find(|(from, _)| from == column).map(|(_, to)| to.clone()))
            else {
                continue;
            };
            let column = match outputs.iter().find(|(from, _)| *from == prediction.column) {
                Some((_, to)) => to.clone(),
                None => {
                    exprs.push(Expr::Column(prediction.column.clone()));
                    prediction.column
                }
            };
            predictions.push(Prediction { column, ..over });
        }
        let plan = LogicalPlan::Projection(Projection::try_new(exprs, Arc::new(input.plan))?);
        Ok(Lifted { plan, predictions })
    }

    /// Conditions without a call first, then each with a call above the nodes that it needs.
    fn filter(&mut self, conditions: Vec<Expr>, mut input: Lifted) -> Result<Lifted> {
        let (with_call, plain): (Vec<_>, Vec<_>) = conditions.into_iter().partition(has_call);
        let with_call = with_call.into_iter().map(|condition| without_guards(condition, &plain));
        let with_call = with_call.collect::<Result<Vec<_>>>()?;
        if let Some(plain) = conjunction(plain) {
            input.plan = LogicalPlan::Filter(Filter::try_new(plain, Arc::new(input.plan))?);
        }
        for condition in with_call {
            let (mut replaced, below) = self.replace(vec![condition], input)?;
            input = below;
            if let Some(condition) = replaced.pop() {
                input.plan = LogicalPlan::Filter(Filter::try_new(condition, Arc::new(input.plan))?);
            }
        }
        Ok(input)
    }

    fn lift_alias(&mut self, alias: SubqueryAlias) -> Result<Lifted> {
        let input = self.lift(Arc::unwrap_or_clone(alias.input))?;
        let name = alias.alias;
        let rename = |column: &Column| Some(Column::new(Some(name.clone()), column.name.clone()));
        let predictions = input.predictions.iter().filter_map(|prediction| {
            Some(Prediction { column: rename(&prediction.column)?, ..prediction.renamed(rename)? })
        });
        let predictions = predictions.collect();
        let plan = LogicalPlan::SubqueryAlias(SubqueryAlias::try_new(Arc::new(input.plan), name)?);
        Ok(Lifted { plan, predictions })
    }

    /// Aggregates and windows: their calls go below them.
    fn lift_over_one_input(&mut self, plan: LogicalPlan) -> Result<Lifted> {
        let keeps_columns = matches!(plan, LogicalPlan::Window(_));
        let names = NamePreserver::new(&plan);
        let input = self.lift(plan.inputs()[0].clone())?;
        let originals = plan.expressions();
        let (exprs, input) = self.replace(originals.clone(), input)?;
        let exprs = originals.iter().zip(exprs).map(|(original, expr)| keep_name(original, expr, &names)).collect();
        let plan = plan.with_new_exprs(exprs, vec![input.plan])?;
        let predictions = if keeps_columns { input.predictions } else { vec![] };
        Ok(Lifted { plan, predictions })
    }

    fn lift_join(&mut self, join: Join) -> Result<Lifted> {
        let mut left = self.lift(Arc::unwrap_or_clone(join.left))?;
        let mut right = self.lift(Arc::unwrap_or_clone(join.right))?;
        let (left_keys, right_keys): (Vec<_>, Vec<_>) = join.on.into_iter().unzip();
        let (left_keys, lifted) = self.replace(left_keys, left)?;
        left = lifted;
        let (right_keys, lifted) = self.replace(right_keys, right)?;
        right = lifted;
        let mut inside = vec![];
        let mut above = vec![];
        for condition in join.filter.into_iter().flat_map(split_conjunction_owned) {
            let (condition, lifted) = self.replace_one(condition, left)?;
            left = lifted;
            let (condition, lifted) = self.replace_one(condition, right)?;
            right = lifted;
            if has_call(&condition) && join.join_type == JoinType::Inner {
                above.push(condition);
            } else {
                inside.push(condition);
            }
        }
        let (keeps_left, keeps_right) = match join.join_type {
            JoinType::Inner => (true, true),
            JoinType::Left | JoinType::LeftSemi | JoinType::LeftAnti | JoinType::LeftMark => (true, false),
            JoinType::Right | JoinType::RightSemi | JoinType::RightAnti | JoinType::RightMark => (false, true),
            JoinType::Full => (false, false),
        };
        let mut predictions = vec![];
        predictions.extend(left.predictions.into_iter().filter(|_| keeps_left));
        predictions.extend(right.predictions.into_iter().filter(|_| keeps_right));
        let join = Join::try_new(
            Arc::new(left.plan),
            Arc::new(right.plan),
            left_keys.into_iter().zip(right_keys).collect(),
            conjunction(inside),
            join.join_type,
            join.join_constraint,
            join.null_equality,
            join.null_aware,
        )?;
        self.filter(above, Lifted { plan: LogicalPlan::Join(join), predictions })
    }

    fn replace_one(&mut self, expr: Expr, input: Lifted) -> Result<(Expr, Lifted)> {
        let (mut exprs, input) = self.replace(vec![expr], input)?;
        Ok((exprs.remove(0), input))
    }
}

/// `condition` whose calls have no guard that the rows which come here have passed: they fulfil `known`.
fn without_guards(condition: Expr, known: &[Expr]) -> Result<Expr> {
    let is_known = |guard: &Expr| match guard {
        Expr::IsNotFalse(inner) => known.contains(inner),
        guard => known.contains(guard),
    };
    let stripped = condition.transform_up(|expr| {
        if !is_call(&expr) {
            return Ok(Transformed::no(expr));
        }
        let (call, Some(guard)) = split_guard(&expr) else { return Ok(Transformed::no(expr)) };
        let left = split_conjunction(&guard).into_iter().filter(|guard| !is_known(guard)).cloned();
        Ok(Transformed::yes(match conjunction(left) {
            Some(guard) => with_guard(&call, guard),
            None => call,
        }))
    })?;
    Ok(stripped.data)
}
