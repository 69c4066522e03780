//! A model at work: features in, predictions out.
//!
//! ```text
//!  columns ─► NULL policy ─► groups of equal lists ─► encode ─► run ─► decode ─► NULLs back in place
//! ```

mod agreement;
mod auto;
mod axes;
mod batch;
mod batch_size;
mod companions;
mod constant;
mod failures;
mod features;
mod front;
mod head;
mod health;
mod image;
mod inputs;
mod limit;
mod made_up;
mod observe;
mod outputs;
mod prepare;
mod reasons;
mod rounding;
mod rows_first;
mod run;
mod score;
mod sizes;
mod text;
mod trial;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use datafusion_predict_native::{Model, Signature, TensorSpec};
use datafusion_predict_udfs::Tokenizer;

pub(crate) use batch_size::BatchSize;
pub(crate) use prepare::{PredictorRequest, declared_interface};
pub(crate) use score::ScoreStats;

use crate::byte_size::ByteSize;
use crate::call::{CallSignature, FeatureName, ModelOptions, NullPolicy};
use crate::catalog::{Interface, Readiness};
use crate::encode::OutputColumn;
use crate::engine::{Engine, Executable};
use crate::remembered::Remembered;
use health::Health;
use trial::{Dependence, MakeUp};

/// A row that costs less is not worth remembering, unless a model asks for it.
const LOOK_UP: Duration = Duration::from_micros(20);

/// One version of a model with an engine that runs it.
#[derive(Debug, Clone)]
pub struct Predictor {
    /// What it was made from.
    request: PredictorRequest,
    /// What runs it.
    runner: Runner,
    /// Inputs as declared, and outputs with the shapes that were observed.
    signature: Signature,
    call: CallSignature,
    /// For each input, whether all rows of a run share its value.
    shared: Vec<bool>,
    /// The tensors that a run gives, rows first.
    tensors: Vec<TensorSpec>,
    /// How these become the parts of a prediction.
    columns: Vec<OutputColumn>,
    null_policy: NullPolicy,
    /// The only number of rows that the model takes.
    fixed_batch: Option<usize>,
    batch_size: BatchSize,
    /// Whether its runs need cores alone, and no device.
    on_cpu: bool,
    /// What it has scored before, with the folder and the limit for which that was opened.
    remembered: Arc<Mutex<Option<Opened>>>,
    /// What a made-up row becomes where it takes words or pictures.
    make_up: Option<MakeUp>,
    /// The tokens of its texts, where it takes texts.
    tokenizer: Option<Arc<dyn Tokenizer>>,
    health: Health,
    /// Whether rows are scored independently of each other.
    dependence: Dependence,
    /// What a row cost on one thread, if it was tried when the model was created.
    row_cost: Option<Duration>,
    /// What is unusual about the places of its rows, and about its first runs.
    notes: Vec<String>,
}

/// A store of what a model has scored, and how it was asked for.
#[derive(Debug)]
struct Opened {
    folder: PathBuf,
    limit: ByteSize,
    remembered: Arc<Remembered>,
}

/// The engine that runs a model, and what it has made of it.
#[derive(Debug, Clone)]
struct Runner {
    engine: Arc<dyn Engine>,
    executable: Arc<dyn Executable>,
    /// Why each engine that comes before does not run it.
    refusals: Vec<String>,
}

impl Predictor {
    /// The same model under another name and version.
    pub(crate) fn labelled(&self, label: String) -> Self {
        let request = PredictorRequest { label, ..self.request.clone() };
        Self { request, ..self.clone() }
    }

    /// The tokens that it reads; `None` if it takes no texts.
    pub(crate) fn tokenizer(&self) -> Option<&Arc<dyn Tokenizer>> {
        self.tokenizer.as_ref()
    }

    /// How it is called.
    pub(crate) fn call(&self) -> &CallSignature {
        &self.call
    }

    /// What a catalog keeps of how it was made ready.
    pub(crate) fn readiness(&self) -> Readiness {
        Readiness {
            chosen: self.chosen().to_owned(),
            engine: self.engine().to_owned(),
            device: self.device(),
            nodes: self.nodes(),
            batch_size: self.batch_size.rows(),
            not_run_by: self.runner.refusals.clone(),
            takes_any_row: self.model().takes_any_row(),
            rows_independent: self.rows_independent(),
            notes: self.notes(),
        }
    }

    /// What a catalog keeps of its features and outputs.
    pub(crate) fn interface(&self) -> Interface {
        Interface::of(&self.signature, &self.call)
    }

    /// The engine that was asked for: `auto`, or one by its name.
    pub(crate) fn chosen(&self) -> &str {
        &self.request.engine
    }

    /// The model as data.
    pub fn model(&self) -> &Arc<Model> {
        &self.request.model
    }

    /// The options with which the model was created.
    pub fn options(&self) -> &ModelOptions {
        &self.request.options
    }

    /// Inputs as declared, outputs as they were seen when the model ran for the first time.
    pub fn signature(&self) -> &Signature {
        &self.signature
    }

