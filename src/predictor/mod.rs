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

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use datafusion::arrow::array::ArrayRef;
use datafusion::arrow::datatypes::DataType;
use datafusion::common::Result as DFResult;
use datafusion::config::ConfigOptions;
use datafusion_predict_udfs::{OnFailure, ScoringModel};

use crate::config::PredictConfig;
use crate::engine::{CancelToken, CoreBudget, Engine, Executable, RunContext};
use crate::error::{Result, bail, error};
use crate::model::{Model, ModelOptions, NullPolicy, Signature};
use crate::tensor::{ArgumentError, InputEncoder, OutputColumn, Tensor};

pub(crate) use batch_size::{BatchSize, LONGEST_RUN};
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
    feature_names: Option<Vec<String>>,
    engine: String,
    /// Why each engine that comes before does not run it.
    refusals: Vec<String>,
    executable: Arc<dyn Executable>,
    encoder: InputEncoder,
    /// The only number of rows that the model takes.
    fixed_batch: Option<usize>,
    /// Whether the model ran on made-up rows when it was loaded.
    probed: bool,
    /// If it did not: the inputs of the first run that succeeded.
    known_good: Arc<OnceLock<Vec<Tensor>>>,
    columns: Vec<OutputColumn>,
    return_type: DataType,
    null_policy: NullPolicy,
    batch_size: usize,
    cores: Arc<CoreBudget>,
    engines: Arc<[Arc<dyn Engine>]>,
    /// What it was made from, to make it again for another engine.
    source: PredictorSource,
    /// The same model by other engines, by the name that chose them.
    others: Arc<Mutex<HashMap<String, Arc<Predictor>>>>,
}

impl Predictor {
    /// The same model under another name and version.
    pub(crate) fn labelled(&self, label: String) -> Self {
        Self { label, others: Arc::default(), ..self.clone() }
    }

    /// The same model, run by the engine that `choice` names, or by the first that can if it is `auto`.
    ///
    /// # Errors
    /// An engine that is not there, or that can't run it.
    pub(crate) fn by_engine(self: &Arc<Self>, choice: &str) -> Result<Arc<Self>> {
        if choice == self.source.engine || choice == self.engine {
            return Ok(self.clone());
        }
        let others = || self.others.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(other) = others().get(choice) {
            return Ok(other.clone());
        }
        // Without the lock: loading may take long.
        let source = PredictorSource { engine: choice.to_owned(), label: self.label.clone(), ..self.source.clone() };
        let other = Self::load(source, &self.engines, &self.cores, &CancelToken::default())?;
        Ok(others().entry(choice.to_owned()).or_insert(other).clone())
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

    /// Bytes that the model takes in this process, about: its graph and weights, and what its engines made of them.
    pub(crate) fn memory(&self) -> u64 {
        self.model.size() + self.compiled_size()
    }

    /// Of that, what its engines made. One that does not know is taken to have made as much as the model.
    pub(crate) fn compiled_size(&self) -> u64 {
        let others = self.others.lock().unwrap_or_else(PoisonError::into_inner);
        let engines = std::iter::once(self).chain(others.values().map(Arc::as_ref));
        let sizes = engines.map(|predictor| match predictor.executable.size() {
            Some(size) => size as u64,
            None => self.model.size(),
        });
        sizes.sum()
    }

    /// The names that were given to its features, if any.
    pub(crate) fn given_features(&self) -> &[String] {
        &self.source.features
    }

    /// Where the model runs: `cpu`, `cuda:0`.
    pub fn device(&self) -> String {
        self.executable.device()
    }

    /// Rows for each run, unless the session says otherwise.
    pub fn batch_size(&self) -> usize {
        self.batch_size
    }

    /// What becomes of NULL among the features.
    pub fn null_policy(&self) -> NullPolicy {
        self.null_policy
    }

    /// Whether some row of arguments of these types may be refused.
    pub(crate) fn may_refuse_rows(&self, types: &[DataType]) -> bool {
        let always_convertible = types.iter().all(|found| found.is_numeric() || *found == DataType::Boolean);
        !always_convertible || self.null_policy == NullPolicy::Error || !self.model.takes_any_row()
    }

    /// `argument 2 ('age')`, for errors.
    fn argument(&self, position: usize) -> String {
        match self.feature_names.as_ref().and_then(|names| names.get(position)) {
            Some(name) => format!("argument {} ('{name}')", position + 1),
            None => format!("argument {}", position + 1),
        }
    }

    fn unscorable(&self, error: ArgumentError) -> crate::Error {
        error!(UnscorableRow, "model '{}': {}: {}", self.label, self.argument(error.argument), error.problem)
    }

    fn check(&self, types: &[DataType]) -> Result<()> {
        let one_list = types.len() == 1 && self.encoder.matrix().is_some() && types[0].is_list();
        if let Some(width) = self.encoder.width().filter(|width| *width != types.len() && !one_list) {
            let names = self.feature_names.as_ref().map(|names| format!(" ({})", names.join(", "))).unwrap_or_default();
            let features = if width == 1 { "feature" } else { "features" };
            bail!(InvalidArguments, "model '{}' takes {width} {features}{names}, found {}", self.label, types.len());
        }
        self.encoder.check(types).map_err(|error| {
            error!(InvalidArguments, "model '{}': {}: {}", self.label, self.argument(error.argument), error.problem)
        })
    }
}

impl ScoringModel for Predictor {
    fn label(&self) -> &str {
        &self.label
    }

    fn feature_names(&self) -> Option<&[String]> {
        self.feature_names.as_deref()
    }

    fn check_arguments(&self, types: &[DataType]) -> DFResult<()> {
        Ok(self.check(types)?)
    }

    fn return_type(&self) -> &DataType {
        &self.return_type
    }

    fn score(
        &self,
        arguments: &[ArrayRef],
        rows: usize,
        on_failure: OnFailure,
        options: &ConfigOptions,
    ) -> DFResult<ArrayRef> {
        let mut batch_size = BatchSize::new(self.batch_size);
        let mut stats = ScoreStats::default();
        let mut context = RunContext::default();
        if let Some(config) = options.extensions.get::<PredictConfig>() {
            context.cancel = config.cancel.clone();
        }
        Ok(self.score_batches(arguments, rows, on_failure, &mut batch_size, 1, &context, &mut stats)?)
    }
}
