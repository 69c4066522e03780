//! The sessions of one model.

use std::ops::Deref;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use datafusion_predict_native::{Model, Precision, Tensor, TensorData};
use ort::logging::LogLevel;
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};
use ort::session::{RunOptions, Session, SessionInputValue};
use ort::value::DynValue;

use super::binding::{Binding, HostMemory};
use super::library::Loaded;
use super::message::RuntimeError;
use super::placement::PlacementLog;
use super::{convert, missing, plugins, provider, refused, size};
use crate::engine::{CoreBudget, Device, DeviceQueue, Executable, Placement, PrepareRequest, RunContext, trim};
use crate::error::{Error, Result, bail, error};

/// Bytes of a constant that is computed when a model is loaded, at most: that memory has no other limit.
const LARGEST_FOLDED: &str = "67108864";

/// Sessions of at least this many bytes are worth giving back to the system what loading took besides.
const WORTH_TRIMMING: usize = 8 << 20;

/// Which arenas give back after a run what nobody uses.
const GIVE_BACK: &str = "memory.enable_memory_arena_shrinkage";

/// Where a model that comes as bytes has its external data.
const WEIGHTS_FOLDER: &str = "session.model_external_initializers_file_folder_path";

/// Above this size of its shared weights, in bytes, a model is not prepacked: that would keep a second copy of each.
const PREPACK_UP_TO: usize = 8 << 20;

/// A model in ONNX Runtime. A session runs one batch at a time, so on the CPU there is a pool of them, no larger than the cores.
///
/// A device has one session, and so one copy of the weights: its memory is short. Its runs stand in the device's queue, with those of
/// other models. Batches are encoded and decoded meanwhile.
#[derive(Debug)]
pub(super) struct OrtExecutable {
    label: String,
    /// The names of what runs take and give.
    inputs: Vec<String>,
    outputs: Vec<String>,
    place: DevicePlace,
    /// What a user should know of the choice of its device.
    notes: Vec<String>,
    /// Where the nodes are, once a session was made for a device.
    placement: OnceLock<Placement>,
    runtime: Loaded,
    cores: Arc<CoreBudget>,
    /// Bytes of each session, about.
    session_size: usize,
    /// The floats of 16 bits that it computes in, if it does.
    precision: Option<Precision>,
    /// All sessions, in use or not.
    sessions: AtomicUsize,
    /// Sessions that no run uses now, each with its number of threads.
    idle: Mutex<Vec<(usize, Ready)>>,
    /// The memory of the host that runs on the device read and write; known with the first session.
    host: OnceLock<HostMemory>,
    /// The model's large weights, in memory once for all sessions. They point into `model`.
    weights: Vec<(String, Arc<DynValue>)>,
    /// Dropped last: sessions and weights point into it.
    model: Arc<Model>,
}

/// A session, and what its runs are bound to.
#[derive(Debug)]
struct Ready {
    session: Session,
    /// On a device.
    binding: Option<Binding>,
}

/// A device for sessions, and how they use it.
#[derive(Debug, Clone)]
pub(super) struct DevicePlace {
    pub device: Device,
    /// The line before it.
    pub queue: Arc<DeviceQueue>,
    /// Options of its provider that the app has set.
    pub of_app: Vec<(String, String)>,
    /// All options of its provider, of which later ones count.
    pub options: Vec<(String, String)>,
}

impl OrtExecutable {
    pub(super) fn load(
        model: &Arc<Model>,
        request: &PrepareRequest,
        place: DevicePlace,
        runtime: Loaded,
        cores: Arc<CoreBudget>,
    ) -> Result<Self> {
        let weights = model.weights().iter().map(|weight| {
            // SAFETY: the weights live in `model`, which this executable holds on to and drops after them.
            let value = unsafe { convert::to_shared(weight)? };
            Ok((weight.name.clone(), Arc::new(value)))
        });
        let weights = weights.collect::<ort::Result<Vec<_>>>().map_err(|cause| refused(&request.label, cause))?;
        let inputs = request.inputs.iter().map(|input| input.name.clone()).collect();
        let outputs = request.outputs.clone();
        let session_size = size::of_session(model, prepacks(model));
        let idle = Mutex::new(vec![]);
        let executable = Self {
            model: model.clone(),
            label: request.label.clone(),
            inputs,
            outputs,
            place,
            notes: vec![],
            placement: OnceLock::new(),
            runtime,
            cores,
            weights,
            session_size,
            precision: request.precision,
            sessions: AtomicUsize::new(0),
            idle,
            host: OnceLock::new(),
        };
        let first = executable.create(1)?; // so that a model that can't be loaded fails here
        executable.give_back(1, first);
        Ok(executable)
    }

