//! A handle that can be called.

use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use datafusion::arrow::array::ArrayRef;
use datafusion::arrow::datatypes::DataType;
use datafusion::common::Result as DFResult;
use datafusion::config::ConfigOptions;
use datafusion_predict_udfs::{OnFailure, ScoringModel, Tokenizer};

use super::totals::Totals;
use super::{ModelRegistry, planning};
use crate::byte_size::ByteSize;
use crate::catalog::ModelHandle;
use crate::config::PredictConfig;
use crate::engine::{CoreBudget, RunContext};
use crate::error::{Result, bail};
use crate::remembered::Remembered;
use crate::scoring::Predictor;

/// A model as the functions of a plan hold it: a handle, and the registry of the process that loads it when it is needed.
///
/// It is equal to another with the same handle.
#[derive(Debug, Clone)]
pub struct RegisteredModel {
    handle: Arc<ModelHandle>,
    registry: Arc<ModelRegistry>,
    totals: Arc<Totals>,
}

impl RegisteredModel {
    pub(crate) fn new(handle: Arc<ModelHandle>, registry: Arc<ModelRegistry>) -> Self {
        let totals = registry.totals.of(&handle);
        Self { handle, registry, totals }
    }

    /// The model behind `model`, if it is one of ours: others are called as functions only.
    pub(crate) fn of(model: &Arc<dyn ScoringModel>) -> Option<&Self> {
        (model.as_ref() as &dyn std::any::Any).downcast_ref()
    }

    /// Which version it is, and how it is called.
    pub fn handle(&self) -> &Arc<ModelHandle> {
        &self.handle
    }

    /// The same version, to be run by `engine`.
    pub(crate) fn with_engine(&self, engine: &str) -> Self {
        if self.handle.engine() == engine {
            return self.clone();
        }
        Self { handle: Arc::new(self.handle.with_engine(engine)), ..self.clone() }
    }

    /// The loaded model, if it is loaded.
    pub(crate) fn loaded(&self) -> Option<Arc<Predictor>> {
        self.registry.get(&self.handle)
    }

    /// The loaded model, if it is loaded, without counting as a use.
    pub(crate) fn peek(&self) -> Option<Arc<Predictor>> {
        self.registry.peek_handle(&self.handle)
    }

    /// The cores that its runs share with those of others.
    pub(crate) fn cores(&self) -> &Arc<CoreBudget> {
        self.registry.cores()
    }

    /// What its uses in this process have taken.
    pub(crate) fn totals(&self) -> &Arc<Totals> {
        &self.totals
    }

    /// What `predictor`, which is this model, has scored before, where a session `asks` for so many bytes of it.
    pub(crate) fn remembered(&self, predictor: &Predictor, asks: ByteSize) -> Option<Arc<Remembered>> {
        let limit = predictor.remembers(asks);
        if limit.0 == 0 {
            return None;
        }
        let known = self.handle.readiness().and_then(|readiness| readiness.rows_independent);
        let independent = known.or(predictor.rows_independent()) == Some(true);
        predictor.remembered(&self.registry.cache().remembered(), limit, independent)
    }

    /// The loaded model, for which this thread waits if it is not loaded.
    ///
    /// # Errors
    /// As [`ModelRegistry::load`], and a query that is only planned.
    fn at_work(&self) -> Result<Arc<Predictor>> {
        if planning::is_under_way() {
            bail!(NotLoaded, "model '{}' is not called while a query is planned", self.handle.label());
        }
        match self.loaded() {
            Some(predictor) => Ok(predictor),
            None => self.registry.load_blocking(&self.handle),
        }
    }

    /// The loaded model; loaded first if it is not.
    ///
    /// # Errors
    /// As [`ModelRegistry::load`].
    pub(crate) async fn load(&self) -> Result<Arc<Predictor>> {
        self.registry.load(&self.handle).await
    }
}

impl PartialEq for RegisteredModel {
    fn eq(&self, other: &Self) -> bool {
        self.handle == other.handle
    }
}

impl Eq for RegisteredModel {}

impl Hash for RegisteredModel {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.handle.hash(state);
    }
}

impl ScoringModel for RegisteredModel {
    fn label(&self) -> &str {
        self.handle.label()
    }

    fn feature_names(&self) -> Option<&[String]> {
        self.handle.call().features()
    }

    fn input_name(&self) -> Option<&str> {
        self.handle.call().input_name()
    }

    fn check_arguments(&self, types: &[DataType]) -> DFResult<()> {
        Ok(self.handle.call().check(self.handle.label(), types)?)
    }

    fn return_type(&self) -> &DataType {
        self.handle.return_type()
    }

    fn provenance(&self) -> HashMap<String, String> {
        self.handle.provenance()
    }

    fn tokenizer(&self) -> DFResult<Arc<dyn Tokenizer>> {
        let tokenizer = || -> Result<Arc<dyn Tokenizer>> {
            match self.at_work()?.tokenizer() {
                Some(tokenizer) => Ok(tokenizer.clone()),
                None => {
                    bail!(InvalidArguments, "model '{}' takes no texts, so it has no tokens", self.handle.label())
                }
            }
        };
        Ok(tokenizer()?)
    }

    /// Runs on the caller's thread, without waiting for cores, which a synchronous function can't.
    ///
    /// Plans that our planner made have loaded the model before. Where it did not, this thread waits for it.
    fn score(
        &self,
        arguments: &[ArrayRef],
        rows: usize,
        on_failure: OnFailure,
        options: &ConfigOptions,
    ) -> DFResult<ArrayRef> {
        let score = || -> Result<ArrayRef> {
            let predictor = self.at_work()?;
            let config = PredictConfig::of(options);
            let context = RunContext { cancel: config.cancel, ..RunContext::default() };
            let mut batch_size = predictor.batch_sizing();
            let scorer = predictor.scorer(on_failure, &context);
            let mut scorer = scorer.remembering(self.remembered(&predictor, config.remember));
            let scores = scorer.score(arguments, rows, &mut batch_size);
            self.totals.add(&scorer.stats);
            scores
        };
        Ok(score()?)
    }
}
