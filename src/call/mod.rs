//! How a model is called: its options, and the arguments and the type of a call.

mod features;
mod images;
mod labels;
mod options;
mod signature;
mod texts;

pub use features::FeatureName;
pub(crate) use images::Crop;
pub use images::ImageOptions;
pub use labels::GivenLabels;
pub use options::{DependentRows, ModelOptions, NullPolicy};
pub(crate) use signature::CallSignature;
pub use texts::{OnLongText, Pooling, TextOptions};
