//! What the journal of a job says: its definition, its output, and the run that is under way.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::JobDefinition;
use crate::error::{Result, error};
use crate::storage::journal::{Entry, Formatted};

/// The format of a job's files.
pub(super) const FORMAT: u32 = 1;

/// One change of a job, all of it or nothing.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct JobCommit {
    pub format: u32,
    pub id: String,
    /// When: microseconds since 1970, UTC, by the writer's clock.
    pub at: i64,
    /// Who: `user@host`.
    pub by: String,
    pub actions: Vec<JobAction>,
}

impl Formatted for JobCommit {
    const NEWEST: u32 = FORMAT;

    fn format(&self) -> u32 {
        self.format
    }
}

impl Entry for JobCommit {
    fn id(&self) -> &str {
        &self.id
    }
}

/// One step of a commit.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum JobAction {
    /// `CREATE JOB`, `ALTER JOB`
    Define { definition: Box<JobDefinition> },
    /// `DROP JOB`: what was scored stays where it is, and is forgotten.
    Drop {},
    /// A run begins. What it is to do stands in the file of its plan.
    Start {
        run: u64,
        plan: String,
        generation: u64,
        /// What its output depends on beside the inputs: the query and its models.
        fingerprint: String,
        /// The job, with the columns that its query gives now.
        definition: Arc<JobDefinition>,
        splits: u32,
        /// Whether all that it scores is published at its end.
        held: bool,
        /// Why it is run: `run`, `full`, `retry`.
        reason: String,
        models: Vec<RunModel>,
    },
    /// A split is scored, and its files are on their way to where readers look.
    Finish { run: u64, split: Box<SplitRecord> },
    /// What the run has scored is published, and what it takes the place of is not any more.
    Publish { run: u64, retires: Vec<SplitKey> },
    /// The run has ended.
    End { run: u64, status: RunStatus, error: Option<String> },
    /// Nothing more is scored: `CANCEL JOB`, or an error.
    Stop { run: u64, error: Option<String> },
    /// `ROLLBACK JOB`
    Rollback { generation: u64 },
    /// The files of a generation are gone.
    Forget { generation: u64 },
}

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

/// A split of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct SplitKey(pub u64, pub u32);

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
}

/// The output of all runs since all was scored anew.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Generation {
    pub fingerprint: String,
    /// The job as it was then: which columns the output has, in which format and folders.
    #[serde(default)]
    pub definition: Option<Arc<JobDefinition>>,
    /// What was scored, each with its files.
    #[serde(with = "pairs")]
    pub splits: BTreeMap<SplitKey, Arc<SplitRecord>>,
    /// Whether it was published at some time.
    pub published: bool,
}

/// A run that has not ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct ActiveRun {
    pub run: u64,
    pub plan: String,
    pub generation: u64,
    pub splits: u32,
    pub held: bool,
    pub reason: String,
    pub models: Vec<RunModel>,
    pub started_at: i64,
    pub started_by: String,
    pub done: BTreeMap<u32, Arc<SplitRecord>>,
    /// What was taken out of the published state, once it was.
    pub published: Option<Vec<SplitKey>>,
    /// Whether nothing more is scored, and the error if that is why.
    #[serde(default, with = "stopped")]
    pub stopped: Option<Option<String>>,
    /// The files that were taken out, which may not have been moved away yet.
    #[serde(default)]
    pub retired: Vec<OutputFile>,
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
    /// The mean of each column of floats that was written, NULL, NaN and infinities aside.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub means: BTreeMap<String, f64>,
    /// The file of its plan, which holds its query, models and inputs.
    pub(super) plan: String,
}

/// Runs that a job's state remembers; their records stay.
const REMEMBERED: usize = 1000;

/// A job at one moment.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct JobState {
    pub sequence: u64,
    pub at: i64,
    pub definition: Option<Arc<JobDefinition>>,
    pub created_at: i64,
    pub created_by: String,
    /// What stands in the folders of this job's outputs, also after it was dropped and made again.
    #[serde(default)]
    pub owner: Option<String>,
    pub last_run: u64,
    pub last_generation: u64,
    pub generations: BTreeMap<u64, Arc<Generation>>,
    /// The generation that readers see.
    pub published: Option<u64>,
    pub active: Option<Arc<ActiveRun>>,
    pub runs: Vec<Arc<RunSummary>>,
}

