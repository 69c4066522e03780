//! A model at work: features in, predictions out.
//!
//! ```text
//!  columns ─► NULL policy ─► groups of equal lists ─► encode ─► run ─► decode ─► NULLs back in place
//! ```

mod batch_size;
mod limit;
mod load;
mod observe;
mod score;

use std::sync::{Arc, OnceLock};

use crate::catalog::Readiness;
use crate::engine::{Engine, Executable};
use crate::model::{CallSignature, Model, ModelOptions, NullPolicy, Signature};
use crate::tensor::{OutputColumn, Tensor};

pub(crate) use batch_size::BatchSize;
pub(crate) use load::PredictorSource;
pub(crate) use score::ScoreStats;

/// One version of a model with an engine that runs it.
#[derive(Debug, Clone)]
pub struct Predictor {
    label: String,
    model: Arc<Model>,
    options: ModelOptions,
    /// Of the outputs, the shapes that were seen.
    signature: Signature,
    call: CallSignature,
    engine: String,
    /// Why each engine that comes before does not run it.
    refusals: Vec<String>,
    executable: Arc<dyn Executable>,
    /// The only number of rows that the model takes.
    fixed_batch: Option<usize>,
    /// Whether the model ran on made-up rows when it was loaded.
    probed: bool,
    /// If it did not: the inputs of the first run that succeeded.
    known_good: Arc<OnceLock<Vec<Tensor>>>,
    columns: Vec<OutputColumn>,
    null_policy: NullPolicy,
    batch_size: BatchSize,
    engines: Arc<[Arc<dyn Engine>]>,
    /// Names that were given to its features.
    given_features: Vec<String>,
    /// The engine that was asked for: `auto`, or one by its name.
    chosen: String,
}

impl Predictor {
    /// The same model under another name and version.
    pub(crate) fn labelled(&self, label: String) -> Self {
        Self { label, ..self.clone() }
    }

    /// How it is called.
    pub(crate) fn call(&self) -> &CallSignature {
        &self.call
    }

    /// What a catalog keeps of how it was made ready.
    pub(crate) fn readiness(&self) -> Readiness {
        Readiness {
            chosen: self.chosen.clone(),
            engine: self.engine.clone(),
            device: self.device(),
            batch_size: self.batch_size.rows(),
            not_run_by: self.refusals.clone(),
            takes_any_row: self.model.takes_any_row(),
        }
    }

    /// The engine that was asked for: `auto`, or one by its name.
    pub(crate) fn chosen(&self) -> &str {
        &self.chosen
    }

    /// The model as data.
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// The options with which the model was created.
    pub fn options(&self) -> &ModelOptions {
        &self.options
    }

    /// Inputs as declared, outputs as they were seen when the model ran for the first time.
    pub fn signature(&self) -> &Signature {
        &self.signature
    }

    /// The engine that runs the model.
    pub fn engine(&self) -> &str {
        &self.engine
    }

    /// The kinds of devices that its engine could use here.
    pub(crate) fn devices(&self) -> Vec<&'static str> {
        let engine = self.engines.iter().find(|engine| engine.name() == self.engine);
        engine.map(|engine| engine.devices()).unwrap_or_default()
    }

    /// Why engines that would have been preferred do not run the model.
    pub fn refusals(&self) -> &[String] {
        &self.refusals
    }

    /// Bytes that the model takes in its engine, where that knows.
    pub fn size_in_memory(&self) -> Option<usize> {
        self.executable.size()
    }

    /// How many runs its engine has made ready for at once.
    pub(crate) fn sessions(&self) -> usize {
        self.executable.sessions()
    }

    /// Bytes that the model takes in this process, about: its graph and weights, and what its engines made of them.
    pub(crate) fn memory(&self) -> u64 {
        self.model.bytes_in_memory() + self.compiled_size()
    }

    /// Of that, what its engine made. One that does not know is taken to have made as much as the model.
    pub(crate) fn compiled_size(&self) -> u64 {
        self.executable.size().map_or(self.model.size(), |size| size as u64)
    }

    /// The names that were given to its features, if any.
    pub(crate) fn given_features(&self) -> &[String] {
        &self.given_features
    }

    /// The name and version that errors show.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// Where the model runs: `cpu`, `cuda:0`.
    pub fn device(&self) -> String {
        self.executable.device()
    }

    /// Rows for the first run, unless the session says otherwise; later ones may have more or less.
    pub fn batch_size(&self) -> usize {
        self.batch_size.rows()
    }

    /// How many rows the runs of a stream take.
    pub(crate) fn batch_sizing(&self) -> BatchSize {
        self.batch_size.clone()
    }

    /// The only number of rows that a run can have, if there is one.
    pub(crate) fn fixed_batch(&self) -> Option<usize> {
        self.fixed_batch
    }

    /// What becomes of NULL among the features.
    pub fn null_policy(&self) -> NullPolicy {
        self.null_policy
    }
}
