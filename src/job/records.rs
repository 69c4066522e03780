//! What is known of what was done: models, files, splits, and runs that have ended.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

/// A model that a run calls.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunModel {
    /// `churn/3`
    pub label: String,
    /// The SHA-256 of its file, in hexadecimal digits.
    pub sha256: String,
}

/// How a run has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum RunStatus {
    /// All is scored.
    Done,
    /// All is scored but what was set aside.
    DoneWithErrors,
    /// It was given up; nothing of it was published that should not.
    Failed,
    /// `CANCEL JOB` ended it.
    Cancelled,
}

impl RunStatus {
    /// The status as tables show it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::DoneWithErrors => "done with errors",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// A file of the input, or a part of one.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub struct InputFile {
    /// Which scan of the query reads it, from 0.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub scan: usize,
    /// The path in its store.
    pub path: String,
    /// Its size in bytes.
    pub size: u64,
    /// What the store says of its version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etag: Option<String>,
    /// When it was written: microseconds since 1970, UTC, by the store's clock.
    pub modified: i64,
    /// The bytes of it that are meant, if not all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range: Option<(u64, u64)>,
}

fn is_zero(number: &usize) -> bool {
    *number == 0
}

impl InputFile {
    /// Whether it is the same file with the same content, as far as the store tells.
    pub(super) fn is_same_file(&self, other: &Self) -> bool {
        let same_version = match (&self.etag, &other.etag) {
            (Some(one), Some(other)) => one == other,
            _ => self.modified == other.modified,
        };
        self.scan == other.scan && self.path == other.path && self.size == other.size && same_version
    }
}

/// A file of the output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct OutputFile {
    /// The path within its generation's folder.
    pub path: String,
    /// Its size in bytes.
    pub size: u64,
    /// Where it was written before it was moved there, within the folder of what is on its way.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(super) staged: String,
}

/// An input file that could not be scored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileError {
    /// Its path in its store.
    pub path: String,
    /// What went wrong.
    pub error: String,
}

/// What became of a split.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SplitRecord {
    /// Its number in the run, from 0.
    pub split: u32,
    /// What was read.
    pub inputs: Vec<InputFile>,
    /// What was written.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<OutputFile>,
    /// Rows that were read.
    pub rows_in: u64,
    /// Rows that were written.
    pub rows_out: u64,
    /// Rows that were set aside.
    #[serde(default)]
    pub rows_set_aside: u64,
    /// Where those are, as paths in the output's store.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub set_aside: Vec<String>,
    /// The files that could not be scored.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failed: Vec<FileError>,
    /// The process that scored it: its id, and its host.
    pub worker: String,
    /// When it began: microseconds since 1970, UTC, by the worker's clock.
    pub started_at: i64,
    /// How long it took, in seconds.
    pub seconds: f64,
    /// Seconds that its models computed, over all cores.
    pub model_seconds: f64,
    /// What ran each model: `native on cpu`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub engines: BTreeMap<String, String>,
    /// Bytes that the worker read since it ended its split before, of which it may score several at once.
    pub bytes_read: u64,
    /// Bytes that were written.
    pub bytes_written: u64,
    /// How often it was tried.
    pub attempts: u32,
    /// Of each column of floats that was written: the sum of its numbers, and how many they are.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub sums: BTreeMap<String, (f64, u64)>,
}

impl SplitRecord {
    pub(crate) fn has_errors(&self) -> bool {
        self.rows_set_aside > 0 || !self.failed.is_empty()
    }

    /// The machine that scored it.
    pub(super) fn machine(&self) -> &str {
        self.worker.rsplit('@').next().unwrap_or(&self.worker)
    }
}

/// A run that has ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RunSummary {
    /// Its number, from 1.
    pub run: u64,
    /// Why it was run: `run`, `full` or `retry`.
    pub reason: String,
    /// How it ended.
    pub status: RunStatus,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The generation that it wrote to.
    pub generation: u64,
    /// When it began: microseconds since 1970, UTC.
    pub started_at: i64,
    /// When it ended.
    pub ended_at: i64,
    /// Who began it: `user@host`.
    pub started_by: String,
    /// The models that it called.
    pub models: Vec<RunModel>,
    /// The splits that it was to score.
    pub splits: u32,
    /// The splits that were scored.
    pub splits_done: u32,
    /// Files that were read.
    pub files_in: u64,
    /// Files that could not be scored.
    pub files_failed: u64,
    /// Rows that were read.
    pub rows_in: u64,
    /// Rows that were written.
    pub rows_out: u64,
    /// Rows that were set aside.
    pub rows_set_aside: u64,
    /// Bytes that were read.
    pub bytes_read: u64,
    /// Bytes that were written.
    pub bytes_written: u64,
    /// Seconds of all splits, one after the other.
    pub split_seconds: f64,
    /// Seconds that the models computed, over all cores.
    pub model_seconds: f64,
    /// What ran each model: `native on cpu`, and others where processes differ.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub engines: BTreeMap<String, String>,
    /// The machines that scored splits.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub machines: BTreeSet<String>,
    /// The mean of each column of floats that was written, NULL, NaN and infinities aside.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub means: BTreeMap<String, f64>,
    /// The file of its plan, which holds its query, models and inputs.
    pub(super) plan: String,
}
