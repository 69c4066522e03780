//! What the files beside a graph say, where models of texts and of images have it alike.

use datafusion_predict_native::Model;
use serde_json::Value;

use crate::error::{Result, error};

/// The file `name` that stands beside `model`; null if there is none.
///
/// # Errors
/// A file that is no JSON.
pub(super) fn json(label: &str, model: &Model, name: &str) -> Result<Value> {
    let Some(bytes) = model.companion(name) else { return Ok(Value::Null) };
    let parsed = serde_json::from_slice(bytes);
    parsed.map_err(|cause| error!(InvalidModel, "model '{label}': its file '{name}' is no JSON").with_source(cause))
}

/// The number that stands there, if it is one.
pub(super) fn number(value: &Value) -> Option<usize> {
    value.as_u64().and_then(|number| usize::try_from(number).ok())
}

/// The names of the labels of a classifier, by `id2label` in its `config.json`.
pub(super) fn labels(config: &Value) -> Option<Vec<String>> {
    let Value::Object(labels) = &config["id2label"] else { return None };
    let named = labels.iter().filter_map(|(id, label)| Some((id.parse::<usize>().ok()?, label.as_str()?.to_owned())));
    let mut named: Vec<_> = named.collect();
    named.sort();
    let in_order = named.iter().enumerate().all(|(place, (id, _))| place == *id);
    in_order.then(|| named.into_iter().map(|(_, label)| label).collect())
}
