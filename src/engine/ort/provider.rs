//! Devices as ONNX Runtime's execution providers.

use ort::ep::{self, ExecutionProviderDispatch};

use crate::engine::Device;

/// The provider for `device`; sessions fail if it can't be used.
pub(super) fn provider(device: Device) -> Option<ExecutionProviderDispatch> {
    let provider = match device {
        Device::Cpu | Device::Auto => return None, // always there, and last
        Device::Cuda(id) => ep::CUDA::default().with_device_id(id.into()).build(),
        Device::TensorRt(id) => ep::TensorRT::default().with_device_id(id.into()).build(),
        Device::OpenVino => ep::OpenVINO::default().build(),
        Device::CoreMl => ep::CoreML::default().build(),
        Device::DirectMl(id) => ep::DirectML::default().with_device_id(id.into()).build(),
        Device::WebGpu => ep::WebGPU::default().build(),
    };
    Some(provider.error_on_failure())
}

/// What `auto` tries before the CPU.
pub(super) fn candidates() -> Vec<Device> {
    if cfg!(target_os = "macos") {
        vec![Device::CoreMl]
    } else if cfg!(windows) {
        vec![Device::Cuda(0), Device::DirectMl(0)]
    } else {
        vec![Device::Cuda(0)]
    }
}
