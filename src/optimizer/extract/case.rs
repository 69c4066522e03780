//! Calls in the branches of CASE, which are made for the rows that take the branch.
//!
//! ```text
//! Projection: CASE WHEN x > 1 THEN predict(m, a)      Projection: CASE b WHEN 1 THEN p WHEN 2 THEN 0 ELSE q END
//!                  WHEN x > 0 THEN 0                     Predict: m(c) AS q, if b = 0
//!                  ELSE predict(m, c) END                  Predict: m(a) AS p, if b = 1
//!   TableScan: t                                             Projection: *, CASE WHEN x > 1 THEN 1
//!                                                                                WHEN x > 0 THEN 2 ELSE 0 END AS b
//!                                                              TableScan: t
//! ```
//!
//! Which branch a row takes is computed once, so that the work does not grow with the square of the branches. Where a
//! WHEN holds a call itself, the branches before it are settled first, and the call is made for the rows that are left.

use datafusion::common::Result;
use datafusion::logical_expr::{Case, Expr, lit};

use super::{Replacement, has_call, is_at_hand};

/// `CASE base WHEN when THEN first WHEN … THEN first + 1 … ELSE 0 END`
pub(super) fn number_of_branch(base: Option<&Expr>, whens: impl IntoIterator<Item = Expr>, first: i32) -> Expr {
    let branches = whens.into_iter().zip(first..).map(|(when, number)| (Box::new(when), Box::new(lit(number))));
    Expr::Case(Case::new(base.cloned().map(Box::new), branches.collect(), Some(Box::new(lit(0)))))
}

/// `CASE WHEN condition THEN value END`: evaluated for these rows alone, NULL for others.
pub(super) fn for_rows(condition: &Expr, value: Expr) -> Expr {
    Expr::Case(Case::new(None, vec![(Box::new(condition.clone()), Box::new(value))], None))
}

impl Replacement<'_> {
    /// `case`, which is evaluated for the rows for which `condition` is true, with columns in place of calls.
    pub(super) fn replace_in_case(&mut self, case: Case, condition: Option<&Expr>) -> Result<Expr> {
        let mut case = without_else_case(case);
        case.expr = case.expr.map(|base| self.replace(*base, condition).map(Box::new)).transpose()?;
        if let Some((when, _)) = case.when_then_expr.first_mut() {
            **when = self.replace(std::mem::take(when.as_mut()), condition)?;
        }
        if !has_conditional_call(&case) || !self.can_select(&case) || !self.has_room_for(&case) {
            return Ok(Expr::Case(case));
        }
        let base = case.expr.as_deref();
        let (mut whens, thens): (Vec<_>, Vec<_>) =
            case.when_then_expr.into_iter().map(|(when, then)| (*when, *then)).unzip();
        // Branches whose number is known, and the column that holds it.
        let mut settled = 0;
        let mut branch: Option<Expr> = None;
        for i in 1..whens.len() {
            if has_call(&whens[i]) {
                let taken = self.settle(base, &whens[settled..i], settled, branch.as_ref(), condition)?;
                let reached = taken.clone().eq(lit(0));
                (branch, settled) = (Some(taken), i);
                whens[i] = self.replace(std::mem::take(&mut whens[i]), Some(&reached))?;
            }
        }
        let branch = self.settle(base, &whens[settled..], settled, branch.as_ref(), condition)?;
        let mut branches = vec![];
        for (number, then) in (1..).zip(thens) {
            let then = self.replace(then, Some(&branch.clone().eq(lit(number))))?;
            branches.push((Box::new(lit(number)), Box::new(then)));
        }
        let otherwise = match case.else_expr {
            Some(otherwise) => Some(Box::new(self.replace(*otherwise, Some(&branch.clone().eq(lit(0))))?)),
            None => None,
        };
        Ok(Expr::Case(Case::new(Some(Box::new(branch)), branches, otherwise)))
    }

    /// Collects the calls of branches whose conditions hold no call.
    pub(super) fn collect_in_case(
        &mut self,
        case: &Case,
        condition: Option<&Expr>,
        calls: &mut Vec<(Expr, Vec<Expr>)>,
    ) -> Result<()> {
        let case = &without_else_case(case.clone());
        let decides = case.expr.iter().chain(case.when_then_expr.iter().map(|(when, _)| when));
        if decides.into_iter().any(|expr| has_call(expr)) || !self.can_select(case) || !self.has_room_for(case) {
            return Ok(());
        }
        let whens: Vec<_> = case.when_then_expr.iter().map(|(when, _)| when.as_ref().clone()).collect();
        let branch = self.settle(case.expr.as_deref(), &whens, 0, None, condition)?;
        for (number, (_, then)) in (1..).zip(&case.when_then_expr) {
            self.collect_conditional(then, Some(&branch.clone().eq(lit(number))), calls)?;
        }
        match &case.else_expr {
            Some(otherwise) => self.collect_conditional(otherwise, Some(&branch.eq(lit(0))), calls),
            None => Ok(()),
        }
    }

    /// A column with the number of the branch that each row takes, 0 if none so far: those of `whens`, which follow
    /// `before` others whose numbers are in `branch`. NULL for rows for which `condition` is not true.
    fn settle(
        &mut self,
        base: Option<&Expr>,
        whens: &[Expr],
        before: usize,
        branch: Option<&Expr>,
        condition: Option<&Expr>,
    ) -> Result<Expr> {
        let first = i32::try_from(before).unwrap_or(i32::MAX).saturating_add(1);
        let numbers = number_of_branch(base, whens.iter().cloned(), first);
        self.select(match (branch, condition) {
            (Some(branch), _) => {
                let left = Box::new(branch.clone().eq(lit(0)));
                Expr::Case(Case::new(None, vec![(left, Box::new(numbers))], Some(Box::new(branch.clone()))))
            }
            (None, Some(condition)) => for_rows(condition, numbers),
            (None, None) => numbers,
        })
    }

    /// Whether the branch that a row takes can be computed below.
    fn can_select(&self, case: &Case) -> bool {
        let schema = self.input.plan.schema();
        let whens = case.when_then_expr.iter().map(|(when, _)| when);
        case.expr.iter().chain(whens).all(|expr| is_at_hand(expr, schema))
    }
}

/// `CASE … ELSE CASE … END END` as one CASE. Its branches are settled in one column, and DataFusion takes time that doubles
/// with each level to plan nested ones that read different columns.
fn without_else_case(mut case: Case) -> Case {
    loop {
        match case.else_expr.map(|otherwise| *otherwise) {
            Some(Expr::Case(inner))
                if inner.expr == case.expr && case.expr.as_ref().is_none_or(|e| !e.is_volatile()) =>
            {
                case.when_then_expr.extend(inner.when_then_expr);
                case.else_expr = inner.else_expr;
            }
            otherwise => {
                case.else_expr = otherwise.map(Box::new);
                return case;
            }
        }
    }
}

/// Whether any part that is not evaluated for each row holds a call.
fn has_conditional_call(case: &Case) -> bool {
    let later_whens = case.when_then_expr.iter().skip(1).map(|(when, _)| when);
    let thens = case.when_then_expr.iter().map(|(_, then)| then);
    later_whens.chain(thens).chain(&case.else_expr).any(|expr| has_call(expr))
}
