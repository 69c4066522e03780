//! One change of a catalog, as its log holds it.
//!
//! The format is described in `docs/catalog-format.md`; what is changed here is changed there.

use serde::{Deserialize, Serialize};

use super::{Interface, Traffic, VersionRecord};
use crate::storage::journal::{Entry, Formatted};

/// The format that this version writes, and the newest that it reads.
pub(super) const FORMAT: u32 = 2;

/// What one statement did, all of it or nothing.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Commit {
    pub(super) format: u32,
    /// Tells a writer whether a commit is its own, where a store answered twice.
    pub(super) id: String,
    /// When: microseconds since 1970, UTC, by the writer's clock.
    pub at: i64,
    /// Who: `user@host`.
    pub by: String,
    /// What, in order.
    pub actions: Vec<Action>,
}

/// One step of a commit. `from` is what was there before, for the history.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the variants' names and docs/catalog-format.md say it")]
pub(super) enum Action {
    CreateVersion { model: String, version: u64, record: Box<VersionRecord>, interface: Box<Interface> },
    DropVersion { model: String, version: u64 },
    DropModel { model: String },
    SetAlias { model: String, alias: String, from: Option<u64>, to: u64 },
    DropAlias { model: String, alias: String, from: u64 },
    SetComment { model: String, version: Option<u64>, from: Option<String>, to: Option<String> },
    SetTag { model: String, version: Option<u64>, tag: String, from: Option<String>, to: Option<String> },
    SetTraffic { model: String, from: Option<Traffic>, to: Option<Traffic> },
}

/// One row of a catalog's history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct HistoryEntry {
    /// The commit's place in the log, from 1.
    pub sequence: u64,
    /// When: microseconds since 1970, UTC.
    pub at: i64,
    /// Who: `user@host`.
    pub by: String,
    /// What: `create version`, `set alias` …
    pub action: String,
    /// The model.
    pub model: String,
    /// The version that it is about, if it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
    /// The alias or the tag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What was there before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// What is there since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
}

impl Commit {
    /// The rows of the history that this commit, at `sequence`, adds.
    pub(super) fn history(&self, sequence: u64) -> impl Iterator<Item = HistoryEntry> {
        self.actions.iter().map(move |action| {
            let entry = |what: &str, model: &String| HistoryEntry {
                sequence,
                at: self.at,
                by: self.by.clone(),
                action: what.to_owned(),
                model: model.clone(),
                version: None,
                name: None,
                from: None,
                to: None,
            };
            let text = |version: &u64| version.to_string();
            match action {
                Action::CreateVersion { model, version, record, .. } => HistoryEntry {
                    version: Some(*version),
                    to: Some(record.sha256.clone()),
                    ..entry("create version", model)
                },
                Action::DropVersion { model, version } => {
                    HistoryEntry { version: Some(*version), ..entry("drop version", model) }
                }
                Action::DropModel { model } => entry("drop model", model),
                Action::SetAlias { model, alias, from, to } => HistoryEntry {
                    version: Some(*to),
                    name: Some(alias.clone()),
                    from: from.as_ref().map(text),
                    to: Some(text(to)),
                    ..entry("set alias", model)
                },
                Action::DropAlias { model, alias, from } => HistoryEntry {
                    version: Some(*from),
                    name: Some(alias.clone()),
                    from: Some(text(from)),
                    ..entry("drop alias", model)
                },
                Action::SetComment { model, version, from, to } => HistoryEntry {
                    version: *version,
                    from: from.clone(),
                    to: to.clone(),
                    ..entry("set comment", model)
                },
                Action::SetTag { model, version, tag, from, to } => HistoryEntry {
                    version: *version,
                    name: Some(tag.clone()),
                    from: from.clone(),
                    to: to.clone(),
                    ..entry(if to.is_some() { "set tag" } else { "unset tag" }, model)
                },
                Action::SetTraffic { model, from, to } => HistoryEntry {
                    from: from.as_ref().map(Traffic::to_string),
                    to: to.as_ref().map(Traffic::to_string),
                    ..entry(if to.is_some() { "set traffic" } else { "drop traffic" }, model)
                },
            }
        })
    }
}

impl Formatted for Commit {
    const NEWEST: u32 = FORMAT;

    fn format(&self) -> u32 {
        self.format
    }
}

impl Entry for Commit {
    fn id(&self) -> &str {
        &self.id
    }
}
