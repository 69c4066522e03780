//! What can run a model: the trait, and the engines that come with the library.

mod cancel;
mod cores;
mod device;
pub(crate) mod ort;

use std::fmt::Debug;
use std::sync::Arc;

pub use cancel::CancelToken;
pub use cores::CoreBudget;
pub use device::Device;

use crate::error::Result;
use crate::model::Model;
use crate::tensor::Tensor;

/// Makes models ready to run. Implement it to bring another runtime.
pub trait Engine: Debug + Send + Sync {
    /// The name that EXPLAIN shows.
    fn name(&self) -> &str;

    /// Whether this engine can run `model`; if not, why. The first engine of a session that can, does.
    ///
    /// # Errors
    /// The reason in a few words, for instance the operator that it lacks.
    fn accepts(&self, _model: &Model) -> Result<(), String> {
        Ok(())
    }

    /// Prepares `model` for runs that give `request.outputs`.
    ///
    /// # Errors
    /// A runtime or a device that is missing, a model that this engine can't run.
    fn load(&self, model: &Arc<Model>, request: &LoadRequest) -> Result<Arc<dyn Executable>>;
}

/// How a model is to be loaded.
#[derive(Debug, Clone, Default)]
pub struct LoadRequest {
    /// The model's name and version, for errors.
    pub label: String,
    /// The outputs that runs give, in this order.
    pub outputs: Vec<String>,
    /// Where the model runs.
    pub device: Device,
}

/// A model that an engine has made ready. Shared by all queries that use it.
pub trait Executable: Debug + Send + Sync {
    /// Runs the model once: the inputs in the order of its signature, the outputs in the order of the request.
    ///
    /// The caller has taken the cores, and checks what comes back. Called by many threads at once.
    ///
    /// # Errors
    /// An engine that fails, for whatever reason; a run that was cancelled.
    fn run(&self, inputs: &[Tensor], context: &RunContext) -> Result<Vec<Tensor>>;

    /// Where it runs, as EXPLAIN shows it: `cpu`, `cuda:0`.
    fn device(&self) -> String;
}

/// What a run needs to know of the query that it belongs to.
#[derive(Debug, Clone)]
pub struct RunContext {
    /// Threads that this run may use.
    pub threads: usize,
    /// Ends the run when the query is dropped.
    pub cancel: CancelToken,
}

impl Default for RunContext {
    fn default() -> Self {
        Self { threads: 1, cancel: CancelToken::default() }
    }
}
