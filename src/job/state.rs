//! What the journal of a job says: its definition, its output, and the run that is under way.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::JobDefinition;
use super::records::{OutputFile, RunModel, RunStatus, RunSummary, SplitRecord};
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

/// A split of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct SplitKey(pub u64, pub u32);

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
        let mut engines: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
        for (model, engine) in self.done.values().flat_map(|split| &split.engines) {
            engines.entry(model.clone()).or_default().insert(engine);
        }
        let listed = |engines: BTreeSet<&str>| engines.into_iter().collect::<Vec<_>>().join(", ");
        let engines = engines.into_iter().map(|(model, engines)| (model, listed(engines))).collect();
        RunSummary {
            means,
            engines,
            machines: self.done.values().map(|split| split.machine().to_owned()).collect(),
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
