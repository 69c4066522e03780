//! The journal of a job, and the files beside it: the plan of each run, claims, signs of life.
//!
//! ```text
//! jobs/nightly/log/N.json                 what was decided, commit by commit
//! jobs/nightly/checkpoints/N.json         the state after N commits
//! jobs/nightly/plans/ID.json              what a run is to do
//! jobs/nightly/runs/N/claims/SPLIT-TRY    who scores a split
//! jobs/nightly/runs/N/workers/ID          a worker's sign of life
//! jobs/nightly/runs/N/record.json         what a run did, once it has ended
//! ```

use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};
use object_store::ObjectStoreExt;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::state::{FORMAT, JobAction, JobCommit, JobState};
use crate::background;
use crate::error::{Result, bail, error};
use crate::storage::journal::{
    ATTEMPTS, Appended, Formatted, Journal, READ_AHEAD, backoff, encoding, now, number, read_json,
};
use crate::storage::{StoreFolder, patience};

/// Commits between two checkpoints.
const CHECKPOINT_EVERY: u64 = 64;

const LATEST: &str = "checkpoints/latest.json";

/// What stands in [`LATEST`].
#[derive(Debug, Serialize, Deserialize)]
struct Latest {
    format: u32,
    sequence: u64,
}

impl Formatted for Latest {
    const NEWEST: u32 = FORMAT;

    fn format(&self) -> u32 {
        self.format
    }
}

/// What stands in the file of a checkpoint.
#[derive(Debug, Serialize, Deserialize)]
struct Checkpoint {
    format: u32,
    state: Arc<JobState>,
}

impl Formatted for Checkpoint {
    const NEWEST: u32 = FORMAT;

    fn format(&self) -> u32 {
        self.format
    }
}

/// The jobs of a catalog.
#[derive(Debug, Clone)]
pub(crate) struct JobFolder {
    folder: StoreFolder,
    author: String,
}

impl JobFolder {
    /// Jobs that are kept in `folder`.
    pub(crate) fn new(folder: StoreFolder, author: String) -> Self {
        Self { folder, author }
    }

    /// The names of all jobs that there have been.
    pub(super) async fn names(&self) -> Result<Vec<String>> {
        let folder = self.folder.clone();
        background::run(async move {
            let list = folder.store().list_with_delimiter(Some(&folder.path(""))).await;
            let list = list.map_err(|cause| folder.failed("listed", "", cause))?;
            let names = list.common_prefixes.iter().filter_map(|path| path.filename().map(str::to_owned));
            Ok(names.collect())
        })
        .await
    }

    /// The journal of the job `name`, which is folded.
    pub(super) async fn open(&self, name: &str) -> Result<JobLog> {
        let log = JobLog {
            inner: Arc::new(Inner {
                name: name.to_owned(),
                journal: Journal { folder: self.folder.folder(name) },
                author: self.author.clone(),
                state: tokio::sync::Mutex::default(),
            }),
        };
        let inner = log.inner.clone();
        background::finish(async move {
            let mut state = inner.state.lock().await;
            *state = inner.read_checkpoint().await?;
            inner.catch_up(&mut state, READ_AHEAD).await
        })
        .await?;
        Ok(log)
    }
}

/// The journal of one job.
#[derive(Debug, Clone)]
pub(super) struct JobLog {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    name: String,
    journal: Journal,
    author: String,
    /// One of us talks to the journal at a time.
    state: tokio::sync::Mutex<Arc<JobState>>,
}

impl JobLog {
    pub(super) fn name(&self) -> &str {
        &self.inner.name
    }

    pub(super) fn author(&self) -> &str {
        &self.inner.author
    }

    /// What the journal says now.
    pub(super) async fn refresh(&self) -> Result<Arc<JobState>> {
        let inner = self.inner.clone();
        background::finish(async move {
            let mut state = inner.state.lock().await;
            inner.catch_up(&mut state, 1).await?;
            Ok(state.clone())
        })
        .await
    }

