//! Lifts calls of models out of expressions into nodes.

use std::collections::HashSet;
use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, JoinType, Result, ScalarValue};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::{conjunction, split_conjunction_owned};
use datafusion::logical_expr::{
    Case, Expr, Filter, GroupingSet, Join, LogicalPlan, Projection, Sort, SubqueryAlias, lit,
};
use datafusion::optimizer::{OptimizerConfig, OptimizerRule};
use datafusion_predict_udfs::ModelFunction;

use super::bind::has_expr;
use crate::config::PredictConfig;
use crate::plan::Predict;

/// Makes one [`Predict`] node of each distinct call, as low as its arguments are there, but above the conditions that
/// need no prediction.
///
/// ```text
/// Projection: id, predict(m, a)                 Projection: id, p
///   Filter: x > 1 AND predict(m, a) > 0.5         Filter: p > 0.5
///     TableScan: t                                  Predict: m(a) AS p
///                                                     Filter: x > 1
///                                                       TableScan: t
/// ```
///
/// A prediction is carried up through filters, sorts, limits, projections, aliases and joins, so that an equal call
/// above uses it. Calls in branches of CASE get a condition. What can't be lifted stays a call: two-sided conditions of
/// outer, semi and anti joins, and arguments from a lambda or an outer query.
#[derive(Debug)]
pub(crate) struct ExtractPredict;

impl ExtractPredict {
    pub(crate) const NAME: &str = "extract_predict";
}

impl OptimizerRule for ExtractPredict {
    fn name(&self) -> &str {
        Self::NAME
    }

    fn rewrite(&self, plan: LogicalPlan, config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        let mut calls = false;
        let mut taken = HashSet::new();
        plan.apply_with_subqueries(|plan| {
            calls = calls || has_expr(plan, is_call)?;
            if let LogicalPlan::Extension(extension) = plan
                && let Some(predict) = extension.node.as_any().downcast_ref::<Predict>()
            {
                taken.insert(predict.output().to_owned());
            }
            Ok(TreeNodeRecursion::Continue)
        })?;
        if !calls || !PredictConfig::of(&config.options()).extract {
            return Ok(Transformed::no(plan));
        }
        let mut extraction = Extraction { config, changed: false, taken };
        let schema = plan.schema().clone();
        let lifted = extraction.lift(plan.clone())?;
        if !extraction.changed {
            return Ok(Transformed::no(plan)); // what is left can't be lifted
        }
        let lifted = lifted.stripped_to(&schema)?;
        Ok(Transformed::yes(lifted))
    }
}

fn is_call(expr: &Expr) -> bool {
    matches!(expr, Expr::ScalarFunction(call) if call.func.inner().is::<ModelFunction>())
}

fn has_call(expr: &Expr) -> bool {
    expr.exists(|expr| Ok(is_call(expr))).unwrap_or(false)
}

/// A plan that may have predictions behind the columns that it had before.
struct Lifted {
    plan: LogicalPlan,
    predictions: Vec<Prediction>,
}

/// A prediction among a plan's columns.
#[derive(Clone)]
struct Prediction {
    /// The call, over the plan's columns.
    call: Expr,
    /// The rows that were scored: those for which any of these is 1; all if there is none.
    conditions: Vec<Expr>,
    column: Column,
}

impl Prediction {
    /// Whether it holds what `call` gives for the rows for which `condition` is 1.
    fn serves(&self, call: &Expr, condition: Option<&Expr>) -> bool {
        let covered =
            self.conditions.is_empty() || condition.is_some_and(|condition| self.conditions.contains(condition));
        covered && self.call == *call
    }
}

impl Lifted {
    fn plain(plan: LogicalPlan) -> Self {
        Self { plan, predictions: vec![] }
    }

    /// The plan with the columns of `schema` alone.
    fn stripped_to(self, schema: &datafusion::common::DFSchema) -> Result<LogicalPlan> {
        if self.plan.schema().fields().len() == schema.fields().len() {
            return Ok(self.plan);
        }
        let columns = schema.columns().into_iter().map(Expr::Column).collect();
        Ok(LogicalPlan::Projection(Projection::try_new(columns, Arc::new(self.plan))?))
    }
}

struct Extraction<'a> {
    config: &'a dyn OptimizerConfig,
    changed: bool,
    /// Names of predictions that the plan has.
    taken: HashSet<String>,
}

