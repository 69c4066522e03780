//! Predictions as nodes of a plan.

mod exec;
mod metrics;
mod node;
mod planner;
mod share;
mod stream;

pub use exec::PredictExec;
pub use node::Predict;
pub use planner::{PredictExtensionPlanner, PredictQueryPlanner};
