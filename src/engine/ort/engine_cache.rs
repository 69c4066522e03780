//! Where TensorRT keeps the engines that it builds, so that the next process need not.

use std::fs;
use std::path::Path;

use datafusion_predict_native::Model;
use sha2::{Digest, Sha256};

use crate::engine::{Device, PrepareRequest};

/// Options by which TensorRT keeps the engines of `model` below `folder`, in a folder of their own for the model's file and outputs, the
/// device, the precision, the provider's `options` and the build of ONNX Runtime; TensorRT tells its own versions apart. None where that folder
/// can't be made: then it builds them anew in each process.
pub(super) fn options(
    folder: &Path,
    model: &Model,
    request: &PrepareRequest,
    options: &[(String, String)],
    build: &str,
) -> Vec<(String, String)> {
    let Device::TensorRt(number) = request.device else { return vec![] };
    let mut key = Sha256::new();
    let precision = request.precision.map(|precision| precision.to_string()).unwrap_or_default();
    let options = options.iter().flat_map(|(name, value)| [name.as_str(), value.as_str()]);
    let outputs = request.outputs.iter().map(String::as_str);
    for part in [model.sha256(), build, &precision].into_iter().chain(outputs).chain(["", "options"]).chain(options) {
        key.update(part.len().to_le_bytes());
        key.update(part);
    }
    let key: String = key.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    let folder = folder.join(format!("tensorrt-{number}-{key}"));
    if fs::create_dir_all(&folder).is_err() {
        return vec![];
    }
    let folder = folder.display().to_string();
    let switched_on = ["trt_engine_cache_enable", "trt_timing_cache_enable"].map(|name| (name, "1".to_owned()));
    let places = ["trt_engine_cache_path", "trt_timing_cache_path"].map(|name| (name, folder.clone()));
    switched_on.into_iter().chain(places).map(|(name, value)| (name.to_owned(), value)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder_of(root: &Path, device: Device, set: &[(&str, &str)], build: &str) -> Option<String> {
        let model = Model::read("tests/models/neural/diabetes_mlp.onnx").expect("a model");
        let request = PrepareRequest { device, outputs: vec!["variable".to_owned()], ..PrepareRequest::default() };
        let set: Vec<_> = set.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let found = options(root, &model, &request, &set, build);
        found.into_iter().find_map(|(name, value)| (name == "trt_engine_cache_path").then_some(value))
    }

    #[test]
    fn each_model_device_version_and_options_have_a_folder() {
        let root = tempfile::tempdir().expect("a folder");
        let of = |device, set: &[(&str, &str)], build| folder_of(root.path(), device, set, build);
        let first = of(Device::TensorRt(0), &[], "1.32").expect("a folder");
        assert!(Path::new(&first).is_dir());
        assert_eq!(of(Device::TensorRt(0), &[], "1.32"), Some(first.clone()), "the next process finds it");
        for other in [
            of(Device::TensorRt(1), &[], "1.32"),
            of(Device::TensorRt(0), &[("trt_fp16_enable", "1")], "1.32"),
            of(Device::TensorRt(0), &[], "1.33"),
        ] {
            assert!(other.is_some_and(|other| other != first));
        }
        assert_eq!(of(Device::Cuda(0), &[], "1.32"), None);
        let file = root.path().join("file");
        fs::write(&file, "").expect("written");
        assert_eq!(folder_of(&file, Device::TensorRt(0), &[], "1.32"), None, "no folder can be made there");
    }
}