    /// What the journal said when it was last read.
    pub(super) async fn state(&self) -> Arc<JobState> {
        self.inner.state.lock().await.clone()
    }

    /// Commits what `decide` makes of the state, which may be called several times, as others may be faster.
    ///
    /// # Errors
    /// Those of `decide`; a journal that can't be read or written.
    pub(super) async fn commit(
        &self,
        decide: impl Fn(&JobState) -> Result<Vec<JobAction>> + Send + 'static,
    ) -> Result<Arc<JobState>> {
        let inner = self.inner.clone();
        background::finish(async move {
            let mut state = inner.state.lock().await;
            inner.commit(&mut state, decide).await?;
            Ok(state.clone())
        })
        .await
    }

    /// Writes a file that nobody else writes.
    pub(super) async fn write(&self, file: String, content: &impl Serialize) -> Result<()> {
        let (inner, bytes) = (self.inner.clone(), serde_json::to_vec(content).map_err(encoding)?);
        background::finish(async move { inner.journal.folder.create(&file, bytes).await.map(drop) }).await
    }

    /// Reads a file.
    pub(super) async fn read<T: DeserializeOwned + Formatted + Send + 'static>(
        &self,
        file: String,
    ) -> Result<Option<T>> {
        let inner = self.inner.clone();
        background::run(async move { read_json(&inner.journal.folder, &file).await }).await
    }

    /// Whether this call created a file that says who does something.
    pub(super) async fn claim(&self, file: String, who: &str) -> Result<bool> {
        let (inner, who) = (self.inner.clone(), who.as_bytes().to_vec());
        background::finish(async move { inner.journal.folder.create_soon(&file, who).await }).await
    }

    /// Writes a sign of life; when, by the store's clock.
    pub(super) async fn touch(&self, file: String, content: Vec<u8>) -> Result<i64> {
        let inner = self.inner.clone();
        background::finish(async move {
            let folder = &inner.journal.folder;
            folder.put(&file, content).await?;
            let head = patience::answer(folder.store().head(&folder.path(&file))).await;
            let head = head.map_err(|cause| folder.failed("read", &file, cause))?;
            Ok(head.last_modified.timestamp_micros())
        })
        .await
    }

    /// The content of a file and when it was written, by the store's clock.
    pub(super) async fn look(&self, file: String) -> Result<Option<(Vec<u8>, i64)>> {
        let inner = self.inner.clone();
        background::run(async move {
            let folder = &inner.journal.folder;
            let got = match patience::answer(folder.store().get(&folder.path(&file))).await {
                Err(object_store::Error::NotFound { .. }) => return Ok(None),
                Err(cause) => return Err(folder.failed("read", &file, cause)),
                Ok(got) => got,
            };
            let at = got.meta.last_modified.timestamp_micros();
            let bytes = patience::answer(got.bytes()).await.map_err(|cause| folder.failed("read", &file, cause))?;
            Ok(Some((bytes.to_vec(), at)))
        })
        .await
    }

    /// Removes the files within a folder, which nobody needs any more; what can't be removed stays.
    pub(super) async fn remove_all(&self, within: String) {
        let inner = self.inner.clone();
        let _ = background::finish(async move {
            let folder = &inner.journal.folder;
            let path = folder.path(&within);
            let paths = folder.store().list(Some(&path)).map_ok(|file| file.location).boxed();
            let _ = folder.store().delete_stream(paths).collect::<Vec<_>>().await;
            if let Some(local) = folder.local() {
                let _ = std::fs::remove_dir_all(local.join(path.as_ref()));
            }
            Ok(())
        })
        .await;
    }
}

