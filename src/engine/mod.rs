//! What can run a model: the trait, and the engines that come with the library.

mod cores;
mod counts;
#[cfg(feature = "onnxruntime")]
mod cuda_driver;
mod device;
mod device_queue;
mod devices;
mod hardware;
mod native;
#[cfg(feature = "onnxruntime")]
pub(crate) mod ort;
mod placement;
mod plugin_device;
mod provider_options;
mod several_devices;
mod trim;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Instant;

use datafusion::arrow::array::ArrayRef;
use datafusion_predict_native::{Model, Precision, Tensor, TensorSpec};

pub use cores::{CoreBudget, CoreLease, Cores};
pub use counts::RunCounts;
pub(crate) use counts::TextCounts;
pub use device::Device;
pub use device_queue::DeviceQueue;
pub use devices::Devices;
pub(crate) use hardware::hardware;
pub use native::NativeEngine;
pub use placement::Placement;
pub use plugin_device::PluginDevice;
pub(crate) use provider_options::provider_option;
pub(crate) use several_devices::SeveralDevices;
pub(crate) use trim::trim;

use crate::cancel::CancelToken;
use crate::error::Result;

/// The name by which sessions leave the choice of an engine to us: the first that can.
pub(crate) const AUTO: &str = "auto";

/// Makes models ready to run. Implement it to bring an engine of your own: `examples/custom_engine.rs` has one.
///
/// ```
/// use std::sync::Arc;
/// use datafusion_predict::{Engine, Model, NativeEngine, PredictRuntime, PrepareRequest, Prepared, Result};
///
/// /// Our engine, for small models only.
/// #[derive(Debug)]
/// struct Small;
///
/// impl Engine for Small {
///     fn name(&self) -> &str {
///         "small"
///     }
///     fn prepare(&self, model: &Arc<Model>, request: &PrepareRequest) -> Result<Prepared> {
///         if model.size() > 1 << 20 {
///             return Ok(Prepared::Refused("it has more than a megabyte".to_owned()));
///         }
///         NativeEngine.prepare(model, request)
///     }
/// }
///
/// let runtime = PredictRuntime::builder().with_engine(Arc::new(Small)).build();
/// ```
pub trait Engine: Debug + Send + Sync {
    /// The name that EXPLAIN shows, and by which `predict.engine` chooses it.
    fn name(&self) -> &str;

    /// The kinds of devices that it could run a model on here, as the option `device` names them, without numbers.
    fn devices(&self) -> Vec<&'static str> {
        vec!["cpu"]
    }

    /// The devices that plug-ins of the engine bring, and the plug-ins that find none of theirs here.
    ///
    /// # Errors
    /// A plug-in that can't be loaded.
    fn plugin_devices(&self) -> Result<Vec<PluginDevice>> {
        Ok(vec![])
    }

    /// Prepares `model` for runs that give `request.outputs`. The first engine of a session that can, runs it.
    ///
    /// # Errors
    /// A library or a device that is missing, a model that no engine should run.
    fn prepare(&self, model: &Arc<Model>, request: &PrepareRequest) -> Result<Prepared>;
}

/// What an engine makes of a model.
#[derive(Debug)]
pub enum Prepared {
    /// It will run it.
    Ready(Arc<dyn Executable>),
    /// It leaves it to the next engine, for this reason in a few words: for instance, the operator that it lacks.
    Refused(String),
}

/// How a model is to be prepared.
#[derive(Debug, Clone, Default)]
pub struct PrepareRequest {
    /// The model's name, for errors.
    pub label: String,
    /// The model's inputs; sizes that the file leaves open may be known here.
    pub inputs: Vec<TensorSpec>,
    /// Whether the rows may be another dimension than the first, or not all inputs have them. An engine that scores rows one by one leaves such a model to
    /// one that runs the graph as it is.
    pub rows_elsewhere: bool,
    /// The names of the features, in order, for errors; none if they have no names.
    pub features: Vec<String>,
    /// The outputs that runs give, in this order.
    pub outputs: Vec<String>,
    /// Where the model runs.
    pub device: Device,
    /// Options of the device's provider, as it writes them.
    pub provider_options: BTreeMap<String, String>,
    /// Floats of 16 bits in which most of the model is to be computed, as [`Model::in_precision`] does it.
    pub precision: Option<Precision>,
    /// Bytes of the device's memory that the model may take, if that is limited.
    pub max_device_memory: Option<u64>,
    /// Whether the engine was chosen by name: it should refuse nothing that it can run, be it the fastest or not.
    pub chosen: bool,
}

