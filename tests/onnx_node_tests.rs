//! The node tests of ai.onnx.ml that the Python package `onnx` brings, run from where it is installed.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use datafusion::arrow::array::StringArray;
use datafusion_predict::{
    CoreBudget, ElementType, Engine, Model, NativeEngine, OrtEngine, PrepareRequest, Prepared, RunContext, Tensor,
    TensorData, onnxruntime_folder,
};
use prost::Message;

/// What the tests' inputs and outputs use of a `TensorProto`.
#[derive(Clone, PartialEq, Message)]
struct TensorProto {
    #[prost(int64, repeated, tag = "1")]
    dims: Vec<i64>,
    #[prost(int32, tag = "2")]
    data_type: i32,
    #[prost(bytes = "bytes", repeated, tag = "6")]
    string_data: Vec<Bytes>,
    #[prost(bytes = "bytes", optional, tag = "9")]
    raw_data: Option<Bytes>,
}

fn tensors(folder: &Path, kind: &str) -> Vec<Tensor> {
    let file = |i: usize| folder.join(format!("test_data_set_0/{kind}_{i}.pb"));
    let existing = (0..).map(file).take_while(|file| file.exists());
    existing.map(|file| tensor(&std::fs::read(file).expect("a file"))).collect()
}

/// What adds the initializer `tensor` to a model's graph when it follows the model's bytes.
fn constant(tensor: &[u8]) -> Vec<u8> {
    let field = |tag: u32, bytes: &[u8]| {
        let mut field = vec![];
        prost::encoding::encode_key(tag, prost::encoding::WireType::LengthDelimited, &mut field);
        prost::encoding::encode_varint(bytes.len() as u64, &mut field);
        [field, bytes.to_vec()].concat()
    };
    field(7, &field(5, tensor))
}

fn tensor(bytes: &[u8]) -> Tensor {
    let proto = TensorProto::decode(bytes).expect("a tensor");
    let shape = proto.dims.iter().map(|dim| *dim as usize).collect();
    let raw = proto.raw_data.unwrap_or_default();
    macro_rules! numbers {
        ($native:ty) => {
            raw.chunks_exact(size_of::<$native>())
                .map(|bytes| <$native>::from_le_bytes(bytes.try_into().expect("whole numbers")))
                .collect()
        };
    }
    let data = match ElementType::from_onnx(proto.data_type) {
        Some(ElementType::Float32) => TensorData::Float32(numbers!(f32)),
        Some(ElementType::Float64) => TensorData::Float64(numbers!(f64)),
        Some(ElementType::Int64) => TensorData::Int64(numbers!(i64)),
        Some(ElementType::Int16) => TensorData::Int16(numbers!(i16)),
        Some(ElementType::String) => {
            let texts = proto.string_data.iter().map(|text| String::from_utf8_lossy(text).into_owned());
            TensorData::String(StringArray::from_iter_values(texts.collect::<Vec<_>>()))
        }
        other => panic!("a tensor of {other:?}"),
    };
    Tensor { shape, data }
}

#[test]
fn every_node_test_of_ai_onnx_ml_passes() {
    let packages = onnxruntime_folder().expect("a home").with_file_name("onnx-1.18.0");
    let tests: PathBuf = packages.join("onnx/backend/test/data/node");
    assert!(tests.is_dir(), "there is no {}: `make onnx` puts the package there", tests.display());
    let engines: [Arc<dyn Engine>; 2] =
        [Arc::new(NativeEngine), Arc::new(OrtEngine::new(None, Arc::new(CoreBudget::default())))];
    let (mut count, mut native) = (0, 0);
    for folder in std::fs::read_dir(&tests).expect("a folder").flatten().map(|entry| entry.path()) {
        let name = folder.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        if !name.starts_with("test_ai_onnx_ml_") {
            continue;
        }
        let mut bytes = std::fs::read(folder.join("model.onnx")).expect("a file");
        let mut inputs = tensors(&folder, "input");
        if name == "test_ai_onnx_ml_array_feature_extractor" {
            // Which columns it picks is an input of its own there. Rows don't have that, so it becomes a constant.
            bytes.extend(constant(&std::fs::read(folder.join("test_data_set_0/input_1.pb")).expect("a file")));
            inputs.truncate(1);
        }
        let model = Model::from_bytes(&name, bytes.into()).expect("a model");
        let outputs = model.signature().outputs.iter().map(|output| output.name.clone()).collect();
        let declared = model.signature().inputs.clone();
        let request =
            PrepareRequest { label: name.clone(), inputs: declared, outputs, chosen: true, ..Default::default() };
        let loaded =
            engines.iter().find_map(|engine| match engine.prepare(&model, &request).expect("a model that loads") {
                Prepared::Ready(executable) => Some((engine.name(), executable)),
                Prepared::Refused(reason) => {
                    println!("{name} is not run by {}: {reason}", engine.name());
                    None
                }
            });
        let (engine, executable) = loaded.expect("an engine that runs it");
        let found = executable.run(&inputs, &RunContext::default()).expect("it runs");
        assert_eq!(found, tensors(&folder, "output"), "{name} by {engine}");
        count += 1;
        native += usize::from(engine == NativeEngine::NAME);
    }
    println!("{native} of {count} are run by our own engine");
    assert!(count >= 8 && native >= 8, "{native} of {count}");
}