impl Inner {
    async fn catch_up(&self, state: &mut Arc<JobState>, together: u64) -> Result<()> {
        let commits: Vec<JobCommit> = self.journal.tail(state.sequence + 1, together).await?;
        if !commits.is_empty() {
            let mut next = state.as_ref().clone();
            for commit in commits {
                next.apply(&commit).map_err(|error| error.within(&format!("job '{}'", self.name)))?;
            }
            *state = Arc::new(next);
        }
        Ok(())
    }

    async fn commit(
        &self,
        state: &mut Arc<JobState>,
        decide: impl Fn(&JobState) -> Result<Vec<JobAction>>,
    ) -> Result<()> {
        let id = uuid::Uuid::new_v4().to_string();
        for attempt in 0..ATTEMPTS {
            let actions = decide(state)?;
            if actions.is_empty() {
                return Ok(());
            }
            let sequence = state.sequence + 1;
            let commit =
                JobCommit { format: FORMAT, id: id.clone(), at: now().max(state.at), by: self.author.clone(), actions };
            // Before it is written: what does not fit would be in everybody's way.
            let mut next = state.as_ref().clone();
            if let Err(error) = next.apply(&commit) {
                let before = state.sequence;
                self.catch_up(state, 1).await?;
                if state.sequence == before {
                    return Err(error.within(&format!("job '{}'", self.name)));
                }
                continue; // it was decided on what is past
            }
            if let Appended::Taken = self.journal.append(sequence, &commit).await? {
                self.catch_up(state, 1).await?;
                tokio::time::sleep(backoff(attempt)).await;
                continue;
            }
            *state = Arc::new(next);
            if sequence.is_multiple_of(CHECKPOINT_EVERY)
                && let Err(error) = self.write_checkpoint(state.clone()).await
            {
                log::warn!("no checkpoint was written: {error}"); // the commit stands without it
            }
            return Ok(());
        }
        bail!(Unreadable, "job '{}': other writers were faster {ATTEMPTS} times: try again", self.name)
    }

    async fn read_checkpoint(&self) -> Result<Arc<JobState>> {
        let folder = &self.journal.folder;
        let read = async {
            let Some(latest) = read_json::<Latest>(folder, LATEST).await? else { return Ok(None) };
            read_json::<Checkpoint>(folder, &checkpoint(latest.sequence)).await
        };
        match read.await {
            Ok(found) => Ok(found.map(|checkpoint| checkpoint.state).unwrap_or_default()),
            Err(error) => {
                log::warn!("the commits of job '{}' are read one by one: {error}", self.name);
                Ok(Arc::default())
            }
        }
    }

    async fn write_checkpoint(&self, state: Arc<JobState>) -> Result<()> {
        let (folder, sequence) = (&self.journal.folder, state.sequence);
        let encode = move || serde_json::to_vec(&Checkpoint { format: FORMAT, state }).map_err(encoding);
        folder.put(&checkpoint(sequence), background::blocking(encode).await?).await?;
        let latest = serde_json::to_vec(&Latest { format: FORMAT, sequence }).map_err(encoding)?;
        folder.put(LATEST, latest).await?;
        // The one before stays for who has just read where the newest is.
        if let Some(old) = sequence.checked_sub(2 * CHECKPOINT_EVERY).filter(|old| *old > 0) {
            let _ = folder.store().delete(&folder.path(&checkpoint(old))).await; // it takes room, nothing else
        }
        Ok(())
    }
}

/// The file of the checkpoint after this many commits.
fn checkpoint(sequence: u64) -> String {
    format!("checkpoints/{}.json", number(sequence))
}

/// The error for a job that is not there.
pub(super) fn unknown(name: &str, known: &[String]) -> crate::error::Error {
    match datafusion_predict_udfs::nearest(name, known.iter().map(String::as_str)) {
        Some(near) => error!(UnknownJob, "unknown job '{name}'; did you mean '{near}'?"),
        None if known.is_empty() => {
            error!(UnknownJob, "unknown job '{name}'; there are no jobs: make one with CREATE JOB")
        }
        None => error!(UnknownJob, "unknown job '{name}'"),
    }
}
