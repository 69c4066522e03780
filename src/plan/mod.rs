//! Predictions as nodes of a plan.

mod bytes;
#[cfg(feature = "proto")]
mod codec;
mod dml;
mod exec;
mod hidden;
mod input;
mod load_models;
mod metrics;
mod node;
mod planner;
mod ran;
mod scorers;
mod share;
mod stream;

#[cfg(feature = "proto")]
pub use codec::PredictCodec;
pub(crate) use exec::Placement;
pub use exec::PredictExec;
pub(crate) use load_models::LoadModels;
pub use load_models::LoadModelsExec;
pub use node::Predict;
pub use planner::{PredictExtensionPlanner, PredictQueryPlanner};