    /// The same with what a user should know of the choice of its device.
    pub(super) fn with_notes(self, notes: Vec<String>) -> Self {
        Self { notes, ..self }
    }

    fn create(&self, threads: usize) -> Result<Ready> {
        let outputs: Vec<_> = self.outputs.iter().map(String::as_str).collect();
        // ONNX Runtime makes a copy of what it is given as external, for as long as it works on the graph; not of what it finds
        // in files. Versions that look for these elsewhere fail at once.
        let by_file = if prepacks(&self.model) { None } else { self.model.onnx_bytes_with_files(&outputs) };
        let session = match by_file {
            Some((onnx, folder)) => match self.commit(threads, &onnx, Some(&folder)) {
                Ok(session) if self.model.files_are_unchanged() => session,
                _ => self.commit(threads, &self.model.onnx_bytes(&outputs), None)?,
            },
            None => self.commit(threads, &self.model.onnx_bytes(&outputs), None)?,
        };
        self.sessions.fetch_add(1, Ordering::Relaxed);
        if self.session_size >= WORTH_TRIMMING {
            trim();
        }
        self.bound(session).map_err(|cause| refused(&self.label, cause))
    }

    /// The session with what its runs are bound to.
    fn bound(&self, session: Session) -> ort::Result<Ready> {
        if self.place.device == Device::Cpu {
            return Ok(Ready { session, binding: None });
        }
        let host = self.host.get_or_init(|| HostMemory::of(&session, self.place.device));
        let binding = Binding::new(&session, &self.inputs, &self.outputs, host)?;
        Ok(Ready { session, binding: Some(binding) })
    }

    /// A session for the graph `onnx`, whose external data is in the files of `weights_folder`, or else given beside it.
    fn commit(&self, threads: usize, onnx: &[u8], weights_folder: Option<&Path>) -> Result<Session> {
        let refused = |cause: ort::Error| refused(&self.label, cause);
        let mut builder = self.configure(threads).map_err(refused)?;
        for (name, value) in &self.weights {
            if weights_folder.is_none() {
                // As external, the graph's own copy is replaced.
                builder = builder.with_external_initializer(name, value.clone()).map_err(|it| refused(it.into()))?;
            }
            // As an initializer, sessions share it.
            builder = builder.with_initializer(name, value.clone()).map_err(|it| refused(it.into()))?;
        }
        if let Some(folder) = weights_folder {
            let set = builder.with_config_entry(WEIGHTS_FOLDER, folder.display().to_string());
            builder = set.map_err(|cause| refused(cause.into()))?;
        }
        let device = self.place.device;
        let Some(provider) = provider::provider(device, &self.place.options) else {
            return builder.commit_from_memory(onnx).map_err(refused);
        };
        let log = PlacementLog::default();
        if !plugins::append(&builder, &self.runtime, device, &self.place.options).map_err(refused)? {
            builder = match builder.with_execution_providers([provider]) {
                Ok(builder) => builder,
                Err(cause) => match missing(device, &self.runtime.plugins, cause.into())? {},
            };
        }
        builder = builder.with_log_level(LogLevel::Verbose).map_err(|cause| refused(cause.into()))?;
        builder = builder.with_logger(log.logger()).map_err(|cause| refused(cause.into()))?;
        let session = builder.commit_from_memory(onnx).map_err(refused)?;
        if let Some(placement) = log.finish() {
            if placement.on_device == 0 {
                bail!(
                    DeviceMissing,
                    "model '{}': device '{device}' runs none of its {} nodes: leave out the option 'device', which runs them on the CPU",
                    self.label,
                    placement.nodes()
                );
            }
            let _ = self.placement.set(placement); // another session has the same
        }
        Ok(session)
    }

