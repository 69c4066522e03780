//! Models as rows: `SHOW MODELS`, `DESCRIBE MODEL`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use datafusion::arrow::array::{ArrayRef, BooleanArray, RecordBatch, StringArray, UInt64Array};
use datafusion::common::Result as DFResult;

use super::tables;
use crate::catalog::{CatalogSnapshot, ModelEntry, ModelVersion, TensorNote};
use crate::error::Result;
use crate::runtime::CreateModel;
use crate::runtime::PredictRuntime;
use crate::scoring::Predictor;

fn strings(values: impl IntoIterator<Item = String>) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(values))
}

fn notes(notes: &[TensorNote]) -> String {
    let notes: Vec<_> = notes.iter().map(|note| format!("{} {}", note.name, note.tensor_type)).collect();
    notes.join(", ")
}

/// One row for each model. Engine and device are known of what is loaded.
pub(super) fn models(runtime: &PredictRuntime) -> DFResult<RecordBatch> {
    let snapshot = runtime.catalog().snapshot();
    let traffic = snapshot.models().map(|model| model.traffic.as_ref().map(ToString::to_string));
    let traffic: ArrayRef = Arc::new(traffic.collect::<StringArray>());
    let models: Vec<_> = snapshot.models().filter_map(|model| model.default_version()).collect();
    let loaded: Vec<_> = models.iter().map(|version| runtime.registry().peek(version)).collect();
    let each = |value: fn(&ModelVersion) -> String| strings(models.iter().map(|model| value(model)));
    let known = |value: fn(&Predictor) -> String| -> ArrayRef {
        Arc::new(loaded.iter().map(|model| model.as_deref().map(value)).collect::<StringArray>())
    };
    let versions: ArrayRef = Arc::new(models.iter().map(|model| Some(model.version)).collect::<UInt64Array>());
    Ok(RecordBatch::try_from_iter([
        ("name", each(|model| model.model.clone())),
        ("version", versions),
        ("traffic", traffic),
        ("inputs", each(|model| notes(&model.interface.inputs))),
        ("outputs", each(|model| notes(&model.interface.outputs))),
        ("engine", known(|predictor| predictor.engine().to_owned())),
        ("device", known(|predictor| predictor.device())),
        ("uri", each(|model| model.record.uri.clone())),
    ])?)
}

/// The row that `CREATE MODEL` gives: what was made, and what to know about it. Where `create` has made nothing, since the
/// name was taken, it is about the version that `before` stands for.
///
/// Columns may be added by later releases, which rename none.
pub(super) fn created(
    runtime: &PredictRuntime,
    create: &CreateModel,
    before: Option<&ModelVersion>,
    created: Option<&ModelVersion>,
) -> DFResult<RecordBatch> {
    let version = created.or(before);
    let loaded = version.and_then(|version| runtime.registry().peek(version));
    let mut notes = vec![];
    if created.is_none() {
        notes.push("there is such a model already".to_owned());
    }
    if let (Some(created), Some(before)) = (created, before) {
        let types = (before.interface.returns.as_ref(), created.interface.returns.as_ref());
        if let (Some(was), Some(is)) = types
            && was != is
        {
            notes.push(format!("its calls give {is}, those of version {} were planned with {was}", before.version));
        }
    }
    if !create.options.validate && created.is_some() {
        notes.push("it has not run yet: the types are those that the file declares".to_owned());
    }
    notes.extend(loaded.iter().flat_map(|predictor| predictor.notes()));
    let text = |value: Option<String>| -> ArrayRef { Arc::new(StringArray::from_iter([value])) };
    let number = |value: Option<u64>| -> ArrayRef { Arc::new(UInt64Array::from_iter([value])) };
    let returns = version.and_then(|version| version.interface.returns.clone());
    Ok(RecordBatch::try_from_iter([
        ("name", text(Some(create.name.clone()))),
        ("version", number(version.map(|version| version.version))),
        ("engine", text(loaded.as_ref().map(|predictor| predictor.engine().to_owned()))),
        ("device", text(loaded.as_ref().map(|predictor| predictor.device()))),
        ("result_type", text(returns)),
        ("rows_independent", Arc::new(BooleanArray::from_iter([loaded.as_ref().and_then(|it| it.rows_independent())]))),
        ("batch_size", number(loaded.as_ref().map(|predictor| predictor.batch_size() as u64))),
        ("row_cost", text(loaded.as_ref().and_then(|it| it.row_cost()).map(in_words))),
        ("note", text((!notes.is_empty()).then(|| notes.join("; ")))),
    ])?)
}

/// `152 ns`, `1.3 ms`
fn in_words(time: Duration) -> String {
    let nanoseconds = time.as_nanos() as f64;
    let (unit, size) = match nanoseconds {
        ..1e3 => return format!("{nanoseconds} ns"),
        ..1e6 => ("µs", 1e3),
        ..1e9 => ("ms", 1e6),
        _ => ("s", 1e9),
    };
    format!("{:.1} {unit}", nanoseconds / size)
}

/// One row for each version of `model`; `predict.versions` has more of them.
pub(super) fn versions(model: &Arc<ModelEntry>, runtime: &PredictRuntime) -> DFResult<RecordBatch> {
    let all = tables::versions(tables::of_model(model), runtime)?;
    let columns = ["version", "aliases", "created_at", "created_by", "comment", "tags", "uri"];
    let places = columns.iter().map(|name| all.schema().index_of(name)).collect::<Result<Vec<_>, _>>()?;
    Ok(all.project(&places)?)
}

