//! The log of a catalog: a [`Journal`] of commits. Checkpoints of the state make opening fast; without them, all commits are
//! read.

use std::sync::Arc;

use object_store::ObjectStoreExt;
use serde::{Deserialize, Serialize};

use super::checkpoint::Checkpoint;
use super::commit::{Action, Commit, FORMAT, HistoryEntry};
use super::{CatalogSnapshot, Change};
use crate::background;
use crate::error::{Result, bail, error};
use crate::storage::StoreFolder;
use crate::storage::journal::{
    ATTEMPTS, Appended, Formatted, Journal, READ_AHEAD, backoff, decode_json, encoding, now, number, read_json,
};

/// Commits between two checkpoints.
const CHECKPOINT_EVERY: u64 = 64;

/// The first file that is looked for: whether there is a catalog, and of which format.
const MARKER: &str = "catalog.json";

/// Where the newest checkpoint is said to be.
const LATEST: &str = "checkpoints/latest.json";

/// A catalog's log.
pub(super) struct Log {
    pub journal: Journal,
    /// Who writes: `user@host`.
    pub author: String,
}

/// What the log says up to some commit.
#[derive(Debug, Clone, Default)]
pub(super) struct Replayed {
    pub snapshot: Arc<CatalogSnapshot>,
    /// The history up to the checkpoint that was read, as it stands there.
    pub archived: Option<Arc<str>>,
    /// The history since.
    pub recent: Vec<HistoryEntry>,
    /// The time of the last commit.
    at: i64,
}

/// What stands in [`MARKER`].
#[derive(Debug, Serialize, Deserialize)]
struct Marker {
    format: u32,
}

/// What stands in [`LATEST`]. It may be behind, if two processes wrote it at once.
#[derive(Debug, Serialize, Deserialize)]
struct Latest {
    format: u32,
    sequence: u64,
}

impl Formatted for Marker {
    const NEWEST: u32 = FORMAT;

    fn format(&self) -> u32 {
        self.format
    }
}

impl Formatted for Latest {
    const NEWEST: u32 = FORMAT;

    fn format(&self) -> u32 {
        self.format
    }
}

impl Log {
    /// All that the log says.
    pub(super) async fn open(&self) -> Result<Replayed> {
        let folder = self.folder();
        let (marker, latest) = futures::join!(read_json::<Marker>(folder, MARKER), read_json::<Latest>(folder, LATEST));
        if marker?.is_none() {
            return Ok(Replayed::default()); // its first commit makes it
        }
        let checkpoint = match latest {
            Ok(Some(latest)) => self.read_checkpoint(latest.sequence).await,
            Ok(None) => Ok(None),
            Err(error) => Err(error),
        };
        let checkpoint = checkpoint.unwrap_or_else(|error| {
            log::warn!("the catalog's commits are read one by one: {error}");
            None
        });
        let mut replayed = checkpoint.unwrap_or_default();
        self.catch_up(&mut replayed, READ_AHEAD).await?;
        Ok(replayed)
    }

    /// Takes over what others have committed; whether there was anything. `together` commits are looked for at first.
    pub(super) async fn catch_up(&self, replayed: &mut Replayed, together: u64) -> Result<bool> {
        let commits: Vec<Commit> = self.journal.tail(replayed.snapshot.sequence + 1, together).await?;
        if commits.is_empty() {
            return Ok(false);
        }
        let mut snapshot = replayed.snapshot.as_ref().clone();
        let (mut history, mut at) = (vec![], replayed.at);
        for commit in commits {
            snapshot.apply(&commit).map_err(|error| error.within(self.folder().name()))?;
            history.extend(commit.history(snapshot.sequence));
            at = at.max(commit.at);
        }
        replayed.recent.append(&mut history);
        replayed.at = at;
        replayed.snapshot = Arc::new(snapshot);
        Ok(true)
    }

