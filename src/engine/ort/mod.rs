//! ONNX Runtime: found and loaded at run time, its sessions pooled.

mod arena;
mod convert;
mod library;
mod message;
mod provider;
mod session;
mod size;

use std::path::PathBuf;
use std::sync::Arc;

use datafusion_predict_native::Model;
use ort::environment::Environment;

pub use library::onnxruntime_folder;

use super::{CoreBudget, Device, Engine, PrepareRequest, Prepared};
use crate::error::{Error, Result, bail};
use message::RuntimeError;
use session::OrtExecutable;

/// Runs models with ONNX Runtime.
#[derive(Debug)]
pub struct OrtEngine {
    library: Option<PathBuf>,
    cores: Arc<CoreBudget>,
    /// Bytes that all runs on the CPU may take at once; 0 is no limit.
    memory_limit: u64,
}

impl OrtEngine {
    /// An engine with the library at `library`, or else the one that is found; loaded when the first model is.
    ///
    /// A process has one ONNX Runtime: the first engine that loads a model decides which.
    pub fn new(library: Option<PathBuf>, cores: Arc<CoreBudget>) -> Self {
        Self { library, cores, memory_limit: arena::default_limit() }
    }

    /// Lets all runs on the CPU, with what they keep for later ones, take `bytes` of memory; what asks for more is an error. 0
    /// is no limit; half of the machine's memory unless it is called.
    ///
    /// Of several engines in a process the first one that loads a model decides.
    #[must_use]
    pub fn with_memory_limit(self, bytes: u64) -> Self {
        Self { memory_limit: bytes, ..self }
    }

    fn environment(&self) -> Result<Environment> {
        library::environment(self.library.as_deref(), self.memory_limit)
    }
}

impl Engine for OrtEngine {
    fn name(&self) -> &str {
        "onnxruntime"
    }

    fn devices(&self) -> Vec<&'static str> {
        match self.environment() {
            Ok(_) => provider::available(),
            Err(_) => vec![], // without its library it runs nowhere
        }
    }

    fn prepare(&self, model: &Arc<Model>, request: &PrepareRequest) -> Result<Prepared> {
        if model.token_table().is_some() {
            return Ok(Prepared::Refused("static embeddings are no graph: the native engine looks them up".to_owned()));
        }
        let environment = self.environment()?;
        let load = |device| OrtExecutable::load(model, request, device, environment.clone(), self.cores.clone());
        if request.device != Device::Auto {
            return Ok(Prepared::Ready(Arc::new(load(request.device)?)));
        }
        for device in provider::candidates() {
            match load(device) {
                Ok(executable) => return Ok(Prepared::Ready(Arc::new(executable))),
                Err(error) => log::debug!("device {device} is not used for model '{}': {error}", model.uri()),
            }
        }
        Ok(Prepared::Ready(Arc::new(load(Device::Cpu)?)))
    }
}

/// What ONNX Runtime says of a model that it refuses.
fn refused(label: &str, cause: ort::Error) -> Error {
    crate::error::error!(InvalidModel, "model '{label}': ONNX Runtime can't load it").with_source(RuntimeError(cause))
}

/// A device that is named must be there.
fn missing(device: Device, cause: ort::Error) -> Result<std::convert::Infallible> {
    let message = cause.message();
    bail!(DeviceMissing, "device '{device}' is not available in this ONNX Runtime: {message}")
}
