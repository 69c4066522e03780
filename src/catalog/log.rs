//! The log of a catalog in an object store: commits that are created where none was, one after the other.
//!
//! Whoever creates `log/N` has made the N-th change; who comes second reads it, and tries N + 1. That needs no lock, and
//! no other promise of the store than that of two creations of one name only one succeeds. Checkpoints of the state make
//! opening fast; without them, all commits are read.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};
use serde::{Deserialize, Serialize};

use super::checkpoint::Checkpoint;
use super::commit::{Action, Commit, FORMAT, Formatted, HistoryEntry, read_json};
use super::{CatalogSnapshot, Change};
use crate::background;
use crate::error::{Error, Result, bail, error};
use crate::storage::{hint, patience};

/// Commits between two checkpoints.
const CHECKPOINT_EVERY: u64 = 64;
/// Commits that are read at once, where there are some.
const READ_AHEAD: u64 = 16;
/// How often a writer tries again that others were faster than.
const ATTEMPTS: u32 = 10_000;

/// A catalog's log under `root` in `store`.
pub(super) struct Log {
    pub store: Arc<dyn ObjectStore>,
    pub root: Path,
    /// Where the store is a folder of this machine.
    pub folder: Option<PathBuf>,
    /// The catalog's URI, for errors.
    pub name: String,
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

/// The first file that is looked for: whether there is a catalog, and of which format.
#[derive(Debug, Serialize, Deserialize)]
struct Marker {
    format: u32,
}

/// Where the newest checkpoint is. It may be behind, if two processes wrote it at once.
#[derive(Debug, Serialize, Deserialize)]
struct Latest {
    format: u32,
    sequence: u64,
}

impl Formatted for Marker {
    fn format(&self) -> u32 {
        self.format
    }
}

impl Formatted for Latest {
    fn format(&self) -> u32 {
        self.format
    }
}

impl Log {
    /// All that the log says.
    pub(super) async fn open(&self) -> Result<Replayed> {
        let (marker, latest) = (self.root.clone().join("catalog.json"), self.checkpoint_path("latest"));
        let (marker, latest) = futures::join!(self.read::<Marker>(&marker), self.read::<Latest>(&latest));
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
    pub(super) async fn catch_up(&self, replayed: &mut Replayed, mut together: u64) -> Result<bool> {
        let mut next = replayed.snapshot.sequence + 1;
        let mut commits = vec![];
        loop {
            let range = next..next + together;
            let read: Vec<_> = stream::iter(range.map(|sequence| self.read_commit(sequence)))
                .buffered(usize::try_from(READ_AHEAD).unwrap_or(1))
                .try_collect()
                .await?;
            let there = read.iter().take_while(|commit| commit.is_some()).count();
            let missing = next + there as u64;
            let mut gap = read.iter().skip(there).any(Option::is_some);
            if !gap && together > 1 && missing + 1 == next + together {
                gap = self.read_commit(missing + 1).await?.is_some(); // the window ends there, the log may not
            }
            next += together;
            commits.extend(read.into_iter().map_while(|commit| commit));
            if gap {
                // It may have been written after we looked for it; one that is still missing was removed.
                tokio::time::sleep(Duration::from_millis(20)).await;
                match self.read_commit(missing).await? {
                    Some(commit) => commits.push(commit),
                    None => bail!(
                        InvalidCatalog,
                        "{} is missing: there are commits behind it",
                        self.place(&self.commit_path(missing))
                    ),
                }
                next = missing + 1;
            } else if missing < next {
                break;
            }
            together = READ_AHEAD;
        }
        if commits.is_empty() {
            return Ok(false);
        }
        let mut snapshot = replayed.snapshot.as_ref().clone();
        let (mut history, mut at) = (vec![], replayed.at);
        for commit in commits {
            snapshot.apply(&commit).map_err(|error| error.of_catalog(&self.name))?;
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
            if self.get(&self.commit_path(sequence + 1)).await?.is_some() {
                // Others were faster by two; or there is a gap, which must not be filled with something else.
                self.catch_up(replayed, READ_AHEAD).await?;
                continue;
            }
            // Before it is written: what does not fit would be in everybody's way.
            let mut snapshot = replayed.snapshot.as_ref().clone();
            snapshot.apply(&commit)?;
            if sequence == 1 {
                self.create(&self.root.clone().join("catalog.json"), &Marker { format: FORMAT }).await?;
            }
            let answer = self.create(&self.commit_path(sequence), &commit).await;
            if !matches!(answer, Ok(true)) {
                // Others were faster; or the commit was written, and the answer was lost.
                let there = self.read_commit(sequence).await;
                let ours = matches!(&there, Ok(Some(commit)) if commit.id == id);
                match answer {
                    _ if ours => {}
                    Err(error) => return Err(error),
                    Ok(_) => {
                        there?;
                        self.catch_up(replayed, 1).await?;
                        tokio::time::sleep(backoff(attempt)).await;
                        continue;
                    }
                }
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
        bail!(Unreadable, "catalog '{}': other writers were faster {ATTEMPTS} times: try again", self.name)
    }

    /// The whole history.
    pub(super) fn history(&self, replayed: &Replayed) -> Result<Vec<HistoryEntry>> {
        let mut history: Vec<HistoryEntry> = match &replayed.archived {
            Some(archived) => serde_json::from_str(archived).map_err(|cause| {
                error!(InvalidCatalog, "catalog '{}': its history is damaged", self.name).with_source(cause)
            })?,
            None => vec![],
        };
        history.extend(replayed.recent.iter().cloned());
        Ok(history)
    }

    async fn read_commit(&self, sequence: u64) -> Result<Option<Commit>> {
        self.read(&self.commit_path(sequence)).await
    }

    async fn read_checkpoint(&self, sequence: u64) -> Result<Option<Replayed>> {
        let path = self.checkpoint_path(&number(sequence));
        let Some(bytes) = self.get(&path).await? else { return Ok(None) };
        let place = self.place(&path);
        let decode = move || -> Result<Replayed> {
            let (snapshot, history, at) = read_json::<Checkpoint>(&place, &bytes)?.into_parts(&place)?;
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
        let (history, checkpoint) = background::blocking(encode).await?;
        self.put(&self.checkpoint_path(&number(sequence)), checkpoint).await?;
        let latest = serde_json::to_vec(&Latest { format: FORMAT, sequence }).map_err(encoding)?;
        self.put(&self.checkpoint_path("latest"), latest).await?;
        replayed.archived = Some(history);
        replayed.recent.clear();
        // The one before stays for who has just read where the newest is.
        if let Some(old) = sequence.checked_sub(2 * CHECKPOINT_EVERY).filter(|old| *old > 0) {
            let _ = self.store.delete(&self.checkpoint_path(&number(old))).await; // it takes room, nothing else
        }
        Ok(())
    }

    fn commit_path(&self, sequence: u64) -> Path {
        self.root.clone().join("log").join(format!("{}.json", number(sequence)))
    }

    fn checkpoint_path(&self, name: &str) -> Path {
        self.root.clone().join("checkpoints").join(format!("{name}.json"))
    }

    /// `catalog 's3://…': log/00…1.json`
    fn place(&self, path: &Path) -> String {
        let path = path
            .prefix_match(&self.root)
            .map(|parts| parts.map(|part| part.as_ref().to_owned()).collect::<Vec<_>>().join("/"));
        format!("catalog '{}': {}", self.name, path.unwrap_or_default())
    }

    async fn read<T: for<'a> Deserialize<'a> + Formatted>(&self, path: &Path) -> Result<Option<T>> {
        match self.get(path).await? {
            Some(bytes) => read_json(&self.place(path), &bytes).map(Some),
            None => Ok(None),
        }
    }

    async fn get(&self, path: &Path) -> Result<Option<bytes::Bytes>> {
        let got = match patience::answer(self.store.get(path)).await {
            Ok(got) => patience::answer(got.bytes()).await,
            Err(error) => Err(error),
        };
        match got {
            Ok(bytes) => Ok(Some(bytes)),
            // Stores answer alike where there is no such bucket: not an empty catalog.
            Err(cause @ object_store::Error::NotFound { .. })
                if !["NoSuchBucket", "ContainerNotFound"].iter().any(|code| cause.to_string().contains(code)) =>
            {
                Ok(None)
            }
            Err(cause) => Err(self.failed("read", path, cause)),
        }
    }

    /// Whether this call created the file.
    async fn create(&self, path: &Path, content: &impl Serialize) -> Result<bool> {
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        let bytes = serde_json::to_vec(content).map_err(encoding)?;
        if let Some(folder) = &self.folder {
            let file = folder.join(path.as_ref());
            let place = self.place(path);
            return background::blocking(move || {
                let created = create_durably(&file, &bytes);
                created.map_err(|cause| error!(Unreadable, "{place} can't be written").with_source(cause))
            })
            .await;
        }
        match patience::answer(self.store.put_opts(path, PutPayload::from(bytes), options)).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => Ok(false),
            Err(cause) => Err(self.failed("written", path, cause)),
        }
    }

    async fn put(&self, path: &Path, bytes: Vec<u8>) -> Result<()> {
        let put = patience::answer(self.store.put(path, PutPayload::from(bytes))).await;
        put.map(drop).map_err(|cause| self.failed("written", path, cause))
    }

    fn failed(&self, what: &str, path: &Path, cause: object_store::Error) -> Error {
        let note = hint(&cause);
        error!(Unreadable, "{} can't be {what}", self.place(path)).with_source(cause).with_note(note)
    }
}

/// Creates `file`, unless it is there, so that it outlasts the machine's failure; whether it was created.
///
/// The store of local files would leave that to the system, which may keep the name and lose the content.
fn create_durably(file: &std::path::Path, bytes: &[u8]) -> std::io::Result<bool> {
    let folder = file.parent().unwrap_or(std::path::Path::new("."));
    std::fs::create_dir_all(folder)?;
    let mut fresh = tempfile::Builder::new();
    #[cfg(unix)]
    fresh.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666)); // less what the user's mask takes
    let mut fresh = fresh.tempfile_in(folder)?;
    std::io::Write::write_all(&mut fresh, bytes)?;
    fresh.as_file().sync_all()?;
    match fresh.persist_noclobber(file) {
        Ok(_) => {}
        Err(error) if error.error.kind() == std::io::ErrorKind::AlreadyExists => return Ok(false),
        Err(error) => return Err(error.error),
    }
    if cfg!(unix) {
        std::fs::File::open(folder)?.sync_all()?; // the name, too
    }
    Ok(true)
}

fn encoding(cause: serde_json::Error) -> Error {
    error!(InvalidCatalog, "a file of the catalog can't be written").with_source(cause)
}

/// Names sort as their numbers do.
fn number(sequence: u64) -> String {
    format!("{sequence:020}")
}

/// Microseconds since 1970, UTC.
fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

/// A random while, so that writers that met once do not meet again.
fn backoff(attempt: u32) -> Duration {
    let most = 2u64 << attempt.min(5);
    Duration::from_millis(u64::from(uuid::Uuid::new_v4().as_fields().0) % most)
}