/// One row for each thing to know of a version, as the engine that the session chose runs it; if that can't, why.
pub(super) fn model(
    snapshot: &CatalogSnapshot,
    version: &ModelVersion,
    loaded: Result<Arc<Predictor>>,
) -> DFResult<RecordBatch> {
    let mut rows: Vec<(&str, String, String)> = vec![];
    let mut row = |kind, name: &str, value: String| rows.push((kind, name.to_owned(), value));
    let ModelVersion { record, interface, .. } = version;
    row("model", "name", version.model.clone());
    row("model", "version", version.version.to_string());
    if let Some(model) = snapshot.get(&version.model) {
        let aliases: Vec<_> = model.aliases_of(version.version).collect();
        if !aliases.is_empty() {
            row("model", "aliases", aliases.join(", "));
        }
        if let Some(traffic) = &model.traffic {
            row("model", "traffic", traffic.to_string());
        }
        if let Some(comment) = version.comment.as_ref().or(model.comment.as_ref()) {
            row("model", "comment", comment.clone());
        }
        for (tag, value) in model.tags.iter().chain(&version.tags) {
            row("tag", tag, value.clone());
        }
    }
    row("model", "uri", record.uri.clone());
    if record.copied {
        row("model", "copied", "true".to_owned());
    }
    row("model", "sha256", record.sha256.clone());
    row("model", "size", record.size.to_string());
    row("model", "producer", record.producer.clone());
    row("model", "opset", record.opset.clone());
    let predictor = match loaded {
        Ok(predictor) => predictor,
        Err(error) => {
            // What was recorded is all there is to know.
            for input in &interface.inputs {
                row("input", &input.name, input.tensor_type.clone());
            }
            for (i, feature) in interface.features.iter().enumerate() {
                if let Some(name) = &feature.name {
                    row("feature", name, format!("argument {}: {}", i + 1, feature.value_type));
                }
            }
            for output in &interface.outputs {
                row("output", &output.name, output.tensor_type.clone());
            }
            if let Some(returns) = &interface.returns {
                row("call", "returns", returns.clone());
            }
            row("call", "engine", format!("none: {error}"));
            return table(&rows);
        }
    };
    let model = predictor.model();
    let metadata = model.metadata();
    if !metadata.doc.is_empty() {
        row("model", "doc", metadata.doc.clone());
    }
    for (key, value) in &metadata.properties {
        row("metadata", key, value.clone());
    }
    for input in &predictor.signature().inputs {
        row("input", &input.name, input.type_line());
    }
    // Those that no other line tells.
    let options = BTreeMap::<String, String>::from(predictor.options().clone());
    const TOLD: [&str; 6] = ["output", "class", "on_null", "batch_size", "device", "labels"];
    for (name, value) in options.iter().filter(|(name, _)| !TOLD.contains(&name.as_str())) {
        row("option", name, value.clone());
    }
    for (i, feature) in predictor.call().features().unwrap_or_default().iter().enumerate() {
        let value_type = interface.features.get(i).map_or("", |feature| &feature.value_type);
        row("feature", feature, format!("argument {}: {value_type}", i + 1));
    }
    for output in &predictor.signature().outputs {
        row("output", &output.name, output.type_line());
        let given = predictor.options().labels.as_ref().and_then(|labels| labels.names());
        let classes = match given {
            Some(names) => Some(names.join(", ")),
            None => model.class_labels(&output.name).map(|classes| classes.to_string()),
        };
        if let Some(classes) = classes {
            row("classes", &output.name, classes);
        }
    }
    if let Some(output) = &predictor.options().output {
        row("call", "output", output.clone());
    }
    if let Some(class) = &predictor.options().class {
        row("call", "class", class.clone());
    }
    row("call", "returns", predictor.call().returns().to_string());
    row("call", "on_null", predictor.null_policy().to_string());
    row("call", "batch_size", predictor.batch_size().to_string());
    row("call", "engine", predictor.engine().to_owned());
    row("call", "device", predictor.device());
    if let Some(nodes) = predictor.nodes() {
        row("call", "nodes on device", nodes);
    }
    row("call", "known devices", predictor.devices().join(", "));
    // A model that was loaded later was tried less.
    let ready = record.ready.as_ref();
    if let Some(independent) = predictor.rows_independent().or(ready.and_then(|ready| ready.rows_independent)) {
        row("call", "rows independent", independent.to_string());
    }
    for note in ready.map_or_else(|| predictor.notes(), |ready| ready.notes.clone()) {
        row("call", "note", note);
    }
    for refusal in predictor.refusals() {
        row("call", "not run by", refusal.clone());
    }
    row("call", "bytes in memory", predictor.memory().to_string());
    table(&rows)
}

fn table(rows: &[(&str, String, String)]) -> DFResult<RecordBatch> {
    Ok(RecordBatch::try_from_iter([
        ("kind", strings(rows.iter().map(|(kind, _, _)| (*kind).to_owned()))),
        ("name", strings(rows.iter().map(|(_, name, _)| name.clone()))),
        ("value", strings(rows.iter().map(|(_, _, value)| value.clone()))),
    ])?)
}