    fn configure(&self, threads: usize) -> ort::Result<SessionBuilder> {
        let builder = Session::builder(&self.runtime.environment)?
            .with_optimization_level(GraphOptimizationLevel::All)?
            .with_intra_threads(threads)?
            .with_inter_threads(1)?
            .with_intra_op_spinning(false)? // the cores belong to the query's other operators too
            .with_env_allocators()? // one arena, with a limit
            .with_memory_pattern(false)? // it would keep a second block for each shape that comes again
            .with_config_entry("optimization.constant_folding_max_output_size_in_bytes", LARGEST_FOLDED)?
            .with_prepacking(prepacks(&self.model))?
            .with_log_level(LogLevel::Fatal)?; // it would warn about declared shapes at every run
        Ok(builder)
    }

    /// A session that nobody uses, with so many threads; a new one if there is none.
    fn take(&self, threads: usize) -> Result<Ready> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        match idle.iter().position(|(of, _)| *of == threads) {
            Some(position) => Ok(idle.swap_remove(position).1),
            None => {
                drop(idle);
                self.create(threads)
            }
        }
    }

    fn give_back(&self, threads: usize, session: Ready) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.push((threads, session));
        // Sessions for other numbers of threads must not pile up: trees stand in memory once for each. There is room for
        // two such numbers, so that two queries do not drive out each other's.
        while idle.iter().map(|(threads, _)| threads).sum::<usize>() > 2 * self.cores.total() && idle.len() > 1 {
            idle.remove(0);
            self.sessions.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Runs in a session of so many threads.
    fn run_with(&self, threads: usize, inputs: &[SessionInputValue], context: &RunContext) -> Result<Vec<Tensor>> {
        let mut taken = Taken { session: Some(self.take(threads)?), threads, of: self };
        match &mut taken.session {
            Some(session) => self.run_in(session, inputs, context),
            None => bail!(EngineFailed, "model '{}' has no session", self.label),
        }
    }

    /// What a session is given for `inputs`.
    fn values<'t>(&self, inputs: &'t [Tensor]) -> Result<Vec<SessionInputValue<'t>>> {
        let values = inputs.iter().map(|input| match self.host.get() {
            Some(host) => host.input(input),
            None => convert::to_input(input),
        });
        values.collect::<ort::Result<_>>().map_err(|cause| self.failed(cause))
    }

    fn run_in(&self, ready: &mut Ready, inputs: &[SessionInputValue], context: &RunContext) -> Result<Vec<Tensor>> {
        let failed = |cause: ort::Error| self.failed(cause);
        let mut options = RunOptions::new().map_err(failed)?;
        options.set_log_level(LogLevel::Fatal).map_err(failed)?;
        if context.is_trial && self.place.device == Device::Cpu {
            options.set(GIVE_BACK, "cpu:0").map_err(failed)?;
        }
        let options = Arc::new(options);
        let terminate = {
            let options = options.clone();
            move || drop(options.terminate())
        };
        let outputs = context.cancel.with_hook(terminate, || {
            if let Some(binding) = &mut ready.binding {
                return binding.run(&mut ready.session, inputs, &options);
            }
            let names = self.inputs.iter().map(String::as_str);
            let values: Vec<_> = names.zip(inputs.iter().map(Deref::deref)).collect();
            let outputs = ready.session.run_with_options(values, &options)?;
            self.outputs
                .iter()
                .map(|name| convert::from_output(&outputs[name.as_str()]))
                .collect::<ort::Result<Vec<_>>>()
        });
        match outputs {
            Some(Ok(outputs)) => Ok(outputs),
            Some(Err(_)) | None if context.cancel.is_cancelled() => {
                bail!(Cancelled, "model '{}': the query was cancelled", self.label)
            }
            Some(Err(cause)) => Err(failed(cause)),
            None => bail!(Cancelled, "model '{}': the query was cancelled", self.label),
        }
    }

    fn failed(&self, cause: ort::Error) -> Error {
        error!(EngineFailed, "model '{}': ONNX Runtime failed", self.label).with_source(RuntimeError(cause))
    }
}

