//! Knows whether this thread plans a query.
//!
//! DataFusion evaluates calls of constants while it simplifies a plan. A model must be neither loaded nor run then: planning
//! waits for nothing, and EXPLAIN runs no model. The rule that simplifies is therefore fenced, and calls refuse inside the
//! fence, upon which DataFusion leaves them as they are.

use std::cell::Cell;

thread_local! {
    static DEPTH: Cell<usize> = const { Cell::new(0) };
}

/// Says that this thread plans, until it is dropped.
#[derive(Debug)]
pub(crate) struct Planning(());

/// Starts planning on this thread.
pub(crate) fn begin() -> Planning {
    DEPTH.with(|depth| depth.set(depth.get() + 1));
    Planning(())
}

/// Whether this thread plans.
pub(crate) fn is_under_way() -> bool {
    DEPTH.with(|depth| depth.get() > 0)
}

impl Drop for Planning {
    fn drop(&mut self) {
        DEPTH.with(|depth| depth.set(depth.get() - 1));
    }
}
