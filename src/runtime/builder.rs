//! How a process's models are kept and run.

use std::path::PathBuf;
use std::sync::Arc;

use super::PredictRuntime;
use crate::byte_size::ByteSize;
use crate::catalog::{ModelCatalog, ObjectStoreCatalog};
#[cfg(feature = "onnxruntime")]
use crate::engine::Device;
#[cfg(feature = "onnxruntime")]
use crate::engine::ort::OrtEngine;
use crate::engine::{CoreBudget, Engine, NativeEngine};
use crate::registry::{Limits, ModelRegistry};
#[cfg(feature = "onnxruntime")]
use crate::storage::DiskCache;

/// Makes a [`PredictRuntime`]. What models may take of the machine is set here, for all sessions.
///
/// ```
/// # use datafusion_predict::PredictRuntime;
/// let runtime = PredictRuntime::builder().with_model_memory(2 << 30).with_cache_size(20 << 30).build();
/// ```
#[derive(Debug, Default)]
#[must_use]
pub struct PredictRuntimeBuilder {
    catalog: Option<Arc<dyn ModelCatalog>>,
    /// Those that come before ours, the last that was added first.
    engines: Vec<Arc<dyn Engine>>,
    #[cfg(feature = "onnxruntime")]
    onnxruntime: Option<PathBuf>,
    #[cfg(feature = "onnxruntime")]
    onnxruntime_memory: Option<u64>,
    #[cfg(feature = "onnxruntime")]
    provider_libraries: Vec<PathBuf>,
    #[cfg(feature = "onnxruntime")]
    provider_options: Vec<(Device, String, String)>,
    cores: Option<usize>,
    limits: Limits,
}

impl PredictRuntimeBuilder {
    /// Keeps the models in `catalog`, instead of in this process's memory.
    pub fn with_catalog(self, catalog: Arc<dyn ModelCatalog>) -> Self {
        Self { catalog: Some(catalog), ..self }
    }

    /// Prefers `engine` for the models that it accepts.
    pub fn with_engine(mut self, engine: Arc<dyn Engine>) -> Self {
        self.engines.insert(0, engine);
        self
    }

    /// Takes the ONNX Runtime library at `path`, instead of the one that is found.
    #[cfg(feature = "onnxruntime")]
    pub fn with_onnxruntime(self, path: PathBuf) -> Self {
        Self { onnxruntime: Some(path), ..self }
    }

    /// Lets all runs of ONNX Runtime on the CPU take `bytes` of memory, where a run that asks for more is an error; 0 is no
    /// limit, and half of the machine's memory unless it is called.
    #[cfg(feature = "onnxruntime")]
    pub fn with_onnxruntime_memory(self, bytes: u64) -> Self {
        Self { onnxruntime_memory: Some(bytes), ..self }
    }

    /// Loads the library at `path`, a plug-in of ONNX Runtime that brings devices: see [`OrtEngine::with_provider_library`].
    #[cfg(feature = "onnxruntime")]
    pub fn with_provider_library(mut self, path: PathBuf) -> Self {
        self.provider_libraries.push(path);
        self
    }

    /// Sets an option of ONNX Runtime's provider of `device`, whatever its number: see [`OrtEngine::with_provider_option`].
    #[cfg(feature = "onnxruntime")]
    pub fn with_provider_option(mut self, device: Device, name: &str, value: &str) -> Self {
        self.provider_options.push((device, name.to_owned(), value.to_owned()));
        self
    }

    /// Lets all runs together use so many cores, instead of all of the machine's.
    pub fn with_cores(self, cores: usize) -> Self {
        Self { cores: Some(cores), ..self }
    }

    /// Keeps what is fetched from afar, what models remember and what TensorRT builds in `folder`, instead of the user's cache folder.
    pub fn with_cache_folder(mut self, folder: PathBuf) -> Self {
        self.limits.cache_folder = Some(folder);
        self
    }

    /// Lets loaded models take `bytes` of memory, about, before the least recently used are unloaded. 0, the default, is no
    /// limit.
    pub fn with_model_memory(mut self, bytes: u64) -> Self {
        self.limits.model_memory = ByteSize(bytes);
        self
    }

    /// Lets files that were fetched from afar take `bytes` of the disk before the least recently used are removed; 10 GiB
    /// unless it is called.
    pub fn with_cache_size(mut self, bytes: u64) -> Self {
        self.limits.cache_size = ByteSize(bytes);
        self
    }

    /// Refuses to fetch a file of more than `bytes`; 8 GiB unless it is called.
    pub fn with_download_limit(mut self, bytes: u64) -> Self {
        self.limits.download_limit = ByteSize(bytes);
        self
    }

    /// Lets queries read files by `files`, `read_blob` and `try_read_blob`: any that this process can read, and those of object stores
    /// with its credentials. An app whose users write queries may not want that, so they are not there unless it is called.
    pub fn with_file_functions(mut self) -> Self {
        self.limits.file_functions = true;
        self
    }

    /// The runtime. Models are run by the engines that were added, else by our own where it can, else by ONNX Runtime.
    pub fn build(self) -> PredictRuntime {
        let cores = Arc::new(self.cores.map_or_else(CoreBudget::default, CoreBudget::new));
        let mut engines = self.engines;
        engines.push(Arc::new(NativeEngine));
        #[cfg(feature = "onnxruntime")]
        {
            let engine_cache = DiskCache::new(self.limits.cache_folder.clone(), 0, 0).engines();
            let ort = OrtEngine::new(self.onnxruntime, cores.clone()).with_engine_cache(engine_cache);
            let ort = self.provider_libraries.into_iter().fold(ort, OrtEngine::with_provider_library);
            let options = self.provider_options.iter();
            let ort = options.fold(ort, |ort, (device, name, value)| ort.with_provider_option(*device, name, value));
            engines.push(Arc::new(match self.onnxruntime_memory {
                Some(bytes) => ort.with_memory_limit(bytes),
                None => ort,
            }));
        }
        let catalog = self.catalog.unwrap_or_else(|| Arc::new(ObjectStoreCatalog::in_memory()));
        let registry = Arc::new(ModelRegistry::new(catalog.clone(), engines.into(), cores, self.limits));
        PredictRuntime { catalog, registry }
    }
}
