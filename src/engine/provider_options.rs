//! Options of ONNX Runtime's providers that a statement may set: `OPTIONS (device 'cuda:0', provider.use_tf32 true)`.
//!
//! What names a file, a library or an address is not among them: whoever may write SQL may not choose those. Neither are graphs of
//! recorded runs, which give the inputs of the first run to all others unless their memory is bound. An app sets them by
//! [`OrtEngine::with_provider_option`](crate::OrtEngine::with_provider_option).

use Values::{Number, OneOf, Switch, Words};

use super::Device;
use crate::error::{Result, bail, error};

/// The values of an option.
#[derive(Debug, Clone, Copy)]
enum Values {
    /// A number from 0 on.
    Number,
    /// On or off, which providers write as 1 and 0.
    Switch,
    /// The same as words: true and false.
    Words,
    /// One of these.
    OneOf(&'static [&'static str]),
}

const CUDA: &[(&str, Values)] = &[
    ("arena_extend_strategy", OneOf(&["kNextPowerOfTwo", "kSameAsRequested"])),
    ("cudnn_conv_algo_search", OneOf(&["EXHAUSTIVE", "HEURISTIC", "DEFAULT"])),
    ("cudnn_conv_use_max_workspace", Switch),
    ("cudnn_conv1d_pad_to_nc1d", Switch),
    ("do_copy_in_default_stream", Switch),
    ("enable_skip_layer_norm_strict_mode", Switch),
    ("fuse_conv_bias", Switch),
    ("gpu_mem_limit", Number),
    ("prefer_nhwc", Switch),
    ("sdpa_kernel", Number),
    ("use_tf32", Switch),
];

const TENSORRT: &[(&str, Values)] = &[
    ("trt_auxiliary_streams", Number),
    ("trt_bf16_enable", Switch),
    ("trt_build_heuristics_enable", Switch),
    ("trt_builder_optimization_level", Number),
    ("trt_context_memory_sharing_enable", Switch),
    ("trt_dla_core", Number),
    ("trt_dla_enable", Switch),
    ("trt_fp16_enable", Switch),
    ("trt_layer_norm_fp32_fallback", Switch),
    ("trt_max_partition_iterations", Number),
    ("trt_max_workspace_size", Number),
    ("trt_min_subgraph_size", Number),
    ("trt_sparsity_enable", Switch),
];

const OPENVINO: &[(&str, Values)] = &[
    ("device_type", OneOf(&["CPU", "GPU", "NPU", "AUTO"])),
    ("disable_dynamic_shapes", Words),
    ("enable_opencl_throttling", Words),
    ("enable_qdq_optimizer", Words),
    ("model_priority", OneOf(&["LOW", "MEDIUM", "HIGH", "DEFAULT"])),
    ("num_of_threads", Number),
    ("num_streams", Number),
    ("precision", OneOf(&["FP32", "FP16", "ACCURACY"])),
];

const CORE_ML: &[(&str, Values)] = &[
    ("AllowLowPrecisionAccumulationOnGPU", Switch),
    ("EnableOnSubgraphs", Switch),
    ("MLComputeUnits", OneOf(&["CPUOnly", "CPUAndNeuralEngine", "CPUAndGPU", "ALL"])),
    ("ModelFormat", OneOf(&["NeuralNetwork", "MLProgram"])),
    ("RequireStaticInputShapes", Switch),
    ("SpecializationStrategy", OneOf(&["Default", "FastPrediction"])),
];

const BUFFERS: Values = OneOf(&["disabled", "lazyRelease", "simple", "bucket"]);

const WEBGPU: &[(&str, Values)] = &[
    ("defaultBufferCacheMode", BUFFERS),
    ("preferredLayout", OneOf(&["NCHW", "NHWC"])),
    ("queryResolveBufferCacheMode", BUFFERS),
    ("storageBufferCacheMode", BUFFERS),
    ("uniformBufferCacheMode", BUFFERS),
    ("validationMode", OneOf(&["disabled", "wgpuOnly", "basic", "full"])),
];

/// The options of `device`'s provider.
fn known(device: Device) -> &'static [(&'static str, Values)] {
    match device {
        Device::Cuda(_) => CUDA,
        Device::TensorRt(_) => TENSORRT,
        Device::OpenVino => OPENVINO,
        Device::CoreMl => CORE_ML,
        Device::WebGpu => WEBGPU,
        Device::DirectMl(_) | Device::Cpu | Device::Auto => &[],
    }
}

