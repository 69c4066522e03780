//! Session options under the prefix `predict`.

use datafusion::common::config::ConfigExtension;
use datafusion::common::extensions_options;
use datafusion::config::ConfigOptions;

extensions_options! {
    /// Options of a session: `SET predict.batch_size = 4096`.
    pub struct PredictConfig {
        /// Rows for each run of a model; 0 leaves the choice to the model.
        pub batch_size: usize, default = 0
        /// The engine that runs models: `native`, `onnxruntime` or another by its name; `auto` is the first that can.
        pub engine: String, default = PredictConfig::AUTO.to_owned()
        /// Whether calls become nodes of the plan that score each row once; off, they stay functions.
        pub extract: bool, default = true
    }
}

impl ConfigExtension for PredictConfig {
    const PREFIX: &'static str = "predict";
}

impl PredictConfig {
    /// The engine's name that leaves the choice to the model.
    pub(crate) const AUTO: &str = "auto";

    /// The session's options, or the defaults where none were registered.
    pub(crate) fn of(options: &ConfigOptions) -> Self {
        options.extensions.get::<Self>().cloned().unwrap_or_default()
    }
}
