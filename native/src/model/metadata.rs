//! What a model's file says about itself.

use super::proto::ModelProto;

/// Producer, operator sets and documentation of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metadata {
    /// The tool that wrote the file, with its version.
    pub producer: String,
    /// Version of the ONNX format.
    pub ir_version: i64,
    /// Operator sets: domain (`ai.onnx` for the default) and version, each once.
    pub opsets: Vec<(String, i64)>,
    /// The model's documentation.
    pub doc: String,
    /// Further entries of the file's metadata.
    pub properties: Vec<(String, String)>,
}

impl Metadata {
    pub(super) fn of(proto: &ModelProto) -> Self {
        let mut opsets: Vec<_> = proto
            .opset_import
            .iter()
            .map(|set| (if set.domain.is_empty() { "ai.onnx".to_owned() } else { set.domain.clone() }, set.version))
            .collect();
        opsets.sort();
        opsets.dedup();
        let mut properties: Vec<_> =
            proto.metadata().into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        properties.sort();
        Self {
            producer: format!("{} {}", proto.producer_name, proto.producer_version).trim().to_owned(),
            ir_version: proto.ir_version.unwrap_or_default(),
            opsets,
            doc: proto.doc_string.clone(),
            properties,
        }
    }

    /// The operator sets in one line: `ai.onnx 17, ai.onnx.ml 1`.
    pub fn opsets_line(&self) -> String {
        let sets: Vec<_> = self.opsets.iter().map(|(domain, version)| format!("{domain} {version}")).collect();
        sets.join(", ")
    }
}
