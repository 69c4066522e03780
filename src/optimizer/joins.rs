//! What rules need to know of a physical join, of whichever kind.

use std::ops::Range;
use std::sync::Arc;

use datafusion::common::JoinType;
use datafusion::physical_expr::PhysicalExprRef;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::joins::{CrossJoinExec, HashJoinExec, NestedLoopJoinExec, SortMergeJoinExec};

/// A join whose output is the columns of one side or of both, in order.
pub(super) struct JoinView<'a> {
    pub(super) left: &'a Arc<dyn ExecutionPlan>,
    pub(super) right: &'a Arc<dyn ExecutionPlan>,
    /// Pairs of equal keys, over the columns of either side.
    pub(super) on: &'a [(PhysicalExprRef, PhysicalExprRef)],
    pub(super) join_type: JoinType,
    null_aware: bool,
    /// Whether only some of the columns come out.
    projected: bool,
}

/// A side of a join.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Left,
    Right,
}

impl<'a> JoinView<'a> {
    pub(super) fn of(plan: &'a Arc<dyn ExecutionPlan>) -> Option<Self> {
        if let Some(join) = plan.downcast_ref::<HashJoinExec>() {
            return Some(Self {
                left: join.left(),
                right: join.right(),
                on: join.on(),
                join_type: *join.join_type(),
                null_aware: join.null_aware,
                projected: join.contains_projection(),
            });
        }
        if let Some(join) = plan.downcast_ref::<SortMergeJoinExec>() {
            let (left, right, join_type) = (join.left(), join.right(), join.join_type());
            return Some(Self { left, right, on: join.on(), join_type, null_aware: false, projected: false });
        }
        if let Some(join) = plan.downcast_ref::<NestedLoopJoinExec>() {
            let (left, right, join_type) = (join.left(), join.right(), *join.join_type());
            let projected = join.contains_projection();
            return Some(Self { left, right, on: &[], join_type, null_aware: false, projected });
        }
        let join = plan.downcast_ref::<CrossJoinExec>()?;
        let (left, right, join_type) = (join.left(), join.right(), JoinType::Inner);
        Some(Self { left, right, on: &[], join_type, null_aware: false, projected: false })
    }

    /// The places of the columns of a side on which a column may be computed, and filtered by, below the join: a side that
    /// the join neither fills up with NULL nor reads to find out what is *not* there.
    pub(super) fn columns_below(&self, side: Side) -> Option<Range<usize>> {
        use JoinType::{Inner, Left, LeftAnti, LeftSemi, Right, RightAnti, RightSemi};
        if self.projected || self.null_aware {
            return None;
        }
        let left = self.left.schema().fields().len();
        let right = self.right.schema().fields().len();
        match (side, self.join_type) {
            (Side::Left, Inner | Left | LeftSemi | LeftAnti) => Some(0..left),
            (Side::Right, Inner | Right) => Some(left..left + right),
            (Side::Right, RightSemi | RightAnti) => Some(0..right),
            _ => None,
        }
    }

    pub(super) fn input(&self, side: Side) -> &'a Arc<dyn ExecutionPlan> {
        match side {
            Side::Left => self.left,
            Side::Right => self.right,
        }
    }
}
