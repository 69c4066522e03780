//! The state of a catalog after a number of commits, in one file.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::commit::FORMAT;
use super::{CatalogSnapshot, Interface, ModelEntry, ModelVersion, Traffic, VersionRecord};
use crate::error::{Result, bail, error};
use crate::storage::journal::Formatted;

/// A checkpoint's file. Interfaces, which most versions of a model share, stand in it once.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Checkpoint {
    format: u32,
    sequence: u64,
    /// The time of the last commit.
    at: i64,
    interfaces: Vec<Interface>,
    models: Vec<Model>,
    /// Only who asks for the history reads it.
    history: Box<RawValue>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Model {
    name: String,
    last_version: u64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    served: Vec<u64>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    aliases: BTreeMap<String, u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    comment: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    tags: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    traffic: Option<Traffic>,
    versions: Vec<Version>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Version {
    version: u64,
    at: i64,
    by: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    comment: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    tags: BTreeMap<String, String>,
    record: VersionRecord,
    /// The interface's place among the checkpoint's.
    interface: usize,
}

impl Formatted for Checkpoint {
    const NEWEST: u32 = FORMAT;

    fn format(&self) -> u32 {
        self.format
    }
}

impl Checkpoint {
    /// Of `snapshot`, whose `history` is an array in JSON.
    pub(super) fn new(snapshot: &CatalogSnapshot, history: &str, at: i64) -> Result<Self> {
        let mut interfaces = vec![];
        let mut places: HashMap<Arc<Interface>, usize> = HashMap::new();
        let mut place = |interface: &Arc<Interface>| {
            *places.entry(interface.clone()).or_insert_with(|| {
                interfaces.push(interface.as_ref().clone());
                interfaces.len() - 1
            })
        };
        let models = snapshot.models.values().map(|model| Model {
            name: model.name.clone(),
            last_version: model.last_version,
            served: model.served.clone(),
            aliases: model.aliases.clone(),
            comment: model.comment.clone(),
            tags: model.tags.clone(),
            traffic: model.traffic.clone(),
            versions: model
                .versions
                .values()
                .map(|version| Version {
                    version: version.version,
                    at: version.created_at,
                    by: version.created_by.clone(),
                    comment: version.comment.clone(),
                    tags: version.tags.clone(),
                    record: version.record.as_ref().clone(),
                    interface: place(&version.interface),
                })
                .collect(),
        });
        let models = models.collect();
        let history = RawValue::from_string(history.to_owned())
            .map_err(|cause| error!(InvalidCatalog, "the history is damaged").with_source(cause))?;
        Ok(Self { format: FORMAT, sequence: snapshot.sequence, at, interfaces, models, history })
    }

    /// The snapshot, the history as it stands here, and the time of the last commit; `place` is for errors.
    pub(super) fn into_parts(self, place: &str) -> Result<(CatalogSnapshot, Arc<str>, i64)> {
        let interfaces: Vec<_> = self.interfaces.into_iter().map(Arc::new).collect();
        let mut models = BTreeMap::new();
        for model in self.models {
            let mut versions = BTreeMap::new();
            for version in model.versions {
                let Some(interface) = interfaces.get(version.interface).cloned() else {
                    bail!(InvalidCatalog, "{place} is damaged: there is no interface {}", version.interface);
                };
                if !version.record.is_sound() {
                    bail!(InvalidCatalog, "{place} is damaged: version {} of '{}'", version.version, model.name);
                }
                let number = version.version;
                let version = ModelVersion {
                    model: model.name.clone(),
                    version: number,
                    created_at: version.at,
                    created_by: version.by,
                    record: Arc::new(version.record),
                    interface,
                    comment: version.comment,
                    tags: version.tags,
                };
                versions.insert(number, Arc::new(version));
            }
            let entry = ModelEntry {
                name: model.name.clone(),
                last_version: model.last_version,
                versions,
                served: model.served,
                aliases: model.aliases,
                comment: model.comment,
                tags: model.tags,
                traffic: model.traffic,
            };
            models.insert(model.name, Arc::new(entry));
        }
        Ok((CatalogSnapshot { sequence: self.sequence, models }, self.history.get().into(), self.at))
    }
}
