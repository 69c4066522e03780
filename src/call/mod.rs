//! How a model is called: its options, and the arguments and the type of a call.

mod features;
mod labels;
mod options;
mod signature;

pub use features::FeatureName;
pub use labels::GivenLabels;
pub use options::{DependentRows, ModelOptions, NullPolicy};
pub(crate) use signature::CallSignature;
