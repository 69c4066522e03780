//! Lifts calls of models out of expressions into nodes.
//!
//! - `plans` goes down the nodes of a plan and carries predictions up. *Lifting* a plan gives it with its calls in nodes.
//! - `expressions` *replaces* the calls of one node's expressions by columns: a prediction that is there already *serves* an
//!   equal call, else a node is put on top of the input.
//! - `case` handles calls behind conditions. It *settles* which branch a row takes, by a *selected* column that is computed
//!   once below.
//! - `group_keys` moves calls above aggregates.

mod case;
mod expressions;
mod group_keys;
mod plans;
mod prediction;

use std::collections::{HashMap, HashSet};

use datafusion::common::Result;
use datafusion::common::tree_node::{Transformed, TreeNodeRecursion};
use datafusion::logical_expr::LogicalPlan;
use datafusion::optimizer::{OptimizerConfig, OptimizerRule};

use super::calls::{calls_models, can_be_lifted, has_call, is_at_hand, is_call, split_guard, with_guard};
use super::names::keep_name;
use crate::config::PredictConfig;
use expressions::Replacement;
use prediction::{Lifted, Prediction};

/// Makes one [`Predict`](crate::Predict) node of each distinct call, as low as its arguments are there, but above the
/// conditions that need no prediction.
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
/// above uses it. A call of group keys alone is made above the aggregate, once for each group. Calls in branches of CASE
/// and calls with a guard get a condition.
///
/// What can't be lifted stays a call: two-sided conditions of outer, semi and anti joins, arguments from a lambda or an
/// outer query, and the input of DELETE and UPDATE, whose tables evaluate the conditions themselves.
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
        if !PredictConfig::of(&config.options()).extract || !calls_models(&plan)? {
            return Ok(Transformed::no(plan));
        }
        let mut extraction = Extraction { changed: false, names: Names::of(&plan)? };
        let schema = plan.schema().clone();
        let lifted = extraction.lift(plan.clone())?;
        if !extraction.changed {
            return Ok(Transformed::no(plan)); // what is left can't be lifted
        }
        let lifted = lifted.stripped_to(&schema)?;
        Ok(Transformed::yes(lifted))
    }
}

/// One pass over a plan: `plans` goes down its nodes, `expressions` replaces the calls of one node.
struct Extraction {
    changed: bool,
    names: Names,
}

/// Makes names for new columns that no column of the plan has.
struct Names {
    taken: HashSet<String>,
    /// The next number, for each prefix.
    next: HashMap<&'static str, usize>,
}

impl Names {
    /// The column of a prediction.
    const PREDICTION: &str = "__predict_";
    /// The column with the number of the branch of CASE that a row takes.
    const BRANCH: &str = "__branch_";

    /// Names that are free in `plan`. A user's column may look like ours, and a plan that was optimized before has ours.
    fn of(plan: &LogicalPlan) -> Result<Self> {
        let mut taken = HashSet::new();
        plan.apply_with_subqueries(|plan| {
            let names = plan.schema().fields().iter().map(|field| field.name());
            taken.extend(names.filter(|name| name.starts_with("__")).cloned());
            Ok(TreeNodeRecursion::Continue)
        })?;
        Ok(Self { taken, next: HashMap::new() })
    }

    fn fresh(&mut self, prefix: &'static str) -> String {
        let next = self.next.entry(prefix).or_default();
        loop {
            *next += 1;
            let name = format!("{prefix}{next}");
            if self.taken.insert(name.clone()) {
                return name;
            }
        }
    }
}
