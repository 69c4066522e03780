//! ONNX Runtime: found and loaded at run time, its sessions pooled.

mod convert;
mod library;
mod message;
mod provider;
mod session;

use std::path::PathBuf;
use std::sync::Arc;

use super::{CoreBudget, Device, Engine, LoadRequest, Loaded};
use crate::error::{Error, Result, bail};
use crate::model::Model;
use message::RuntimeError;
use session::OrtExecutable;

pub use library::runtime_folder;

/// Runs models with ONNX Runtime.
#[derive(Debug)]
pub struct OrtEngine {
    library: Option<PathBuf>,
    cores: Arc<CoreBudget>,
}

impl OrtEngine {
    /// An engine with the library at `library`, or else the one that is found; loaded when the first model is.
    ///
    /// A process has one ONNX Runtime: the first engine that loads a model decides which.
    pub fn new(library: Option<PathBuf>, cores: Arc<CoreBudget>) -> Self {
        Self { library, cores }
    }
}

impl Engine for OrtEngine {
    fn name(&self) -> &str {
        "onnxruntime"
    }

    fn devices(&self) -> Vec<&'static str> {
        match library::environment(self.library.as_deref()) {
            Ok(_) => provider::available(),
            Err(_) => vec![], // without its library it runs nowhere
        }
    }

    fn load(&self, model: &Arc<Model>, request: &LoadRequest) -> Result<Loaded> {
        let environment = library::environment(self.library.as_deref())?;
        let load = |device| OrtExecutable::load(model, request, device, environment.clone(), self.cores.clone());
        if request.device != Device::Auto {
            return Ok(Loaded::Ready(Arc::new(load(request.device)?)));
        }
        for device in provider::candidates() {
            match load(device) {
                Ok(executable) => return Ok(Loaded::Ready(Arc::new(executable))),
                Err(error) => log::debug!("device {device} is not used for model '{}': {error}", model.uri()),
            }
        }
        Ok(Loaded::Ready(Arc::new(load(Device::Cpu)?)))
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
