//! Models as tables: `SHOW MODELS`, `DESCRIBE MODEL`.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, RecordBatch, StringArray, UInt64Array};
use datafusion::common::Result as DFResult;
use datafusion_predict_udfs::ScoringModel;

use crate::catalog::{CatalogSnapshot, ModelVersion};
use crate::model::{NullPolicy, TensorSpec};

fn strings(values: impl IntoIterator<Item = String>) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(values))
}

fn specs(specs: &[TensorSpec]) -> String {
    specs.iter().map(TensorSpec::to_string).collect::<Vec<_>>().join(", ")
}

/// One row for each model.
pub(super) fn models(snapshot: &CatalogSnapshot) -> DFResult<RecordBatch> {
    let models: Vec<_> = snapshot.models().collect();
    let each = |value: fn(&ModelVersion) -> String| strings(models.iter().map(|model| value(model)));
    let versions: ArrayRef = Arc::new(models.iter().map(|model| Some(model.version)).collect::<UInt64Array>());
    Ok(RecordBatch::try_from_iter([
        ("name", each(|model| model.name.clone())),
        ("version", versions),
        ("inputs", each(|model| specs(&model.predictor.signature().inputs))),
        ("outputs", each(|model| specs(&model.predictor.signature().outputs))),
        ("engine", each(|model| model.predictor.engine().to_owned())),
        ("device", each(|model| model.predictor.device())),
        ("uri", each(|model| model.predictor.model().uri().to_owned())),
    ])?)
}

/// One row for each thing to know of a model, as the engine that the session chose runs it; if that can't, why.
pub(super) fn model(version: &ModelVersion, engine: &str) -> DFResult<RecordBatch> {
    let chosen = version.predictor.by_engine(engine);
    let predictor = chosen.as_ref().unwrap_or(&version.predictor);
    let model = predictor.model();
    let metadata = model.metadata();
    let mut rows: Vec<(&str, String, String)> = vec![];
    let mut row = |kind, name: &str, value: String| rows.push((kind, name.to_owned(), value));
    row("model", "name", version.name.clone());
    row("model", "version", version.version.to_string());
    row("model", "uri", model.uri().to_owned());
    row("model", "sha256", model.sha256().to_owned());
    row("model", "size", model.size().to_string());
    row("model", "producer", metadata.producer.clone());
    row("model", "opset", metadata.opsets_line());
    if !metadata.doc.is_empty() {
        row("model", "doc", metadata.doc.clone());
    }
    for (key, value) in &metadata.properties {
        row("metadata", key, value.clone());
    }
    for input in &predictor.signature().inputs {
        row("input", &input.name, type_of(input));
    }
    for (i, feature) in predictor.feature_names().unwrap_or_default().iter().enumerate() {
        row("feature", feature, format!("argument {}", i + 1));
    }
    for output in &predictor.signature().outputs {
        row("output", &output.name, type_of(output));
        if let Some(classes) = model.class_labels(&output.name) {
            row("classes", &output.name, classes.to_string());
        }
    }
    if let Some(output) = &predictor.options().output {
        row("call", "output", output.clone());
    }
    if let Some(class) = &predictor.options().class {
        row("call", "class", class.clone());
    }
    row("call", "returns", predictor.return_type().to_string());
    let on_null = match predictor.null_policy() {
        NullPolicy::Null => "null",
        NullPolicy::Nan => "nan",
        NullPolicy::Error => "error",
    };
    row("call", "on_null", on_null.to_owned());
    row("call", "batch_size", predictor.batch_size().to_string());
    if let Err(error) = &chosen {
        row("call", "engine", format!("none: {error}"));
    } else {
        row("call", "engine", predictor.engine().to_owned());
        row("call", "device", predictor.device());
        for refusal in predictor.refusals() {
            row("call", "not run by", refusal.clone());
        }
    }
    if let Some(size) = predictor.size_in_memory() {
        row("call", "bytes in memory", size.to_string());
    }
    Ok(RecordBatch::try_from_iter([
        ("kind", strings(rows.iter().map(|(kind, _, _)| (*kind).to_owned()))),
        ("name", strings(rows.iter().map(|(_, name, _)| name.clone()))),
        ("value", strings(rows.iter().map(|(_, _, value)| value.clone()))),
    ])?)
}

fn type_of(spec: &TensorSpec) -> String {
    let shape: Vec<_> = spec.shape.iter().map(ToString::to_string).collect();
    format!("{}[{}]", spec.element, shape.join(","))
}
