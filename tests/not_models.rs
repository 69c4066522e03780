//! Files that are no models, or models that nobody should run: CREATE MODEL says what they are, and never panics.

use std::path::Path;
use std::sync::Arc;

use datafusion::prelude::SessionContext;
use datafusion_predict::{ModelOptions, PredictExt, PredictRuntime, PredictSql};

fn session() -> SessionContext {
    SessionContext::new().with_predict(Arc::new(PredictRuntime::default()))
}

async fn refusal(context: &SessionContext, path: &Path) -> String {
    let sql = format!("CREATE MODEL m FROM '{}'", path.display());
    context.predict_sql(&sql).await.expect_err(&sql).to_string()
}

#[tokio::test]
async fn files_of_other_kinds_are_recognized() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("model.onnx");
    let context = session();
    for (content, expected) in [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 5\n".as_slice(), "git lfs pull"),
        (b"<!DOCTYPE html><html><body>Sign in</body></html>", "it is a page of a web site"),
        (b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03", "it is compressed with gzip"),
        (b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00", "it is a pickle of Python"),
        (b"PK\x03\x04\x00\x00", "it is a ZIP archive"),
        (b"{\"learner\": {}}", "it is JSON"),
        (b"", "the file is empty"),
        (b"id,age\n1,2\n", "it is a text"),
    ] {
        std::fs::write(&path, content).expect("room for it");
        let error = refusal(&context, &path).await;
        assert!(error.contains(expected), "{error}");
        assert!(error.contains("model.onnx"), "{error}");
    }
}

#[tokio::test]
async fn versions_that_nobody_knows_yet_are_refused_with_those_that_are_known() {
    let context = session();
    for (model, expected) in [
        ("opset99", "it is written in version 99 of the operators ai.onnx, the newest that is known is 28"),
        ("ml77", "it is written in version 77 of the operators ai.onnx.ml, the newest that is known is 5"),
        ("ir99", "it is written in version 99 of the ONNX format, the newest that is known is 14"),
    ] {
        let error = refusal(&context, Path::new(&format!("tests/models/queries/{model}.onnx"))).await;
        assert!(error.contains(expected), "{error}");
    }
}

#[tokio::test]
async fn a_byte_order_mark_is_skipped() {
    assert!(session().predict_sql("\u{feff}SELECT 1").await.is_ok());
}

/// Changes bytes of `model`: flips them, cuts the file, or puts a large number where one was.
fn damaged(model: &[u8], random: &mut fastrand::Rng) -> Vec<u8> {
    let mut bytes = model.to_vec();
    for _ in 0..random.usize(1..4) {
        let place = random.usize(..bytes.len());
        match random.u32(..8) {
            0 => bytes.truncate(place.max(1)),
            1 => bytes[place] = 0xff,
            2 => {
                // The greatest number of ten bytes, over what was there: lengths around it stay right.
                let end = (place + 9).min(bytes.len());
                bytes[place..end].fill(0xff);
                if let Some(last) = bytes.get_mut(end) {
                    *last = 1;
                }
            }
            3 => bytes[place] = bytes[place].wrapping_add(1),
            _ => bytes[place] ^= 1 << random.u32(..8),
        }
    }
    bytes
}

/// The whole way of CREATE MODEL, with overflow checks, as tests are built. `make fuzz` goes further.
#[tokio::test(flavor = "multi_thread")]
async fn damaged_models_are_refused_or_run() {
    let runtime = PredictRuntime::default();
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("model.onnx");
    let uri = path.to_str().expect("a path");
    let mut random = fastrand::Rng::with_seed(9);
    let models =
        ["types/struct3", "queries/linear", "queries/classes", "queries/zipmap", "queries/city", "types/fixed_batch"];
    let mut made = 0;
    for model in models {
        let model = std::fs::read(format!("tests/models/{model}.onnx")).expect("a model");
        for _ in 0..400 {
            std::fs::write(&path, damaged(&model, &mut random)).expect("room for it");
            match runtime.load("damaged", uri, vec![], ModelOptions::default(), "native").await {
                Ok(_) => made += 1,
                Err(error) => {
                    let text = error.to_string();
                    assert!(!text.contains("panicked"), "{text}: {:?}", std::fs::read(&path));
                }
            }
        }
    }
    assert!(made > 100, "only {made} were models still");
}