    /// The engine that runs the model.
    pub fn engine(&self) -> &str {
        self.runner.engine.name()
    }

    /// The kinds of devices that its engine could use here.
    pub(crate) fn devices(&self) -> Vec<&'static str> {
        self.runner.engine.devices()
    }

    /// Why engines that would have been preferred do not run the model.
    pub fn refusals(&self) -> &[String] {
        &self.runner.refusals
    }

    /// Bytes that the model takes in its engine, where that knows.
    pub fn size_in_memory(&self) -> Option<usize> {
        self.runner.executable.size()
    }

    /// How many runs its engine has made ready for at once.
    pub(crate) fn sessions(&self) -> usize {
        self.runner.executable.sessions()
    }

    /// Bytes that the model takes in this process, about: its graph and weights, and what its engines made of them.
    pub(crate) fn memory(&self) -> u64 {
        self.model().bytes_in_memory() + self.compiled_size()
    }

    /// Of that, what its engine made. One that does not know is taken to have made as much as the model.
    pub(crate) fn compiled_size(&self) -> u64 {
        self.runner.executable.size().map_or(self.model().size(), |size| size as u64)
    }

    /// The names that were given to its features, if any.
    pub(crate) fn given_features(&self) -> &[FeatureName] {
        &self.request.features
    }

    /// The name and version that errors show.
    pub fn label(&self) -> &str {
        &self.request.label
    }

    /// Where the model runs: `cpu`, `cuda:0`.
    pub fn device(&self) -> String {
        self.runner.executable.device()
    }

    /// How many of its nodes run on its device, and how many there are: `9 of 11`; where it runs on a device that says so.
    pub(crate) fn nodes(&self) -> Option<String> {
        self.runner.executable.placement().map(|placement| placement.to_string())
    }

    /// Whether its runs need cores alone, and no device.
    pub(crate) fn runs_on_cpu(&self) -> bool {
        self.on_cpu
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

    /// Whether rows are scored independently of each other; `None` if that is not known.
    pub fn rows_independent(&self) -> Option<bool> {
        match self.dependence {
            Dependence::Independent => Some(true),
            Dependence::Dependent => Some(false),
            Dependence::Unknown => None,
        }
    }

    /// What a row cost on one thread when the model was created, about; `None` if it was not tried here.
    pub fn row_cost(&self) -> Option<Duration> {
        self.row_cost
    }

    /// Bytes of what the model has scored that are to be kept: by its own option, or those that a session `asks` for, of what costs
    /// more than to look it up.
    pub(crate) fn remembers(&self, asks: ByteSize) -> ByteSize {
        match self.options().remember {
            Some(limit) => limit,
            None if self.make_up.is_some() || self.row_cost.is_some_and(|cost| cost > LOOK_UP) => asks,
            None => ByteSize(0),
        }
    }

    /// What the model has scored before, of which `folder` has at most `limit` bytes; none of a model whose rows are not scored
    /// independently of each other, as far as that is known: `independent`.
    pub(crate) fn remembered(&self, folder: &Path, limit: ByteSize, independent: bool) -> Option<Arc<Remembered>> {
        if !independent && self.fixed_batch != Some(1) {
            return None;
        }
        let mut last = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(opened) = last.as_ref().filter(|opened| opened.folder == folder && opened.limit == limit) {
            return Some(opened.remembered.clone());
        }
        let mut options = BTreeMap::from(self.options().clone());
        options.retain(|name, _| !["remember", "batch_size", "max_run", "max_device_memory"].contains(&name.as_str()));
        let features: Vec<_> = self.given_features().iter().map(|feature| (&feature.name, &feature.input)).collect();
        let identity = format!(
            "{} {} {} {} {options:?} {features:?} {}",
            env!("CARGO_PKG_VERSION"),
            self.model().sha256(),
            self.engine(),
            self.device(),
            self.runner.executable.variant()
        );
        let remembered = Arc::new(Remembered::open(folder, &identity, self.call.returns(), limit.0));
        *last = Some(Opened { folder: folder.to_owned(), limit, remembered: remembered.clone() });
        Some(remembered)
    }

    /// What a user should know of how rows are scored, if anything.
    pub(crate) fn notes(&self) -> Vec<String> {
        let mut notes = self.notes.clone();
        let depends = self.dependence == Dependence::Dependent && self.fixed_batch != Some(1);
        if depends && self.options().remember.is_some_and(|size| size.0 > 0) {
            notes.push("nothing is remembered (option 'remember'): what a row gets is not always the same".to_owned());
        }
        if self.dependence == Dependence::Dependent {
            let depends = "the score of a row depends on the rows that are scored with it";
            notes.push(match self.fixed_batch {
                Some(1) => format!("{depends}: each is scored alone"),
                Some(rows) => format!("{depends}, of which the model takes {rows} at a time"),
                None => format!("{depends}: OPTIONS (on_dependent_rows 'one_by_one') scores each alone"),
            });
        }
        notes
    }

    /// What becomes of NULL among the features.
    pub fn null_policy(&self) -> NullPolicy {
        self.null_policy
    }
}
