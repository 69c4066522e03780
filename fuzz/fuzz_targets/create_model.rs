//! Any bytes as a file: CREATE MODEL refuses them, or makes a model that has run on made-up rows.

#![no_main]

use std::sync::OnceLock;

use datafusion_predict::{ModelOptions, PredictRuntime};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    static RUNTIME: OnceLock<(tokio::runtime::Runtime, PredictRuntime, tempfile::TempDir)> = OnceLock::new();
    let (workers, predict, folder) = RUNTIME.get_or_init(|| {
        let workers = tokio::runtime::Runtime::new().expect("threads");
        (workers, PredictRuntime::default(), tempfile::tempdir().expect("a folder"))
    });
    let path = folder.path().join("model.onnx");
    std::fs::write(&path, bytes).expect("room for it");
    let uri = path.to_str().expect("a path");
    let created = workers.block_on(predict.load("fuzzed", uri, vec![], ModelOptions::default(), "native"));
    if let Err(error) = created {
        let text = error.to_string();
        assert!(!text.contains("panicked"), "{text}");
    }
});
