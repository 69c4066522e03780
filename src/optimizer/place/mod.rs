//! Decides by numbers of rows on which side of a join a prediction is made.
//!
//! ```text
//! mod.rs ─► unit.rs      a prediction with the filter on it, as the rule finds them
//!             └► sink.rs   its way down the joins, to the place with the fewest rows
//!                  └► estimate.rs   numbers of rows
//! ```

mod estimate;
mod nodes;
mod sink;
mod unit;

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::common::tree_node::TreeNode;
use datafusion::config::ConfigOptions;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::limit::GlobalLimitExec;
use datafusion::physical_plan::projection::ProjectionExec;

use crate::config::PredictConfig;
use crate::plan::PredictExec;
use estimate::Estimates;
use nodes::with_children;
use unit::FilteredPrediction;

/// Moves a [`PredictExec`], and the filter on its output, below joins, where it has fewer rows to score there.
///
/// ```text
/// FilterExec: p > 150                              ProjectionExec: the columns in their order
///   PredictExec: f(b) AS p      (200,000 rows)       HashJoinExec: a.k = b.k
///     HashJoinExec: a.k = b.k                          a
///       a (200,000 rows)                               FilterExec: p > 150
///       b (442 rows)                                     PredictExec: f(b) AS p     (442 rows)
///                                                          b (442 rows)
/// ```
///
/// A prediction is made where its arguments first come together, above the joins: a selective join or a filter leaves
/// fewer rows there. Numbers of rows are known of physical plans alone. The rule comes before `JoinSelection`, so that
/// the side to build the hash table from is chosen with the filter in place.
///
/// A model may refuse rows (an unknown category, an index that is too large). Rows that the join drops must not make the
/// query fail, so such a call moves only together with a condition on it, which DataFusion itself would have moved there.
/// Sides that a join fills up with NULL stay as they are.
#[derive(Debug)]
pub(crate) struct PlacePredict;

impl PlacePredict {
    pub(crate) const NAME: &str = "PlacePredict";
}

impl PhysicalOptimizerRule for PlacePredict {
    fn name(&self) -> &str {
        Self::NAME
    }

    fn schema_check(&self) -> bool {
        true
    }

    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, config: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        if !PredictConfig::of(config).place_by_rows || !plan.exists(|plan| Ok(plan.is::<PredictExec>()))? {
            return Ok(plan);
        }
        place(plan, None, &Estimates::default())
    }
}

/// `plan` with its predictions placed, the lowest first; `limit` is the number of rows that are taken from it.
fn place(plan: Arc<dyn ExecutionPlan>, limit: Option<usize>, estimates: &Estimates) -> Result<Arc<dyn ExecutionPlan>> {
    if let Some(unit) = FilteredPrediction::of(&plan)? {
        let input = place(unit.input().clone(), None, estimates)?;
        return unit.placed_over(input, plan, limit, estimates);
    }
    let limit = match plan.downcast_ref::<GlobalLimitExec>() {
        Some(limit) => limit.fetch().map(|fetch| fetch + limit.skip()),
        None if plan.is::<ProjectionExec>() => limit,
        None => None,
    };
    let children = plan.children().into_iter().map(|child| place(child.clone(), limit, estimates));
    let children = children.collect::<Result<Vec<_>>>()?;
    with_children(plan, children)
}
