//! ONNX Runtime: found and loaded at run time, its sessions pooled.

mod arena;
mod binding;
mod convert;
mod engine_cache;
mod library;
mod message;
mod placement;
mod plugins;
mod provider;
mod session;
mod size;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use datafusion_predict_native::{Model, Precision};

pub use library::onnxruntime_folder;

use super::{CoreBudget, Device, DeviceQueue, Engine, PluginDevice, PrepareRequest, Prepared};
use crate::error::{Error, ErrorKind, Result, bail, error};
use library::Loaded;
use message::RuntimeError;
use session::{DevicePlace, OrtExecutable};

/// Runs models with ONNX Runtime.
#[derive(Debug)]
pub struct OrtEngine {
    library: Option<PathBuf>,
    cores: Arc<CoreBudget>,
    /// Bytes that all runs on the CPU may take at once; 0 is no limit.
    memory_limit: u64,
    /// Libraries of providers.
    provider_libraries: Vec<PathBuf>,
    /// Where TensorRT keeps what it builds.
    engine_cache: Option<PathBuf>,
    /// Options of providers that the app has set, with a device of the kind that they are of.
    provider_options: Vec<(Device, String, String)>,
    /// Models in floats of 16 bits, while somebody uses them, by the SHA-256 of those that they were made of.
    rounded: Mutex<HashMap<(String, Precision), Weak<Model>>>,
}

impl OrtEngine {
    /// An engine with the library at `library`, or else the one that is found; loaded when the first model is.
    ///
    /// A process has one ONNX Runtime: the first engine that loads a model decides which.
    pub fn new(library: Option<PathBuf>, cores: Arc<CoreBudget>) -> Self {
        Self {
            library,
            cores,
            memory_limit: arena::default_limit(),
            provider_libraries: vec![],
            engine_cache: None,
            provider_options: vec![],
            rounded: Mutex::default(),
        }
    }

    /// Lets all runs on the CPU, with what they keep for later ones, take `bytes` of memory; what asks for more is an error. 0
    /// is no limit; half of the machine's memory unless it is called.
    ///
    /// Of several engines in a process the first one that loads a model decides.
    #[must_use]
    pub fn with_memory_limit(self, bytes: u64) -> Self {
        Self { memory_limit: bytes, ..self }
    }

    /// Loads the library at `path`, a plug-in that brings a provider and its devices: such as that of the Python package
    /// `onnxruntime-ep-openvino`. A device of the same kind that ONNX Runtime was built for gives way to it. Needs ONNX Runtime 1.22.
    #[must_use]
    pub fn with_provider_library(mut self, path: PathBuf) -> Self {
        self.provider_libraries.push(path);
        self
    }

    /// Lets TensorRT keep below `folder` the engines that it builds, for other processes and the next session: in a
    /// folder for each model, device, set of options and version. Without it they are built anew in each process.
    #[must_use]
    pub fn with_engine_cache(self, folder: PathBuf) -> Self {
        Self { engine_cache: Some(folder), ..self }
    }

    /// Sets an option of the provider of `device`, whatever its number, for all models: also one that names a file, a library or an
    /// address, which no statement may set. It is given to the provider as it is; DirectML takes none.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use datafusion_predict::{CoreBudget, Device, OrtEngine};
    /// let engine = OrtEngine::new(None, Arc::new(CoreBudget::default()))
    ///     .with_provider_option(Device::TensorRt(0), "trt_extra_plugin_lib_paths", "/opt/plugins/ours.so");
    /// ```
    #[must_use]
    pub fn with_provider_option(mut self, device: Device, name: &str, value: &str) -> Self {
        self.provider_options.push((device, name.to_owned(), value.to_owned()));
        self
    }

    /// `device` for sessions of `model` as `request` asks for it.
    fn place(&self, device: Device, model: &Model, request: &PrepareRequest) -> Result<DevicePlace> {
        let of_app = self.provider_options.iter().filter(|(of, ..)| of.kind() == device.kind());
        let of_app: Vec<_> = of_app.map(|(_, name, value)| (name.clone(), value.clone())).collect();
        if let Some((name, _)) = of_app.iter().find(|(name, value)| format!("{name}{value}").contains('\0')) {
            bail!(InvalidOption, "the provider of device '{device}' takes no option '{name}' with a zero byte");
        }
        if let (Device::DirectMl(_), Some((name, _))) = (device, of_app.first()) {
            bail!(InvalidOption, "the provider of device '{device}' takes no options, found '{name}'");
        }
        let limit = request.max_device_memory.map(|bytes| ("gpu_mem_limit".to_owned(), bytes.to_string()));
        let of_model = request.provider_options.clone();
        let defaults = provider::defaults(device).iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let mut options: Vec<_> = defaults.chain(of_app.iter().cloned()).chain(of_model).chain(limit).collect();
        if let Some(folder) = &self.engine_cache {
            let request = PrepareRequest { device, ..request.clone() };
            let of_cache = engine_cache::options(folder, model, &request, &options, ort::info());
            options.splice(0..0, of_cache); // what the app says counts
        }
        Ok(DevicePlace { device, queue: queue(device), of_app, options })
    }

    /// ONNX Runtime with its plug-ins.
    fn loaded(&self) -> Result<Loaded> {
        let loaded = library::environment(self.library.as_deref(), self.memory_limit)?;
        let Loaded { environment, minor, .. } = &loaded;
        let plugins = self.provider_libraries.iter().map(|path| plugins::register(environment, *minor, path));
        Ok(Loaded { plugins: plugins.collect::<Result<_>>()?, ..loaded })
    }

