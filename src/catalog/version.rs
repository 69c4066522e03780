//! What a catalog knows of a model and of each of its versions.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Interface;
use super::handle::Readiness;
use crate::call::ModelOptions;
use crate::storage::relative;

/// The alias that a bare name stands for.
pub const DEFAULT_ALIAS: &str = "default";

/// One version of a model. What was recorded when it was created never changes; comment and tags may.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelVersion {
    /// The model's name.
    pub model: String,
    /// Counted from 1, without gaps; a number is never used again.
    pub version: u64,
    /// When it was created: microseconds since 1970, UTC.
    pub created_at: i64,
    /// Who created it: `user@host`.
    pub created_by: String,
    /// What was recorded of its file.
    pub record: Arc<VersionRecord>,
    /// What a call of it sees.
    pub interface: Arc<Interface>,
    /// What a user says of it.
    pub comment: Option<String>,
    /// What users and tools note on it.
    pub tags: BTreeMap<String, String>,
}

impl ModelVersion {
    /// `churn/3`
    pub fn label(&self) -> String {
        format!("{}/{}", self.model, self.version)
    }
}

/// A version's file, and how it is called.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VersionRecord {
    /// Where the model came from, without credentials.
    pub uri: String,
    /// The SHA-256 of the file and of its external weights, in hexadecimal digits.
    pub sha256: String,
    /// Size of the file and of its external weights, in bytes.
    pub size: u64,
    /// The external weights, by their names beside the file.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub external_files: Vec<String>,
    /// Whether the catalog holds the file; else it is read from `uri`, and checked against the hash.
    pub copied: bool,
    /// Whether the features' names were given, by `CREATE MODEL` or by the model's description; else they are the graph's.
    #[serde(default)]
    pub names_given: bool,
    /// How it is called.
    #[serde(default, skip_serializing_if = "ModelOptions::is_default")]
    pub options: ModelOptions,
    /// The tool that wrote the file, with its version.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub producer: String,
    /// The operator sets: `ai.onnx 17, ai.onnx.ml 1`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub opset: String,
    /// What was seen when it was first made ready to run, unless that was left for later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready: Option<Readiness>,
}

impl VersionRecord {
    /// Whether hash and names are such that they can be part of paths.
    pub(super) fn is_sound(&self) -> bool {
        let digit = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
        self.sha256.len() == 64
            && self.sha256.chars().all(digit)
            && self.external_files.iter().all(|name| relative(name).is_some())
    }
}

/// A model's name with its versions, and what points to them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ModelEntry {
    /// The folded name.
    pub name: String,
    /// The highest number that a version has had.
    pub last_version: u64,
    /// The versions that are there, by number.
    pub versions: BTreeMap<u64, Arc<ModelVersion>>,
    /// The versions up to the one that the bare name stands for now that it has stood for, for [`Change::Rollback`].
    ///
    /// [`Change::Rollback`]: super::Change::Rollback
    pub served: Vec<u64>,
    /// Names for versions; [`DEFAULT_ALIAS`] is the one that the bare name stands for.
    pub aliases: BTreeMap<String, u64>,
    /// What a user says of it.
    pub comment: Option<String>,
    /// What users and tools note on it.
    pub tags: BTreeMap<String, String>,
    /// How calls by the bare name are split between versions, if they are.
    pub traffic: Option<Traffic>,
}

/// Versions that a model remembers to have served.
const SERVED: usize = 100;

impl ModelEntry {
    /// The bare name stands for `version` from now on.
    pub(super) fn serve(&mut self, version: u64) {
        self.served.retain(|served| *served < version); // back is to an older one
        self.served.push(version);
        if self.served.len() > SERVED {
            self.served.remove(0);
        }
    }

    /// The version that the bare name stands for.
    pub fn default_version(&self) -> Option<&Arc<ModelVersion>> {
        self.versions.get(self.aliases.get(DEFAULT_ALIAS)?)
    }

    /// The aliases of a version, in order.
    pub fn aliases_of(&self, version: u64) -> impl Iterator<Item = &str> {
        self.aliases.iter().filter(move |(_, number)| **number == version).map(|(alias, _)| alias.as_str())
    }
}

/// A split of calls between versions of a model: the same row always goes to the same version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// Versions and their shares, in the order given; at least one share is not 0.
    pub shares: Vec<(u64, u32)>,
    /// The feature that chooses; all features if none is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
}

impl std::fmt::Display for Traffic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shares: Vec<_> = self.shares.iter().map(|(version, share)| format!("v{version} {share}")).collect();
        write!(f, "{}", shares.join(", "))?;
        match &self.by {
            Some(feature) => write!(f, " by {feature}"),
            None => Ok(()),
        }
    }
}