    /// Commits `change`, and takes it over; the number of the version that it created, if it did.
    pub(super) async fn commit(&self, replayed: &mut Replayed, change: &Change) -> Result<Option<u64>> {
        let id = uuid::Uuid::new_v4().to_string();
        for attempt in 0..ATTEMPTS {
            let actions = change.actions(&replayed.snapshot)?;
            if actions.is_empty() {
                return Ok(None);
            }
            let created = actions.iter().find_map(|action| match action {
                Action::CreateVersion { version, .. } => Some(*version),
                _ => None,
            });
            let sequence = replayed.snapshot.sequence + 1;
            let at = now().max(replayed.at);
            let commit = Commit { format: FORMAT, id: id.clone(), at, by: self.author.clone(), actions };
            if self.journal.has(sequence + 1).await? {
                // Others were faster by two; or there is a gap, which must not be filled with something else.
                self.catch_up(replayed, READ_AHEAD).await?;
                continue;
            }
            // Before it is written: what does not fit would be in everybody's way.
            let mut snapshot = replayed.snapshot.as_ref().clone();
            snapshot.apply(&commit)?;
            if sequence == 1 {
                let marker = serde_json::to_vec(&Marker { format: FORMAT }).map_err(encoding)?;
                self.folder().create(MARKER, marker).await?;
            }
            if let Appended::Taken = self.journal.append(sequence, &commit).await? {
                self.catch_up(replayed, 1).await?;
                tokio::time::sleep(backoff(attempt)).await;
                continue;
            }
            replayed.recent.extend(commit.history(sequence));
            replayed.at = at;
            replayed.snapshot = Arc::new(snapshot);
            if sequence.is_multiple_of(CHECKPOINT_EVERY)
                && let Err(error) = self.write_checkpoint(replayed).await
            {
                log::warn!("no checkpoint was written: {error}"); // the commit stands without it
            }
            return Ok(created);
        }
        bail!(Unreadable, "{}: other writers were faster {ATTEMPTS} times: try again", self.folder().name())
    }

    /// The whole history.
    pub(super) fn history(&self, replayed: &Replayed) -> Result<Vec<HistoryEntry>> {
        let mut history: Vec<HistoryEntry> = match &replayed.archived {
            Some(archived) => serde_json::from_str(archived).map_err(|cause| {
                error!(InvalidCatalog, "{}: its history is damaged", self.folder().name()).with_source(cause)
            })?,
            None => vec![],
        };
        history.extend(replayed.recent.iter().cloned());
        Ok(history)
    }

    pub(super) fn folder(&self) -> &StoreFolder {
        &self.journal.folder
    }

    async fn read_checkpoint(&self, sequence: u64) -> Result<Option<Replayed>> {
        let file = checkpoint(sequence);
        let Some(bytes) = self.folder().get(&file).await? else { return Ok(None) };
        let place = self.folder().place(&file);
        let decode = move || -> Result<Replayed> {
            let (snapshot, history, at) = decode_json::<Checkpoint>(&place, &bytes)?.into_parts(&place)?;
            Ok(Replayed { snapshot: Arc::new(snapshot), archived: Some(history), recent: vec![], at })
        };
        background::blocking(decode).await.map(Some)
    }

    async fn write_checkpoint(&self, replayed: &mut Replayed) -> Result<()> {
        let (history, snapshot, at) = (self.history(replayed)?, replayed.snapshot.clone(), replayed.at);
        let sequence = snapshot.sequence;
        let encode = move || -> Result<(Arc<str>, Vec<u8>)> {
            let history: Arc<str> = serde_json::to_string(&history).map_err(encoding)?.into();
            let checkpoint = Checkpoint::new(&snapshot, &history, at)?;
            Ok((history, serde_json::to_vec(&checkpoint).map_err(encoding)?))
        };
        let (history, encoded) = background::blocking(encode).await?;
        self.folder().put(&checkpoint(sequence), encoded).await?;
        let latest = serde_json::to_vec(&Latest { format: FORMAT, sequence }).map_err(encoding)?;
        self.folder().put(LATEST, latest).await?;
        replayed.archived = Some(history);
        replayed.recent.clear();
        // The one before stays for who has just read where the newest is.
        if let Some(old) = sequence.checked_sub(2 * CHECKPOINT_EVERY).filter(|old| *old > 0) {
            let old = self.folder().path(&checkpoint(old));
            let _ = self.folder().store().delete(&old).await; // it takes room, nothing else
        }
        Ok(())
    }
}

/// The file of the checkpoint after this many commits.
fn checkpoint(sequence: u64) -> String {
    format!("checkpoints/{}.json", number(sequence))
}