/// A model that an engine has made ready. Shared by all queries that use it.
pub trait Executable: Debug + Send + Sync {
    /// Runs the model once: the inputs in the order of its signature, the outputs in the order of the request.
    ///
    /// The caller has taken the cores, and checks what comes back. Called by many threads at once. What runs on a device gives them up
    /// meanwhile, as [`DeviceQueue::run`] does.
    ///
    /// # Errors
    /// An engine that fails, for whatever reason; a run that was cancelled.
    fn run(&self, inputs: &[Tensor], context: &RunContext) -> Result<Vec<Tensor>>;

    /// If it reads columns where they lie.
    fn columnar(&self) -> Option<&dyn Columnar> {
        None
    }

    /// Where it runs, as EXPLAIN shows it: `cpu`, `cuda:0`.
    fn device(&self) -> String;

    /// How many nodes of the graph run on its device, and which on the CPU, where it runs on a device and the engine knows it.
    fn placement(&self) -> Option<Placement> {
        None
    }

    /// Sentences for DESCRIBE MODEL and CREATE MODEL on how the engine runs the model, such as why it is on no device.
    fn notes(&self) -> Vec<String> {
        vec![]
    }

    /// What it computes otherwise than by default, where the app has chosen that: predictions that are kept on disk are kept for each.
    fn variant(&self) -> String {
        String::new()
    }

    /// How many copies of the model it keeps, each for one run at a time; one, if any number of runs share it.
    fn sessions(&self) -> usize {
        1
    }

    /// Bytes that the model takes in memory, all sessions together, where the engine knows.
    fn size(&self) -> Option<usize> {
        None
    }
}

/// What runs on Arrow columns, so that no matrix is built of them.
pub trait Columnar {
    /// Runs the model on `rows` rows: for each input its columns, each of the Arrow type of the input's elements (NULL
    /// among floats is NaN), or, of texts, of any type of texts or a dictionary of them.
    ///
    /// # Errors
    /// As [`Executable::run`].
    fn run_columns(&self, inputs: &[Vec<ArrayRef>], rows: usize, context: &RunContext) -> Result<Vec<Tensor>>;

    /// Whether each row is scored for itself, so that the rows beside it can't matter.
    fn scores_rows_apart(&self) -> bool {
        true
    }
}

/// What a run needs to know of the query that it belongs to.
#[derive(Debug, Clone)]
pub struct RunContext {
    /// Threads that this run may use.
    pub threads: usize,
    /// Ends the run when the query is dropped.
    pub cancel: CancelToken,
    /// Whether it tries the model on made-up rows: memory that it takes is not kept for the next run.
    pub is_trial: bool,
    /// What runs count.
    pub counts: Arc<RunCounts>,
    /// When its query began to score: before that, a device that had nothing to do was not idle for it.
    pub began: Instant,
    /// The cores of the thread that runs it, where they are to be given up while it waits for a device.
    pub cores: Option<Arc<CoreLease>>,
}

impl RunContext {
    /// Does `wait`, which needs no core, while others have those of this run.
    pub fn without_cores<T>(&self, wait: impl FnOnce() -> T) -> T {
        match &self.cores {
            Some(cores) => cores.without(wait),
            None => wait(),
        }
    }
}

impl Default for RunContext {
    fn default() -> Self {
        Self {
            threads: 1,
            cancel: CancelToken::default(),
            is_trial: false,
            counts: Arc::default(),
            began: Instant::now(),
            cores: None,
        }
    }
}