/// Refuses outputs of half floats that are no numbers, where the inputs were: in between something was larger than such floats can be.
fn in_range(label: &str, inputs: &[Tensor], outputs: Vec<Tensor>) -> Result<Vec<Tensor>> {
    let is_finite = |tensor: &Tensor| match &tensor.data {
        TensorData::Float32(values) => values.iter().all(|value| value.is_finite()),
        TensorData::Float64(values) => values.iter().all(|value| value.is_finite()),
        _ => true,
    };
    if !outputs.iter().all(is_finite) && inputs.iter().all(is_finite) {
        bail!(
            UnscorableRow,
            "model '{label}': with option precision 'fp16' it gives values that are no numbers: some in between may be larger than 65504"
        );
    }
    Ok(outputs)
}

/// Whether sessions keep copies of the shared weights in the order that runs read them.
fn prepacks(model: &Model) -> bool {
    model.weights().iter().map(|weight| weight.data.size()).sum::<usize>() <= PREPACK_UP_TO
}

/// A session in use, which goes back whatever happens: a device has no other.
struct Taken<'a> {
    session: Option<Ready>,
    threads: usize,
    of: &'a OrtExecutable,
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        if let Some(session) = self.session.take() {
            self.of.give_back(self.threads, session);
        }
    }
}

impl Executable for OrtExecutable {
    fn run(&self, inputs: &[Tensor], context: &RunContext) -> Result<Vec<Tensor>> {
        let values = self.values(inputs)?;
        let outputs = if self.place.device == Device::Cpu {
            self.run_with(context.threads.clamp(1, self.cores.total()), &values, context)?
        } else {
            match self.place.queue.run(context, || self.run_with(1, &values, context)) {
                Some(outputs) => outputs?,
                None => bail!(Cancelled, "model '{}': the query was cancelled", self.label),
            }
        };
        match self.precision {
            Some(Precision::Fp16) => in_range(&self.label, inputs, outputs),
            _ => Ok(outputs),
        }
    }

    fn device(&self) -> String {
        self.place.device.to_string()
    }

    fn placement(&self) -> Option<Placement> {
        self.placement.get().cloned()
    }

    fn notes(&self) -> Vec<String> {
        let is_unknown = self.place.device != Device::Cpu && self.placement.get().is_none();
        let note = "this ONNX Runtime does not say which nodes are on the device, and which on the CPU";
        self.notes.iter().cloned().chain(is_unknown.then(|| note.to_owned())).collect()
    }

    fn variant(&self) -> String {
        let options = self.place.of_app.iter().map(|(name, value)| format!("{name}={value}"));
        let plugins = self.runtime.plugins.iter().filter(|_| self.place.device != Device::Cpu);
        options.chain(plugins.map(|path| path.display().to_string())).collect::<Vec<_>>().join(" ")
    }

    fn sessions(&self) -> usize {
        self.sessions.load(Ordering::Relaxed)
    }

    fn size(&self) -> Option<usize> {
        // The weights of the file are counted with the model, and those that were made of them here.
        let rounded = self.model.weights().iter().map(|weight| weight.data.size()).sum();
        let rounded = if self.precision.is_some() { rounded } else { 0 };
        Some(self.sessions() * self.session_size + rounded)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_floats_that_were_too_small_are_an_error_and_missing_values_are_none() {
        let tensor = |value: f32| vec![Tensor { shape: vec![2], data: TensorData::Float32(vec![1.0, value].into()) }];
        let problem =
            |input, output| in_range("m", &tensor(input), tensor(output)).err().map(|error| error.to_string());
        assert_eq!(problem(7e4, 7e4), None);
        assert_eq!(problem(f32::NAN, f32::NAN), None, "it was missing before");
        for output in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let problem = problem(7e4, output).expect("an error");
            assert!(problem.starts_with("model 'm': with option precision 'fp16' it gives values that are no numbers"));
        }
    }
}