/// The option `name` of `device`'s provider, in any case, and its value, as the provider writes them.
///
/// # Errors
/// An option that the provider does not have, or that no statement may set; a value that it does not take.
pub(crate) fn provider_option(device: Device, name: &str, value: &str) -> Result<(String, String)> {
    let known = known(device);
    if known.is_empty() {
        bail!(
            InvalidOption,
            "option 'provider.{name}' is for a device that is named and has such options, as in OPTIONS (device 'cuda:0', …): '{device}' has none"
        );
    }
    let Some((name, values)) = known.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)) else {
        let names: Vec<_> = known.iter().map(|(name, _)| *name).collect();
        let near = datafusion_predict_udfs::nearest(name, names.iter().copied());
        let near = near.map(|near| format!("; did you mean 'provider.{near}'?"));
        let near = near.unwrap_or_else(|| format!("; there are {}", names.join(", ")));
        bail!(InvalidOption, "device '{device}' has no option 'provider.{name}' that a statement may set{near}");
    };
    let wrong = |expected: &str| {
        error!(InvalidOption, "option 'provider.{name}' of device '{device}' is '{value}': expected {expected}")
    };
    let value = match values {
        Number => value.parse::<u64>().map_err(|_| wrong("a number from 0 on"))?.to_string(),
        Switch | Words => {
            let on = match value.to_lowercase().as_str() {
                "1" | "true" | "on" => true,
                "0" | "false" | "off" => false,
                _ => return Err(wrong("true or false")),
            };
            if matches!(values, Words) { on.to_string() } else { u8::from(on).to_string() }
        }
        OneOf(names) => match names.iter().find(|name| name.eq_ignore_ascii_case(value)) {
            Some(name) => (*name).to_owned(),
            None => return Err(wrong(&names.join(", "))),
        },
    };
    Ok(((*name).to_owned(), value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_written_as_the_provider_does() {
        let of = |device, name, value| provider_option(device, name, value).expect("an option");
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(of(Device::Cuda(1), "use_tf32", "true"), pair("use_tf32", "1"));
        assert_eq!(of(Device::WebGpu, "preferredlayout", "nhwc"), pair("preferredLayout", "NHWC"));
        assert_eq!(of(Device::OpenVino, "disable_dynamic_shapes", "1"), pair("disable_dynamic_shapes", "true"));
        assert_eq!(of(Device::TensorRt(0), "trt_max_workspace_size", "1024"), pair("trt_max_workspace_size", "1024"));
    }

    #[test]
    fn what_is_not_known_or_no_statement_may_set_is_refused() {
        let problem = |device, name, value| provider_option(device, name, value).expect_err("refused").to_string();
        for (device, name) in [
            (Device::TensorRt(0), "trt_extra_plugin_lib_paths"),
            (Device::TensorRt(0), "trt_engine_cache_path"),
            (Device::Cuda(0), "user_compute_stream"),
            (Device::Cuda(0), "gpu_external_alloc"),
            (Device::Cuda(0), "device_id"),
            (Device::OpenVino, "cache_dir"),
            (Device::WebGpu, "dawnProcTable"),
            (Device::WebGpu, "enableGraphCapture"),
            (Device::TensorRt(0), "trt_cuda_graph_enable"),
        ] {
            assert!(problem(device, name, "1").contains("that a statement may set"), "{name}");
        }
        assert!(problem(Device::Cuda(0), "use_tf23", "1").ends_with("did you mean 'provider.use_tf32'?"));
        assert!(problem(Device::Cuda(0), "use_tf32", "maybe").ends_with("is 'maybe': expected true or false"));
        assert!(problem(Device::Cuda(0), "gpu_mem_limit", "-1").ends_with("expected a number from 0 on"));
        let choice = problem(Device::Cuda(0), "cudnn_conv_algo_search", "fast");
        assert!(choice.ends_with("expected EXHAUSTIVE, HEURISTIC, DEFAULT"), "{choice}");
        assert!(problem(Device::Cpu, "use_tf32", "1").contains("'cpu' has none"));
    }
}
