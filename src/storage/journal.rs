//! A journal in a store: entries that are created where none was, one after the other.
//!
//! Whoever creates `log/N` has written the N-th entry; who comes second reads it, and tries N + 1. That needs no lock, and
//! no other promise of the store than that of two creations of one name only one succeeds.

use std::time::Duration;

use futures::{StreamExt, TryStreamExt, stream};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::StoreFolder;
use crate::error::{Error, Result, bail, error};

/// Entries that are read at once, where there are some.
pub(crate) const READ_AHEAD: u64 = 16;
/// How often a writer tries again that others were faster than.
pub(crate) const ATTEMPTS: u32 = 10_000;

/// A file that says in which format it is written.
pub(crate) trait Formatted {
    /// The newest format that this program reads.
    const NEWEST: u32;

    fn format(&self) -> u32;
}

/// An entry of a journal.
pub(crate) trait Entry: Formatted + Serialize + DeserializeOwned + Send {
    /// Tells a writer whether an entry is its own, where a store answered twice.
    fn id(&self) -> &str;
}

/// What has become of an entry that was to be written.
pub(crate) enum Appended {
    /// It stands there.
    Written,
    /// Others were faster: there is news to take over first.
    Taken,
}

/// The entries under `log/` of a folder.
#[derive(Debug, Clone)]
pub(crate) struct Journal {
    pub folder: StoreFolder,
}

impl Journal {
    /// The entries from the number `next` on. `together` of them are looked for at first: more than one where some are
    /// expected.
    ///
    /// # Errors
    /// A folder that can't be read, an entry that is damaged or of a newer format, one that was removed.
    pub(crate) async fn tail<T: Entry>(&self, mut next: u64, mut together: u64) -> Result<Vec<T>> {
        let mut entries = vec![];
        loop {
            let range = next..next + together;
            let read: Vec<Option<T>> = stream::iter(range.map(|number| self.entry(number)))
                .buffered(usize::try_from(READ_AHEAD).unwrap_or(1))
                .try_collect()
                .await?;
            let there = read.iter().take_while(|entry| entry.is_some()).count();
            let missing = next + there as u64;
            let mut gap = read.iter().skip(there).any(Option::is_some);
            if !gap && together > 1 && missing + 1 == next + together {
                gap = self.entry::<T>(missing + 1).await?.is_some(); // the window ends there, the journal may not
            }
            next += together;
            entries.extend(read.into_iter().map_while(|entry| entry));
            if gap {
                // It may have been written after we looked for it; one that is still missing was removed.
                tokio::time::sleep(Duration::from_millis(20)).await;
                match self.entry(missing).await? {
                    Some(entry) => entries.push(entry),
                    None => bail!(
                        InvalidCatalog,
                        "{} is missing: there are commits behind it",
                        self.folder.place(&file(missing))
                    ),
                }
                next = missing + 1;
            } else if missing < next {
                return Ok(entries);
            }
            together = READ_AHEAD;
        }
    }

    /// Writes `entry` as the one with this `number`, unless others were faster.
    ///
    /// # Errors
    /// A folder that can't be read or written.
    pub(crate) async fn append<T: Entry>(&self, number: u64, entry: &T) -> Result<Appended> {
        let bytes = serde_json::to_vec(entry).map_err(encoding)?;
        let answer = self.folder.create(&file(number), bytes).await;
        if matches!(answer, Ok(true)) {
            return Ok(Appended::Written);
        }
        // Others were faster; or the entry was written, and the answer was lost.
        let there = self.entry::<T>(number).await;
        let ours = matches!(&there, Ok(Some(there)) if there.id() == entry.id());
        match answer {
            _ if ours => Ok(Appended::Written),
            Err(error) => Err(error),
            Ok(_) => {
                there?;
                Ok(Appended::Taken)
            }
        }
    }

    /// Whether the journal goes on with this `number`.
    pub(crate) async fn has(&self, number: u64) -> Result<bool> {
        Ok(self.folder.get(&file(number)).await?.is_some())
    }

    async fn entry<T: Entry>(&self, number: u64) -> Result<Option<T>> {
        read_json(&self.folder, &file(number)).await
    }
}

fn file(entry: u64) -> String {
    format!("log/{}.json", number(entry))
}

/// Names sort as their numbers do.
pub(crate) fn number(number: u64) -> String {
    format!("{number:020}")
}

/// Reads a file of `folder`, if it is there.
pub(crate) async fn read_json<T: DeserializeOwned + Formatted>(folder: &StoreFolder, file: &str) -> Result<Option<T>> {
    match folder.get(file).await? {
        Some(bytes) => decode_json(&folder.place(file), &bytes).map(Some),
        None => Ok(None),
    }
}

/// Decodes a file; `place` is for errors.
///
/// # Errors
/// Bytes that are no such file, and a file that a newer version wrote.
pub(crate) fn decode_json<'a, T: Deserialize<'a> + Formatted>(place: &str, bytes: &'a [u8]) -> Result<T> {
    #[derive(Deserialize)]
    struct Header {
        format: u32,
    }
    let read = serde_json::from_slice::<T>(bytes);
    let format = match &read {
        Ok(file) => Some(file.format()),
        Err(_) => serde_json::from_slice(bytes).ok().map(|header: Header| header.format),
    };
    if let Some(format) = format.filter(|format| *format > T::NEWEST) {
        bail!(
            InvalidCatalog,
            "{place} has format {format}, which is newer than this program reads ({}): use a newer version of datafusion-predict",
            T::NEWEST
        );
    }
    read.map_err(|cause| error!(InvalidCatalog, "{place} is damaged").with_source(cause))
}

/// The error of what can't be encoded.
pub(crate) fn encoding(cause: serde_json::Error) -> Error {
    error!(InvalidCatalog, "a file of the catalog can't be written").with_source(cause)
}

/// Microseconds since 1970, UTC.
pub(crate) fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

/// A time as entries have it, such as [`now`], in the type of others that comes from the system's.
pub(crate) fn timestamp<Tz>(micros: i64) -> Option<Tz>
where
    std::time::SystemTime: Into<Tz>,
{
    let since = std::time::Duration::from_micros(u64::try_from(micros).ok()?);
    Some((std::time::UNIX_EPOCH + since).into())
}

/// A random while, so that writers that met once do not meet again.
pub(crate) fn backoff(attempt: u32) -> Duration {
    let most = 2u64 << attempt.min(5);
    Duration::from_millis(u64::from(uuid::Uuid::new_v4().as_fields().0) % most)
}
