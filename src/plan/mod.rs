//! Predictions as nodes of a plan.

mod dml;
mod exec;
mod metrics;
mod node;
mod planner;
mod share;
mod stream;

pub(crate) use exec::Placement;
pub use exec::PredictExec;
pub use node::Predict;
pub use planner::{PredictExtensionPlanner, PredictQueryPlanner};