impl JobState {
    /// What readers see.
    pub(crate) fn output(&self) -> impl Iterator<Item = &OutputFile> {
        let generation = self.published.and_then(|generation| self.generations.get(&generation));
        generation.into_iter().flat_map(|generation| generation.splits.values()).flat_map(|split| &split.files)
    }

    /// The job as it was when the output was written that readers see.
    pub(crate) fn written_as(&self) -> Option<Arc<JobDefinition>> {
        let generation = self.published.and_then(|generation| self.generations.get(&generation));
        generation.and_then(|generation| generation.definition.clone())
    }

    /// Takes over the next commit.
    ///
    /// # Errors
    /// A commit that does not fit this state.
    pub(super) fn apply(&mut self, commit: &JobCommit) -> Result<()> {
        let sequence = self.sequence + 1;
        for action in &commit.actions {
            self.take(commit, action).ok_or_else(|| {
                let action = serde_json::to_value(action).unwrap_or_default();
                let name = action.as_object().and_then(|action| action.keys().next().cloned()).unwrap_or_default();
                error!(InvalidCatalog, "commit {sequence} does not fit what was before it: {name}")
            })?;
        }
        self.sequence = sequence;
        self.at = self.at.max(commit.at);
        Ok(())
    }

    /// `None` if the action does not fit.
    fn take(&mut self, commit: &JobCommit, action: &JobAction) -> Option<()> {
        match action {
            JobAction::Define { definition } => {
                let elsewhere = self.definition.as_ref().is_none_or(|before| before.target != definition.target);
                if self.active.is_some() {
                    return None;
                }
                if elsewhere {
                    self.generations.clear();
                    self.published = None;
                }
                if self.definition.is_none() {
                    (self.created_at, self.created_by) = (commit.at, commit.by.clone());
                }
                self.owner = Some(definition.owner.clone()).filter(|owner| !owner.is_empty());
                self.definition = Some(Arc::new(definition.as_ref().clone()));
            }
            JobAction::Drop {} => {
                self.definition.take()?;
                self.generations.clear();
                self.published = None;
                self.active = None;
                self.runs.clear();
            }
            JobAction::Start { run, plan, generation, fingerprint, definition, splits, held, reason, models } => {
                if self.active.is_some() || *run != self.last_run + 1 || self.definition.is_none() {
                    return None;
                }
                self.last_run = *run;
                self.last_generation = self.last_generation.max(*generation);
                let first = self.published.is_none();
                let entry = self.generations.entry(*generation).or_default();
                let entry = Arc::make_mut(entry);
                entry.fingerprint.clone_from(fingerprint);
                entry.definition = Some(definition.clone());
                // A first fill is seen as it grows, unless it is to be checked.
                if first && !*held {
                    entry.published = true;
                    self.published = Some(*generation);
                }
                self.active = Some(Arc::new(ActiveRun {
                    run: *run,
                    plan: plan.clone(),
                    generation: *generation,
                    splits: *splits,
                    held: *held,
                    reason: reason.clone(),
                    models: models.clone(),
                    started_at: commit.at,
                    started_by: commit.by.clone(),
                    done: BTreeMap::new(),
                    published: None,
                    stopped: None,
                    retired: vec![],
                }));
            }
            JobAction::Finish { run, split } => {
                let active = self.active_run(*run)?;
                if active.published.is_some() || active.stopped.is_some() || split.split >= active.splits {
                    return None;
                }
                let split = Arc::new(split.as_ref().clone());
                if active.done.insert(split.split, split.clone()).is_some() {
                    return None; // a split is scored once
                }
                let (held, generation) = (active.held, active.generation);
                if !held {
                    let generation = Arc::make_mut(self.generations.get_mut(&generation)?);
                    generation.splits.insert(SplitKey(*run, split.split), split);
                }
            }
            JobAction::Publish { run, retires } => {
                let active = self.active_run(*run)?;
                if active.published.is_some() {
                    return None;
                }
                active.published = Some(retires.clone());
                let (held, number, done) = (active.held, active.generation, active.done.clone());
                let generation = Arc::make_mut(self.generations.get_mut(&number)?);
                let mut retired = vec![];
                for key in retires {
                    retired.extend(generation.splits.remove(key)?.files.iter().cloned());
                }
                if held {
                    generation.splits.extend(done.into_iter().map(|(split, record)| (SplitKey(*run, split), record)));
                }
                generation.published = true;
                self.published = Some(number);
                self.active_run(*run)?.retired = retired;
            }
            JobAction::End { run, status, error } => {
                let active = self.active.take_if(|active| active.run == *run)?;
                self.settle(&active);
                self.runs.push(Arc::new(active.summary(*status, error.clone(), commit.at)));
                if self.runs.len() > REMEMBERED {
                    self.runs.remove(0);
                }
            }
            JobAction::Stop { run, error } => {
                let active = self.active_run(*run)?;
                if active.stopped.is_some() {
                    return None;
                }
                active.stopped = Some(error.clone());
            }
            JobAction::Rollback { generation } => {
                self.generations.get(generation).filter(|there| there.published)?;
                if self.active.is_some() {
                    return None;
                }
                self.published = Some(*generation);
            }
            JobAction::Forget { generation } => {
                if self.published == Some(*generation) {
                    return None;
                }
                self.generations.remove(generation)?;
            }
        }
        Some(())
    }

