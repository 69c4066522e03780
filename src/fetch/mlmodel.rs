//! The descriptions that MLflow puts beside the models that it logs.
//!
//! <https://mlflow.org/docs/latest/ml/model/>

#[cfg(feature = "mlflow")]
use serde::Deserialize;

use crate::error::Result;
#[cfg(feature = "mlflow")]
use crate::error::{bail, error};
#[cfg(feature = "mlflow")]
use crate::storage::redacted;

/// The file in a model's folder that describes it.
pub(super) const DESCRIPTION: &str = "MLmodel";

/// What an MLmodel says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Description {
    /// The ONNX file, from the folder.
    pub data: String,
    /// The columns of its signature; none if it has no signature, or one of tensors.
    pub features: Vec<String>,
}

/// Bytes of an MLmodel, at most.
pub(super) const LARGEST_DESCRIPTION: u64 = 16 << 20;

/// Reads an MLmodel; `uri` is for errors.
///
/// # Errors
/// What is no MLmodel, and a model that was not logged as ONNX.
#[cfg(feature = "mlflow")]
pub(super) fn read_description(uri: &str, text: &[u8]) -> Result<Description> {
    #[derive(Deserialize)]
    struct MlModel {
        flavors: std::collections::BTreeMap<String, serde_json::Value>,
        signature: Option<Signature>,
    }
    #[derive(Deserialize)]
    struct Signature {
        inputs: Option<String>,
    }
    #[derive(Deserialize)]
    struct Column {
        #[serde(rename = "type")]
        column_type: String,
        name: Option<String>,
    }
    let uri = redacted(uri);
    let model: MlModel = serde_saphyr::from_slice(text).map_err(|cause| {
        error!(InvalidModel, "'{uri}': its {DESCRIPTION} can't be read").with_source(cause.to_string())
    })?;
    let Some(onnx) = model.flavors.get("onnx") else {
        let flavors: Vec<_> = model.flavors.keys().map(String::as_str).collect();
        bail!(
            InvalidModel,
            "'{uri}' is an MLflow model without the flavor 'onnx', but with {}: log it with mlflow.onnx",
            flavors.join(", ")
        );
    };
    let data = onnx.get("data").and_then(|data| data.as_str()).unwrap_or("model.onnx").to_owned();
    let columns: Vec<Column> = match model.signature.and_then(|signature| signature.inputs) {
        Some(inputs) => serde_json::from_str(&inputs).map_err(|cause| {
            error!(InvalidModel, "'{uri}': the signature in its {DESCRIPTION} can't be read").with_source(cause)
        })?,
        None => vec![],
    };
    let named = columns.into_iter().map(|column| column.name.filter(|_| column.column_type != "tensor"));
    let features = named.collect::<Option<Vec<_>>>().unwrap_or_default();
    Ok(Description { data, features })
}

/// As above, where YAML can't be read.
///
/// # Errors
/// Always.
#[cfg(not(feature = "mlflow"))]
pub(super) fn read_description(uri: &str, _text: &[u8]) -> Result<Description> {
    Err(crate::storage::not_built_in(uri, "mlflow"))
}

#[cfg(all(test, feature = "mlflow"))]
mod tests {
    use super::*;

    #[test]
    fn descriptions_name_file_and_columns() {
        let text = r#"
flavors:
  onnx:
    data: sub/model.onnx
  python_function: {loader_module: mlflow.onnx}
signature:
  inputs: '[{"type": "double", "name": "age", "required": true}, {"type": "long", "name": "n"}]'
"#;
        let description = read_description("m", text.as_bytes()).expect("an MLmodel");
        assert_eq!(
            description,
            Description { data: "sub/model.onnx".into(), features: vec!["age".into(), "n".into()] }
        );
        let tensors = r#"{flavors: {onnx: {}}, signature: {inputs: '[{"type": "tensor", "name": "x"}]'}}"#;
        assert_eq!(read_description("m", tensors.as_bytes()).expect("an MLmodel").features, Vec::<String>::new());
        let error = read_description("m", b"flavors: {sklearn: {}}").expect_err("no ONNX").to_string();
        assert!(error.contains("without the flavor 'onnx', but with sklearn"), "{error}");
        // Aliases within aliases do not take the memory.
        let bomb =
            (0..40).fold("a0: &a0 [x]\n".to_owned(), |text, i| format!("{text}a{0}: &a{0} [*a{i}, *a{i}]\n", i + 1));
        assert!(read_description("m", bomb.as_bytes()).is_err());
    }
}