    /// `model` in floats of 16 bits: once in memory for all that use it so.
    fn in_precision(&self, model: &Model, precision: Precision, label: &str) -> Result<Arc<Model>> {
        let mut rounded = self.rounded.lock().unwrap_or_else(PoisonError::into_inner);
        rounded.retain(|_, model| model.strong_count() > 0);
        let key = (model.sha256().to_owned(), precision);
        if let Some(known) = rounded.get(&key).and_then(Weak::upgrade) {
            return Ok(known);
        }
        let Some((half, _)) = model.in_precision(precision) else {
            bail!(
                InvalidOption,
                "model '{label}': option 'precision' is '{precision}', but it has no product or convolution in floats of 32 bits, outside of functions and branches, that could be computed so"
            );
        };
        rounded.insert(key, Arc::downgrade(&half));
        Ok(half)
    }
}

impl Engine for OrtEngine {
    fn name(&self) -> &str {
        "onnxruntime"
    }

    fn devices(&self) -> Vec<&'static str> {
        match self.loaded() {
            Ok(Loaded { plugins, .. }) => {
                let mut kinds = provider::available();
                kinds.extend(plugins::kinds(&plugins).into_iter().map(Device::kind));
                let mut seen = BTreeSet::new();
                kinds.retain(|kind| seen.insert(*kind));
                kinds
            }
            Err(_) => vec![], // without its library it runs nowhere
        }
    }

    fn plugin_devices(&self) -> Result<Vec<PluginDevice>> {
        Ok(plugins::devices(&self.loaded()?.plugins))
    }

    fn prepare(&self, model: &Arc<Model>, request: &PrepareRequest) -> Result<Prepared> {
        if model.token_table().is_some() {
            return Ok(Prepared::Refused("static embeddings are no graph: the native engine looks them up".to_owned()));
        }
        let loaded = self.loaded()?;
        let in_precision = request.precision.map(|precision| self.in_precision(model, precision, &request.label));
        let model = &in_precision.transpose()?.unwrap_or_else(|| model.clone());
        let load = |device| {
            let place = self.place(device, model, request)?;
            let ready = OrtExecutable::load(model, request, place, loaded.clone(), self.cores.clone());
            let note = request.precision.map(|precision| {
                format!("its option precision '{precision}' needs a device that computes in such floats, as '{device}' may not")
            });
            ready.map_err(|error| match error.kind() {
                ErrorKind::InvalidModel => error.with_note(note.as_deref()),
                _ => error,
            })
        };
        if request.device != Device::Auto {
            return Ok(Prepared::Ready(Arc::new(load(request.device)?)));
        }
        let mut notes = vec![];
        let mut candidates: Vec<Device> = vec![];
        for device in plugins::kinds(&loaded.plugins).into_iter().chain(provider::candidates()) {
            if !candidates.contains(&device) {
                candidates.push(device);
            }
        }
        for device in candidates {
            match load(device) {
                Ok(executable) => return Ok(Prepared::Ready(Arc::new(executable))),
                Err(error) => notes.push(format!("device 'auto' has tried {device}: {}", with_cause(&error))),
            }
        }
        Ok(Prepared::Ready(Arc::new(load(Device::Cpu)?.with_notes(notes))))
    }
}

/// The line before `device`: one for each, whatever engine and provider use it.
fn queue(device: Device) -> Arc<DeviceQueue> {
    static QUEUES: Mutex<BTreeMap<(&str, u16), Arc<DeviceQueue>>> = Mutex::new(BTreeMap::new());
    let hardware = match device {
        Device::Cuda(number) | Device::TensorRt(number) => ("nvidia", number),
        Device::DirectMl(number) => ("directml", number),
        other => (other.kind(), 0),
    };
    QUEUES.lock().unwrap_or_else(PoisonError::into_inner).entry(hardware).or_default().clone()
}

/// An error in one line, with what caused it.
fn with_cause(error: &Error) -> String {
    let cause = std::error::Error::source(error).map(|cause| format!(": {cause}"));
    format!("{error}{}", cause.unwrap_or_default())
}

/// What ONNX Runtime says of a model that it refuses.
fn refused(label: &str, cause: ort::Error) -> Error {
    error!(InvalidModel, "model '{label}': ONNX Runtime can't load it").with_source(RuntimeError(cause))
}

/// A device that is named must be there. Its provider may be, and have found none, or refused an option.
fn missing(device: Device, plugins: &[PathBuf], cause: ort::Error) -> Result<std::convert::Infallible> {
    let message = cause.message();
    let message = message::without_place(message.trim()).trim_end_matches('.');
    if provider::available().contains(&device.kind()) {
        bail!(DeviceMissing, "device '{device}' can't be used: {message}");
    }
    let plugins = if plugins.is_empty() { "" } else { ", and the plug-ins that are loaded have found none" };
    let package = match device {
        Device::OpenVino => {
            "onnxruntime-openvino, or --provider-library a plug-in, such as that of onnxruntime-ep-openvino"
        }
        Device::CoreMl => "onnxruntime on macOS",
        Device::DirectMl(_) => "onnxruntime-directml",
        Device::WebGpu => "onnxruntime-webgpu",
        Device::Cuda(_) | Device::TensorRt(_) | Device::Cpu | Device::Auto => "onnxruntime-gpu",
    };
    bail!(
        DeviceMissing,
        "device '{device}' is not available in this ONNX Runtime: {message}{plugins}; --onnxruntime (PredictRuntimeBuilder::with_onnxruntime) names a library that was built for it, such as that of the Python package {package}"
    )
}