    fn active_run(&mut self, run: u64) -> Option<&mut ActiveRun> {
        let active = self.active.as_mut().filter(|active| active.run == run)?;
        Some(Arc::make_mut(active))
    }

    /// The files of `active` are where they belong: nobody looks for them elsewhere any more.
    fn settle(&mut self, active: &ActiveRun) {
        let Some(generation) = self.generations.get_mut(&active.generation) else { return };
        let generation = Arc::make_mut(generation);
        for split in active.done.keys() {
            if let Some(record) = generation.splits.get_mut(&SplitKey(active.run, *split)) {
                Arc::make_mut(record).files.iter_mut().for_each(|file| file.staged.clear());
            }
        }
    }
}

impl ActiveRun {
    /// What the run has done until now.
    pub(crate) fn summary(&self, status: RunStatus, error: Option<String>, ended_at: i64) -> RunSummary {
        let sum = |value: fn(&SplitRecord) -> u64| self.done.values().map(|split| value(split)).sum::<u64>();
        let seconds = |value: fn(&SplitRecord) -> f64| self.done.values().fold(0.0, |sum, split| sum + value(split));
        let mut sums: BTreeMap<&str, (f64, u64)> = BTreeMap::new();
        for (column, (sum, count)) in self.done.values().flat_map(|split| &split.sums) {
            let entry = sums.entry(column).or_default();
            *entry = (entry.0 + sum, entry.1 + count);
        }
        let means = sums.into_iter().filter(|(_, (_, count))| *count > 0);
        let means = means.map(|(column, (sum, count))| (column.to_owned(), sum / count as f64)).collect();
        RunSummary {
            means,
            run: self.run,
            reason: self.reason.clone(),
            status,
            error,
            generation: self.generation,
            started_at: self.started_at,
            ended_at,
            started_by: self.started_by.clone(),
            models: self.models.clone(),
            splits: self.splits,
            splits_done: u32::try_from(self.done.len()).unwrap_or(u32::MAX),
            files_in: sum(|split| split.inputs.len() as u64),
            files_failed: sum(|split| split.failed.len() as u64),
            rows_in: sum(|split| split.rows_in),
            rows_out: sum(|split| split.rows_out),
            rows_set_aside: sum(|split| split.rows_set_aside),
            bytes_read: sum(|split| split.bytes_read),
            bytes_written: sum(|split| split.bytes_written),
            split_seconds: seconds(|split| split.seconds),
            model_seconds: seconds(|split| split.model_seconds),
            plan: self.plan.clone(),
        }
    }
}

/// Whether there is something, and what, as a list in JSON: `null` would not tell nothing from something unsaid.
mod stopped {
    use super::{Deserialize, Serialize};

    pub(super) fn serialize<S: serde::Serializer>(value: &Option<Option<String>>, to: S) -> Result<S::Ok, S::Error> {
        value.iter().collect::<Vec<_>>().serialize(to)
    }

    pub(super) fn deserialize<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<Option<String>>, D::Error> {
        Ok(Vec::<Option<String>>::deserialize(from)?.pop())
    }
}

/// Keys that are no texts, as pairs in JSON.
mod pairs {
    use super::{Arc, BTreeMap, Deserialize, SplitKey, SplitRecord};

    type Splits = BTreeMap<SplitKey, Arc<SplitRecord>>;

    pub(super) fn serialize<S: serde::Serializer>(splits: &Splits, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(splits)
    }

    pub(super) fn deserialize<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Splits, D::Error> {
        Ok(Vec::<(SplitKey, Arc<SplitRecord>)>::deserialize(from)?.into_iter().collect())
    }
}
