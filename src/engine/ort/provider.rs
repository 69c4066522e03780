//! Devices as ONNX Runtime's execution providers.

use ort::ep::{self, ArbitrarilyConfigurableExecutionProvider, ExecutionProvider, ExecutionProviderDispatch};

use crate::engine::Device;

/// The provider for `device` with its `options`, of which later ones count; sessions fail if it can't be used.
pub(super) fn provider(device: Device, options: &[(String, String)]) -> Option<ExecutionProviderDispatch> {
    let provider = match device {
        Device::Cpu | Device::Auto => return None, // always there, and last
        Device::Cuda(id) => with(ep::CUDA::default().with_device_id(id.into()), options).build(),
        Device::TensorRt(id) => with(ep::TensorRT::default().with_device_id(id.into()), options).build(),
        Device::OpenVino => with(ep::OpenVINO::default(), options).build(),
        Device::CoreMl => with(ep::CoreML::default(), options).build(),
        Device::DirectMl(id) => ep::DirectML::default().with_device_id(id.into()).build(),
        Device::WebGpu => with(ep::WebGPU::default(), options).build(),
    };
    Some(provider.error_on_failure())
}

/// Options of `device`'s provider that are ours, unless others are given.
pub(super) fn defaults(device: Device) -> &'static [(&'static str, &'static str)] {
    match device {
        Device::Cuda(_) => &[
            // Products of floats are those of floats: with fewer digits, which is the provider's default, the score of a row depends on the
            // rows beside it.
            ("use_tf32", "0"),
            // The provider's default tries all algorithms anew for each number of rows.
            ("cudnn_conv_algo_search", "HEURISTIC"),
        ],
        _ => &[],
    }
}

fn with<P: ArbitrarilyConfigurableExecutionProvider>(provider: P, options: &[(String, String)]) -> P {
    options.iter().fold(provider, |provider, (name, value)| provider.with_arbitrary_config(name, value))
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

/// A device of the kind that the provider `name` is for, as ONNX Runtime names it.
pub(super) fn of_name(name: &str) -> Option<Device> {
    match name {
        "CUDAExecutionProvider" => Some(Device::Cuda(0)),
        "TensorrtExecutionProvider" => Some(Device::TensorRt(0)),
        "OpenVINOExecutionProvider" => Some(Device::OpenVino),
        "CoreMLExecutionProvider" => Some(Device::CoreMl),
        "DmlExecutionProvider" => Some(Device::DirectMl(0)),
        "WebGpuExecutionProvider" => Some(Device::WebGpu),
        _ => None,
    }
}

/// What `auto` tries before the CPU, after what plug-ins bring.
pub(super) fn candidates() -> Vec<Device> {
    if cfg!(target_os = "macos") {
        vec![Device::CoreMl]
    } else if cfg!(windows) {
        vec![Device::Cuda(0), Device::DirectMl(0)]
    } else {
        vec![Device::Cuda(0)]
    }
}