impl Extraction<'_> {
    fn lift(&mut self, plan: LogicalPlan) -> Result<Lifted> {
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
            LogicalPlan::Aggregate(_) | LogicalPlan::Window(_) => self.lift_over_one_input(plan.data),
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
            let Some(over) = renamed(&prediction, |column| {
                outputs.iter().find(|(from, _)| from == column).map(|(_, to)| to.clone())
            }) else {
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
            Some(Prediction { column: rename(&prediction.column)?, ..renamed(prediction, rename)? })
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
            if !has_call(&condition) {
                inside.push(condition);
                continue;
            }
            let (condition, lifted) = self.replace_where_possible(condition, left)?;
            left = lifted;
            let (condition, lifted) = self.replace_where_possible(condition, right)?;
            right = lifted;
            match has_call(&condition) && join.join_type == JoinType::Inner {
                true => above.push(condition),
                false => inside.push(condition),
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

    /// `expr` with the calls replaced whose arguments `input` has.
    fn replace_where_possible(&mut self, expr: Expr, input: Lifted) -> Result<(Expr, Lifted)> {
        let (mut exprs, input) = self.replace(vec![expr], input)?;
        Ok((exprs.remove(0), input))
    }

    /// `exprs` over `input` with columns in place of calls, and `input` with the nodes that give these columns.
    fn replace(&mut self, exprs: Vec<Expr>, mut input: Lifted) -> Result<(Vec<Expr>, Lifted)> {
        if exprs
            .iter()
            .any(|expr| has_call(expr) && expr.exists(|expr| Ok(matches!(expr, Expr::Case(_)))).unwrap_or(false))
        {
            for expr in &exprs {
                self.lift_unconditional(expr, &mut input)?;
            }
            self.lift_shared(&exprs, &mut input)?;
        }
        let exprs = exprs
            .into_iter()
            .map(|expr| match has_call(&expr) {
                true => self.replace_in(expr, None, &mut input),
                false => Ok(expr),
            })
            .collect::<Result<Vec<_>>>()?;
        Ok((exprs, input))
    }

    /// `condition` says for which rows `expr` is evaluated.
    fn replace_in(&mut self, expr: Expr, condition: Option<&Expr>, input: &mut Lifted) -> Result<Expr> {
        match expr {
            Expr::Case(case) => self.replace_in_case(case, condition, input),
            Expr::Lambda(_) => Ok(expr), // its arguments are no columns
            expr => {
                let expr =
                    expr.map_children(|child| Ok(Transformed::yes(self.replace_in(child, condition, input)?)))?.data;
                match is_call(&expr) && can_lift(&expr, input) && condition.is_none_or(|c| !c.is_volatile()) {
                    true => self.lift_call(expr, condition, input),
                    false => Ok(expr),
                }
            }
        }
    }

    /// Each branch is evaluated for the rows that no branch before has taken.
    fn replace_in_case(&mut self, case: Case, condition: Option<&Expr>, input: &mut Lifted) -> Result<Expr> {
        let base = case.expr.map(|base| self.replace_in(*base, condition, input)).transpose()?;
        let mut before = vec![];
        let mut branches = vec![];
        for (when, then) in case.when_then_expr {
            let when = self.replace_in(*when, reached(condition, &before, None).as_ref(), input)?;
            let taken = match &base {
                Some(base) => base.clone().eq(when.clone()),
                None => when.clone(),
            };
            let then = self.replace_in(*then, reached(condition, &before, Some(&taken)).as_ref(), input)?;
            branches.push((Box::new(when), Box::new(then)));
            before.push(taken);
        }
        let rest = reached(condition, &before, None);
        let otherwise = case.else_expr.map(|expr| self.replace_in(*expr, rest.as_ref(), input)).transpose()?;
        Ok(Expr::Case(Case::new(base.map(Box::new), branches, otherwise.map(Box::new))))
    }

    /// Lifts the calls that `expr` evaluates for every row, so that calls in branches find them.
    fn lift_unconditional(&mut self, expr: &Expr, input: &mut Lifted) -> Result<()> {
        match expr {
            Expr::Case(case) => {
                let first = case.when_then_expr.first().map(|(when, _)| when);
                for always in case.expr.iter().chain(first) {
                    self.lift_unconditional(always, input)?;
                }
                Ok(())
            }
            Expr::Lambda(_) => Ok(()),
            call if is_call(call) => self.replace_in(call.clone(), None, input).map(drop),
            other => other
                .apply_children(|child| {
                    self.lift_unconditional(child, input)?;
                    Ok(TreeNodeRecursion::Continue)
                })
                .map(drop),
        }
    }

    /// Lifts the calls that several branches evaluate, each once, for the rows of all these branches.
    fn lift_shared(&mut self, exprs: &[Expr], input: &mut Lifted) -> Result<()> {
        let mut calls: Vec<(Expr, Vec<Expr>)> = vec![];
        for expr in exprs {
            collect_conditional(expr, None, &mut calls);
        }
        for (call, conditions) in calls.into_iter().filter(|(_, conditions)| conditions.len() > 1) {
            if !can_lift(&call, input) || conditions.iter().any(|condition| condition.is_volatile()) {
                continue;
            }
            let known = input.predictions.iter().any(|prediction| prediction.serves(&call, conditions.first()));
            if !known {
                self.lift_for(call, conditions, input)?;
            }
        }
        Ok(())
    }

    fn lift_call(&mut self, call: Expr, condition: Option<&Expr>, input: &mut Lifted) -> Result<Expr> {
        if let Some(found) = input.predictions.iter().find(|prediction| prediction.serves(&call, condition)) {
            self.changed = true;
            return Ok(Expr::Column(found.column.clone()));
        }
        self.lift_for(call, condition.into_iter().cloned().collect(), input)
    }

    /// Puts a node for `call` on top of `input`, for the rows for which any of `conditions` is 1, or for all.
    fn lift_for(&mut self, call: Expr, conditions: Vec<Expr>, input: &mut Lifted) -> Result<Expr> {
        let Expr::ScalarFunction(function) = &call else {
            return Ok(call);
        };
        self.changed = true;
        let output = loop {
            let name = self.config.alias_generator().next("__predict");
            // A plan that was optimized before has such names already.
            if self.taken.insert(name.clone()) {
                break name;
            }
        };
        // Each condition is asked where the one before has given 0.
        let condition = conditions.iter().rev().cloned().reduce(|after, before| with_result(&before, 0, &after));
        let below = std::mem::take(&mut input.plan);
        let node = Predict::try_new(below, function.func.clone(), function.args.clone(), condition, output.clone())?;
        input.plan = node.into_plan();
        let column = Column::new_unqualified(output);
        input.predictions.push(Prediction { call, conditions, column: column.clone() });
        Ok(Expr::Column(column))
    }
}

/// `CASE WHEN … THEN … … ELSE otherwise END`
fn chain(branches: impl Iterator<Item = (Expr, Expr)>, otherwise: Expr) -> Expr {
    let branches = branches.map(|(when, then)| (Box::new(when), Box::new(then))).collect();
    Expr::Case(Case::new(None, branches, Some(Box::new(otherwise))))
}

/// 1 for the rows that reach a branch: `outer` is 1, none of `before` is true, and `taken` is (if given). As lazy as
/// CASE itself, since it is one.
fn reached(outer: Option<&Expr>, before: &[Expr], taken: Option<&Expr>) -> Option<Expr> {
    let passed = before.iter().map(|before| (before.clone(), lit(0i8)));
    let inner = match taken {
        Some(taken) => chain(passed.chain([(taken.clone(), lit(1i8))]), lit(0i8)),
        None if before.is_empty() => return outer.cloned(),
        None => chain(passed, lit(1i8)),
    };
    Some(match outer {
        Some(outer) => with_result(outer, 1, &inner),
        None => inner,
    })
}

/// The condition with `inner` wherever it gives `result`. A comparison with the result would be simplified to boolean
/// operators, which evaluate both sides.
fn with_result(condition: &Expr, result: i8, inner: &Expr) -> Expr {
    match condition {
        Expr::Literal(ScalarValue::Int8(Some(value)), _) if *value == result => inner.clone(),
        Expr::Case(case) => {
            let branches = case.when_then_expr.iter();
            let branches = branches.map(|(when, then)| (when.clone(), Box::new(with_result(then, result, inner))));
            let otherwise = case.else_expr.as_ref().map(|expr| Box::new(with_result(expr, result, inner)));
            Expr::Case(Case::new(case.expr.clone(), branches.collect(), otherwise))
        }
        other => other.clone(),
    }
}

/// The calls in branches of CASE whose arguments and conditions hold no other call, with the conditions under which
/// they are evaluated.
fn collect_conditional(expr: &Expr, condition: Option<&Expr>, calls: &mut Vec<(Expr, Vec<Expr>)>) {
    match expr {
        Expr::Case(case) if !case.when_then_expr.iter().any(|(when, _)| has_call(when)) => {
            let mut before = vec![];
            for (when, then) in &case.when_then_expr {
                let taken = match &case.expr {
                    Some(base) => base.as_ref().clone().eq(when.as_ref().clone()),
                    None => when.as_ref().clone(),
                };
                collect_conditional(then, reached(condition, &before, Some(&taken)).as_ref(), calls);
                before.push(taken);
            }
            if let Some(otherwise) = &case.else_expr {
                collect_conditional(otherwise, reached(condition, &before, None).as_ref(), calls);
            }
        }
        Expr::Case(_) | Expr::Lambda(_) => {}
        call if is_call(call) => {
            let (Some(condition), Expr::ScalarFunction(function)) = (condition, call) else { return };
            if function.args.iter().any(has_call) {
                return;
            }
            match calls.iter_mut().find(|(known, _)| known == call) {
                Some((_, conditions)) if conditions.contains(condition) => {}
                Some((_, conditions)) => conditions.push(condition.clone()),
                None => calls.push((call.clone(), vec![condition.clone()])),
            }
        }
        other => {
            // The closure never fails.
            let _ = other.apply_children(|child| {
                collect_conditional(child, condition, calls);
                Ok(TreeNodeRecursion::Continue)
            });
        }
    }
}

/// `rewritten` under the name that `original` had; in grouping sets, each of their expressions.
pub(super) fn keep_name(original: &Expr, rewritten: Expr, names: &NamePreserver) -> Expr {
    let keep_all = |originals: &[Expr], rewritten: Vec<Expr>| -> Vec<Expr> {
        originals.iter().zip(rewritten).map(|(original, rewritten)| keep_name(original, rewritten, names)).collect()
    };
    match (original, rewritten) {
        (Expr::GroupingSet(GroupingSet::Rollup(from)), Expr::GroupingSet(GroupingSet::Rollup(to))) => {
            Expr::GroupingSet(GroupingSet::Rollup(keep_all(from, to)))
        }
        (Expr::GroupingSet(GroupingSet::Cube(from)), Expr::GroupingSet(GroupingSet::Cube(to))) => {
            Expr::GroupingSet(GroupingSet::Cube(keep_all(from, to)))
        }
        (Expr::GroupingSet(GroupingSet::GroupingSets(from)), Expr::GroupingSet(GroupingSet::GroupingSets(to))) => {
            let sets = from.iter().zip(to).map(|(from, to)| keep_all(from, to)).collect();
            Expr::GroupingSet(GroupingSet::GroupingSets(sets))
        }
        (original, rewritten) => names.save(original).restore(rewritten),
    }
}

/// Whether the arguments of `call` are there, below it and at hand for each row.
fn can_lift(call: &Expr, input: &Lifted) -> bool {
    let foreign = call.exists(|expr| {
        Ok(matches!(
            expr,
            Expr::LambdaVariable(_)
                | Expr::OuterReferenceColumn(_, _)
                | Expr::ScalarSubquery(_)
                | Expr::Exists(_)
                | Expr::InSubquery(_)
                | Expr::AggregateFunction(_)
                | Expr::WindowFunction(_)
                | Expr::Placeholder(_)
        ))
    });
    let at_hand = call.column_refs().into_iter().all(|column| input.plan.schema().has_column(column));
    // A volatile argument has another value at each call, which no other call may share.
    at_hand && matches!(foreign, Ok(false)) && !call.is_volatile()
}

/// The prediction with other names for the columns of its call; `None` if one has no other name.
fn renamed(prediction: &Prediction, rename: impl Fn(&Column) -> Option<Column>) -> Option<Prediction> {
    let missing = |expr: &Expr| expr.column_refs().into_iter().any(|column| rename(column).is_none());
    if missing(&prediction.call) || prediction.conditions.iter().any(missing) {
        return None;
    }
    let replace = |expr: &Expr| {
        let replaced = expr.clone().transform(|expr| match &expr {
            Expr::Column(column) => {
                Ok(Transformed::yes(Expr::Column(rename(column).unwrap_or_else(|| column.clone()))))
            }
            _ => Ok(Transformed::no(expr)),
        });
        replaced.map(|expr| expr.data).ok()
    };
    let conditions = prediction.conditions.iter().map(&replace).collect::<Option<Vec<_>>>()?;
    Some(Prediction { call: replace(&prediction.call)?, conditions, column: prediction.column.clone() })
}
