//! How a model is called: its options, and the arguments and the type of a call.

mod options;
mod signature;

pub use options::{DependentRows, ModelOptions, NullPolicy};
pub(crate) use signature::CallSignature;
