//! Devices as ONNX Runtime's execution providers.

use ort::ep::cuda::ConvAlgorithmSearch;
use ort::ep::{self, ExecutionProvider, ExecutionProviderDispatch};

use crate::engine::Device;

/// The provider for `device`; sessions fail if it can't be used.
pub(super) fn provider(device: Device) -> Option<ExecutionProviderDispatch> {
    let provider = match device {
        Device::Cpu | Device::Auto => return None, // always there, and last
        // Products of floats are those of floats: with fewer digits, which is the provider's default, the score of a row depends
        // on the rows beside it.
        Device::Cuda(id) => ep::CUDA::default()
            .with_device_id(id.into())
            .with_tf32(false)
            // The default tries all algorithms anew for each number of rows.
            .with_conv_algorithm_search(ConvAlgorithmSearch::Heuristic)
            .build(),
        Device::TensorRt(id) => ep::TensorRT::default().with_device_id(id.into()).build(),
        Device::OpenVino => ep::OpenVINO::default().build(),
        Device::CoreMl => ep::CoreML::default().build(),
        Device::DirectMl(id) => ep::DirectML::default().with_device_id(id.into()).build(),
        Device::WebGpu => ep::WebGPU::default().build(),
    };
    Some(provider.error_on_failure())
}

/// The kinds of devices that the loaded library was built for.
pub(super) fn available() -> Vec<&'static str> {
    fn is_there<Provider: ExecutionProvider>() -> bool {
        Provider::is_available().unwrap_or(false)
    }
    let providers = [
        ("cpu", true),
        ("cuda", is_there::<ep::CUDA>()),
        ("tensorrt", is_there::<ep::TensorRT>()),
        ("openvino", is_there::<ep::OpenVINO>()),
        ("coreml", is_there::<ep::CoreML>()),
        ("directml", is_there::<ep::DirectML>()),
        ("webgpu", is_there::<ep::WebGPU>()),
    ];
    providers.into_iter().filter(|(_, there)| *there).map(|(name, _)| name).collect()
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
