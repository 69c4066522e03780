//! The devices that a model can be asked to run on.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result, bail};

/// A device. One that is named is used, or loading the model fails; only `Auto` chooses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Device {
    /// The CPU.
    #[default]
    Cpu,
    /// NVIDIA, by CUDA.
    Cuda(u16),
    /// NVIDIA, by TensorRT.
    TensorRt(u16),
    /// Intel, by OpenVINO.
    OpenVino,
    /// Apple, by Core ML.
    CoreMl,
    /// Windows, by DirectML.
    DirectMl(u16),
    /// Any GPU, by WebGPU.
    WebGpu,
    /// The fastest device that is there.
    Auto,
}

impl Device {
    /// The kind of device, without a number: `cuda`.
    pub fn kind(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Cuda(_) => "cuda",
            Self::TensorRt(_) => "tensorrt",
            Self::OpenVino => "openvino",
            Self::CoreMl => "coreml",
            Self::DirectMl(_) => "directml",
            Self::WebGpu => "webgpu",
            Self::Auto => "auto",
        }
    }
}

impl Device {
    /// Which one of several of its kind, where these have numbers.
    pub fn number(self) -> Option<u16> {
        match self {
            Self::Cuda(number) | Self::TensorRt(number) | Self::DirectMl(number) => Some(number),
            Self::Cpu | Self::OpenVino | Self::CoreMl | Self::WebGpu | Self::Auto => None,
        }
    }

    /// Another one of its kind, where these have numbers.
    pub(super) fn with_number(self, number: u16) -> Option<Self> {
        match self {
            Self::Cuda(_) => Some(Self::Cuda(number)),
            Self::TensorRt(_) => Some(Self::TensorRt(number)),
            Self::DirectMl(_) => Some(Self::DirectMl(number)),
            Self::Cpu | Self::OpenVino | Self::CoreMl | Self::WebGpu | Self::Auto => None,
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.number() {
            Some(number) => write!(f, "{}:{number}", self.kind()),
            None => f.write_str(self.kind()),
        }
    }
}

impl FromStr for Device {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let lower = text.to_lowercase();
        let (name, id) = match lower.split_once(':') {
            Some((name, id)) => (name, id.parse().ok()),
            None => (lower.as_str(), Some(0)),
        };
        match (name, id, lower.contains(':')) {
            ("cpu", _, false) => Ok(Self::Cpu),
            ("cuda", Some(id), _) => Ok(Self::Cuda(id)),
            ("tensorrt", Some(id), _) => Ok(Self::TensorRt(id)),
            ("openvino", _, false) => Ok(Self::OpenVino),
            ("coreml", _, false) => Ok(Self::CoreMl),
            ("directml", Some(id), _) => Ok(Self::DirectMl(id)),
            ("webgpu", _, false) => Ok(Self::WebGpu),
            ("auto", _, false) => Ok(Self::Auto),
            _ => bail!(
                InvalidOption,
                "option 'device' is '{text}': expected 'cpu', 'cuda', 'cuda:1', 'cuda:0,1', 'tensorrt', 'openvino', 'coreml', 'directml', 'webgpu' or 'auto'"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Device;

    #[test]
    fn devices_are_written_as_they_are_read() {
        for text in ["cpu", "cuda:0", "cuda:1", "tensorrt:0", "openvino", "coreml", "directml:0", "webgpu", "auto"] {
            assert_eq!(text.parse::<Device>().expect("a device").to_string(), text);
        }
        assert_eq!("CUDA".parse::<Device>().expect("a device"), Device::Cuda(0));
        for text in ["", "gpu", "cuda:", "cuda:x", "cpu:0"] {
            assert!(text.parse::<Device>().is_err(), "{text}");
        }
    }
}
