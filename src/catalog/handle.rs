//! The handle by which a plan holds a model.

use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use datafusion::arrow::datatypes::DataType;
use serde::{Deserialize, Serialize};

use super::{Interface, ModelVersion, VersionRecord};
use crate::call::{CallSignature, ModelOptions, NullPolicy};
use crate::engine;
#[cfg(feature = "proto")]
use crate::error::{Result, error};
#[cfg(feature = "proto")]
use crate::storage::absolute;

/// One version of a model as plans hold it: which file it is, how it is called, and by which engine it is to run.
///
/// A handle is a value. It is compared and hashed by what it says, can be sent to another process, and says all that
/// planning needs: no model is loaded and no network asked to plan a query. Which memory and which engine serve it is
/// decided where it is run.
///
/// It holds no credentials: where a file can't be read without, the process that runs it must have them.
#[derive(Debug, Clone)]
pub struct ModelHandle {
    name: String,
    version: Option<u64>,
    label: String,
    record: Arc<VersionRecord>,
    interface: Arc<Interface>,
    engine: String,
    /// Read from the interface.
    call: CallSignature,
}

/// Engine, device and batch size of a version when it was first made ready to run, by which EXPLAIN shows it before it is
/// loaded.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Readiness {
    /// The engine that was asked for: `auto`, or one by its name.
    pub chosen: String,
    /// The engine that took it.
    pub engine: String,
    /// The device on which it ran: `cpu`, `cuda:0`.
    pub device: String,
    /// How many of its nodes ran there, of how many: `9 of 11`; where the engine says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nodes: Option<String>,
    /// Rows for each run.
    pub batch_size: usize,
    /// Why engines that come before do not run it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_run_by: Vec<String>,
    /// Whether the model gives a prediction for any row of numbers; one that looks something up by a value may refuse a row.
    #[serde(default)]
    pub takes_any_row: bool,
    /// Whether rows were scored independently of each other, if that could be seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows_independent: Option<bool>,
    /// What was unusual about the model's rows, in words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

impl ModelHandle {
    /// The engine choice that leaves it to the model.
    pub const AUTO: &str = engine::AUTO;

    /// The handle of a catalog's version, to be run by `engine`; `None` if its interface does not tell the types of its
    /// calls.
    pub(crate) fn of_version(version: &ModelVersion, interface: Arc<Interface>, engine: &str) -> Option<Self> {
        let record = version.record.clone();
        Self::new(version.model.clone(), Some(version.version), record, interface, engine.to_owned())
    }

    /// A handle from its parts. A function made of a model has no `version`.
    pub(crate) fn new(
        name: String,
        version: Option<u64>,
        record: Arc<VersionRecord>,
        interface: Arc<Interface>,
        engine: String,
    ) -> Option<Self> {
        let call = interface.call_signature()?;
        let label = match version {
            Some(version) => format!("{name}/{version}"),
            None => name.clone(),
        };
        Some(Self { name, version, label, record, interface, engine, call })
    }

    /// The handle as text, for another process. Paths are absolute; there are no credentials in it.
    ///
    /// # Errors
    /// None that is known: what a handle holds can be written.
    #[cfg(feature = "proto")]
    pub(crate) fn to_json(&self) -> Result<String> {
        let uri = absolute(&self.record.uri);
        let record = VersionRecord { uri, ..self.record.as_ref().clone() };
        let Self { name, version, interface, engine, .. } = self;
        let text = Text {
            name: name.clone(),
            version: *version,
            record,
            interface: interface.as_ref().clone(),
            engine: engine.clone(),
        };
        serde_json::to_string(&text)
            .map_err(|cause| error!(InvalidStatement, "model '{}' can't be written", self.label).with_source(cause))
    }

    /// The handle that [`to_json`](Self::to_json) wrote, maybe in another process.
    ///
    /// # Errors
    /// Another text, and one of a later release.
    #[cfg(feature = "proto")]
    pub(crate) fn from_json(text: &str) -> Result<Self> {
        let unreadable = || error!(InvalidStatement, "the model of a plan that was sent here can't be read");
        let Text { name, version, record, interface, engine } =
            serde_json::from_str(text).map_err(|cause| unreadable().with_source(cause))?;
        // What others wrote is not trusted with paths.
        if !record.is_sound() {
            return Err(unreadable());
        }
        Self::new(name, version, Arc::new(record), Arc::new(interface), engine).ok_or_else(unreadable)
    }

    /// The same version, to be run by `engine`, or by the first that can if that is `auto`.
    #[must_use]
    pub fn with_engine(&self, engine: &str) -> Self {
        Self { engine: engine.to_owned(), ..self.clone() }
    }

    /// The model's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The version's number; none of a function that was made of a file.
    pub fn version(&self) -> Option<u64> {
        self.version
    }

    /// Name and version as plans and errors show them: `churn/3`.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// Which file it is, and the options of its calls.
    pub fn record(&self) -> &Arc<VersionRecord> {
        &self.record
    }

    /// Its features and outputs.
    pub fn interface(&self) -> &Arc<Interface> {
        &self.interface
    }

    /// The engine that is to run it, or `auto`.
    pub fn engine(&self) -> &str {
        &self.engine
    }

    /// The type of a prediction.
    pub fn return_type(&self) -> &DataType {
        self.call.returns()
    }

    pub(crate) fn call(&self) -> &CallSignature {
        &self.call
    }

    /// Engine, device and batch size as the catalog recorded them, if the version was made for the engine of this handle.
    pub fn readiness(&self) -> Option<&Readiness> {
        let same = |ready: &&Readiness| ready.chosen == self.engine || ready.engine == self.engine;
        self.record.ready.as_ref().filter(same)
    }

    /// Whether the model may refuse a row whose arguments have these types; true where that is not known.
    pub(crate) fn may_refuse_rows(&self, types: &[DataType]) -> bool {
        let always_convertible = types.iter().all(|found| found.is_numeric() || *found == DataType::Boolean);
        let takes_any_row = self.record.ready.as_ref().is_some_and(|ready| ready.takes_any_row);
        !always_convertible || self.record.options.on_null == Some(NullPolicy::Error) || !takes_any_row
    }

    /// Metadata for the field of a prediction: the model, its version and the hash of its file.
    pub(crate) fn provenance(&self) -> HashMap<String, String> {
        let mut says = HashMap::from([
            ("predict.model".to_owned(), self.name.clone()),
            ("predict.sha256".to_owned(), self.record.sha256.clone()),
        ]);
        says.extend(self.version.map(|version| ("predict.version".to_owned(), version.to_string())));
        says
    }

    /// What makes two handles the same, beside the interface. Where the catalog holds the file, it does not matter where it
    /// came from, nor what was seen when it was first run.
    fn identity(&self) -> (&str, &str, &str, &ModelOptions, bool, Option<&str>) {
        let VersionRecord { sha256, options, names_given, copied, uri, .. } = self.record.as_ref();
        let uri = (!copied).then_some(uri.as_str());
        (&self.label, sha256, &self.engine, options, *names_given, uri)
    }
}

/// A handle as it is sent.
#[cfg(feature = "proto")]
#[derive(Serialize, Deserialize)]
struct Text {
    name: String,
    version: Option<u64>,
    record: VersionRecord,
    interface: Interface,
    engine: String,
}

impl PartialEq for ModelHandle {
    fn eq(&self, other: &Self) -> bool {
        self.identity() == other.identity() && self.interface == other.interface
    }
}

impl Eq for ModelHandle {}

impl Hash for ModelHandle {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (&self.label, &self.record.sha256, &self.engine).hash(state);
    }
}
