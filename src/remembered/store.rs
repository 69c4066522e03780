//! The store of one model: an index in memory of what is in its segments.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant, SystemTime};

use uuid::Uuid;

use super::segment::{self, Key, Span};

/// Bytes of a segment, about: what is removed at once when a store is full.
const SEGMENT: u64 = 64 << 20;

/// How often it is looked whether other processes have added anything.
const REFRESH: Duration = Duration::from_secs(1);

/// Values that are this near to each other are read together.
const GAP: u64 = 8 << 10;

/// Bytes that are read together, at most, unless one value has more.
const LARGEST_READ: u64 = 4 << 20;

/// The values of one model, in a folder.
#[derive(Debug)]
pub(super) struct Store {
    folder: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    segments: Vec<Segment>,
    /// Where each value is: the place of its segment, and the span in it.
    index: HashMap<Key, (u32, Span)>,
    /// The segment of this process, by its place.
    own: Option<usize>,
    refreshed: Option<Instant>,
    /// Bytes that were written since room was made.
    written: u64,
}

#[derive(Debug)]
struct Segment {
    path: PathBuf,
    file: Arc<Mutex<File>>,
    /// Its records up to there are in the index.
    read: u64,
}

/// A value that was found, by the place of its key among those asked for.
pub(super) type Found = (usize, Vec<u8>);

impl Store {
    /// The store in `folder`: one for all of this process.
    pub(super) fn open(folder: &Path) -> Arc<Self> {
        static OPEN: LazyLock<Mutex<HashMap<PathBuf, Weak<Store>>>> = LazyLock::new(Mutex::default);
        let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(store) = open.get(folder).and_then(Weak::upgrade) {
            return store;
        }
        let store = Arc::new(Self { folder: folder.to_owned(), state: Mutex::default() });
        open.insert(folder.to_owned(), Arc::downgrade(&store));
        store
    }

    /// Where it is.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The values of those of `keys` that are there. What can't be read, or is not what was written, is not there.
    pub(super) fn find(&self, keys: &[Key]) -> Vec<Found> {
        let (mut spans, files) = {
            let mut state = self.state();
            self.refresh(&mut state);
            let spans = keys.iter().enumerate().filter_map(|(place, key)| Some((place, *state.index.get(key)?)));
            let spans: Vec<_> = spans.collect();
            (spans, state.segments.iter().map(|segment| segment.file.clone()).collect::<Vec<_>>())
        };
        // In the order of the files: neighbours are read together.
        spans.sort_unstable_by_key(|(_, (segment, span))| (*segment, span.offset));
        let mut found = Vec::with_capacity(spans.len());
        let mut rest = spans.as_slice();
        while let Some((_, (segment, first))) = rest.first() {
            let mut end = first.offset + u64::from(first.length);
            let together = rest.iter().take_while(|(_, (other, span))| {
                let near = other == segment
                    && span.offset <= end + GAP
                    && span.offset + u64::from(span.length) <= first.offset + LARGEST_READ;
                end = end.max(if near { span.offset + u64::from(span.length) } else { 0 });
                near || span == first
            });
            let (these, others) = rest.split_at(together.count().max(1));
            rest = others;
            let Ok(bytes) = read(&files[*segment as usize], first.offset, (end - first.offset) as usize) else {
                continue;
            };
            for (place, (_, span)) in these {
                let start = (span.offset - first.offset) as usize;
                let value = &bytes[start..start + span.length as usize];
                if segment::checksum(value) == span.checksum {
                    found.push((*place, value.to_vec()));
                }
            }
        }
        found
    }

    /// Adds rows, and makes room where all stores beside this one have more than `limit` bytes together.
    ///
    /// # Errors
    /// A folder that can't be written to.
    pub(super) fn add<'a>(
        &self,
        rows: impl ExactSizeIterator<Item = (Key, &'a [u8])> + Clone,
        limit: u64,
    ) -> io::Result<()> {
        let record = segment::record(rows.clone());
        if record.len() as u64 > limit {
            return Ok(());
        }
        let mut state = self.state();
        let place = match state.own {
            Some(place) if state.segments[place].read < SEGMENT.min(limit / 4) => place,
            _ => {
                fs::create_dir_all(&self.folder)?;
                let path = self.folder.join(format!("{}.segment", Uuid::new_v4()));
                let file = OpenOptions::new().create_new(true).append(true).read(true).open(&path)?;
                state.segments.push(Segment { path, file: Arc::new(Mutex::new(file)), read: 0 });
                let place = state.segments.len() - 1;
                state.own = Some(place);
                place
            }
        };
        let segment = &mut state.segments[place];
        let start = segment.read;
        let written = lock(&segment.file).write_all(&record);
        if let Err(error) = written {
            // Half a record may be there: nothing follows it.
            state.own = None;
            return Err(error);
        }
        segment.read = start + record.len() as u64;
        let mut offset = segment.read - rows.clone().map(|(_, value)| value.len() as u64).sum::<u64>();
        for (key, value) in rows {
            let span = Span { offset, length: value.len() as u32, checksum: segment::checksum(value) };
            state.index.entry(key).or_insert((place as u32, span));
            offset += value.len() as u64;
        }
        state.written += record.len() as u64;
        if state.written > limit / 16 {
            state.written = 0;
            let own = state.own.map(|place| state.segments[place].path.clone());
            drop(state);
            make_room(self.folder.parent().unwrap_or(&self.folder), own.as_deref(), limit);
        }
        Ok(())
    }

    /// Reads what other processes have added, and leaves out what they have removed.
    fn refresh(&self, state: &mut State) {
        if state.refreshed.is_some_and(|at| at.elapsed() < REFRESH) {
            return;
        }
        state.refreshed = Some(Instant::now());
        let paths = fs::read_dir(&self.folder).into_iter().flatten().flatten().map(|entry| entry.path());
        let paths: Vec<_> = paths.filter(|path| path.extension().is_some_and(|it| it == "segment")).collect();
        for path in paths {
            let place = match state.segments.iter().position(|segment| segment.path == path) {
                Some(own) if state.own == Some(own) => continue,
                Some(place) => place,
                None => {
                    let Ok(file) = File::open(&path) else { continue };
                    state.segments.push(Segment { path, file: Arc::new(Mutex::new(file)), read: 0 });
                    state.segments.len() - 1
                }
            };
            let State { segments, index, .. } = state;
            let segment = &mut segments[place];
            let read = segment::read_from(&mut lock(&segment.file), segment.read, |key, span| {
                index.entry(key).or_insert((place as u32, span));
            });
            match read {
                Ok(end) => segment.read = end,
                Err(error) => log::warn!("'{}' can't be read: {error}", segment.path.display()),
            }
        }
    }
}

fn lock(file: &Mutex<File>) -> MutexGuard<'_, File> {
    file.lock().unwrap_or_else(PoisonError::into_inner)
}

fn read(file: &Mutex<File>, offset: u64, length: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    let mut file = lock(file);
    file.seek(SeekFrom::Start(offset))?;
    file.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// Removes the oldest segments below `folder` until the others have no more than `limit` bytes; `kept` stays.
///
/// A process that has one open reads on from it.
fn make_room(folder: &Path, kept: Option<&Path>, limit: u64) {
    let folders = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let files = folders.filter_map(|folder| fs::read_dir(folder).ok()).flatten().flatten();
    let mut segments: Vec<(SystemTime, u64, PathBuf)> = files
        .filter_map(|file| {
            let metadata = file.metadata().ok().filter(fs::Metadata::is_file)?;
            Some((metadata.modified().ok()?, metadata.len(), file.path()))
        })
        .filter(|(_, _, path)| path.extension().is_some_and(|it| it == "segment"))
        .collect();
    segments.sort();
    let mut total: u64 = segments.iter().map(|(_, size, _)| size).sum();
    for (_, size, path) in segments {
        if total <= limit {
            break;
        }
        if kept != Some(path.as_path()) && fs::remove_file(&path).is_ok() {
            total -= size;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u32) -> Key {
        let mut key = Key::default();
        key[..4].copy_from_slice(&number.to_le_bytes());
        key
    }

    fn add(store: &Store, numbers: std::ops::Range<u32>, limit: u64) {
        let rows: Vec<_> = numbers.map(|number| (key(number), format!("value {number}").repeat(9))).collect();
        store.add(rows.iter().map(|(key, value)| (*key, value.as_bytes())), limit).expect("a folder");
    }

    fn found(store: &Store, numbers: &[u32]) -> Vec<(usize, String)> {
        let keys: Vec<_> = numbers.iter().map(|number| key(*number)).collect();
        let mut found = store.find(&keys);
        found.sort();
        found.into_iter().map(|(place, value)| (place, String::from_utf8(value).expect("a text"))).collect()
    }

    /// A store that shares nothing with others of this process.
    fn another(folder: &Path) -> Store {
        Store { folder: folder.to_owned(), state: Mutex::default() }
    }

    #[test]
    fn what_one_process_adds_others_find() {
        let folder = tempfile::tempdir().expect("a folder");
        let folder = folder.path().join("model");
        let (one, two) = (another(&folder), another(&folder));
        assert!(found(&one, &[1, 2]).is_empty());
        add(&one, 0..100, 1 << 20);
        add(&two, 100..200, 1 << 20);
        add(&one, 200..300, 1 << 20);
        let three = another(&folder);
        let all: Vec<u32> = (0..310).rev().collect();
        let values = found(&three, &all);
        assert_eq!(values.len(), 300);
        for (place, value) in values {
            assert_eq!(value, format!("value {}", 309 - place).repeat(9));
        }
        assert_eq!(found(&one, &[5, 5, 7]).len(), 3);
    }

    #[test]
    fn a_segment_that_was_cut_or_changed_anywhere_gives_no_wrong_value() {
        let folder = tempfile::tempdir().expect("a folder");
        let folder = folder.path().join("model");
        let store = another(&folder);
        add(&store, 0..20, 1 << 20);
        add(&store, 20..40, 1 << 20);
        let path = store.state().segments[0].path.clone();
        let whole = fs::read(&path).expect("the segment");
        let all: Vec<u32> = (0..40).collect();
        for length in (0..whole.len()).step_by(7) {
            fs::write(&path, &whole[..length]).expect("a shorter segment");
            let values = found(&another(&folder), &all);
            assert!(values.len() == 20 || values.is_empty(), "{length} bytes: {}", values.len());
            assert!(values.iter().all(|(place, value)| *value == format!("value {place}").repeat(9)));
        }
        for place in (0..whole.len()).step_by(3) {
            let mut changed = whole.clone();
            changed[place] ^= 0x10;
            fs::write(&path, &changed).expect("a changed segment");
            let values = found(&another(&folder), &all);
            assert!(values.iter().all(|(place, value)| *value == format!("value {place}").repeat(9)), "{place}");
        }
    }

    #[test]
    fn the_oldest_go_where_there_is_no_room() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = another(&folder.path().join("model"));
        let limit = 100_000;
        for start in 0..50 {
            add(&store, start * 100..(start + 1) * 100, limit);
        }
        let size: u64 = fs::read_dir(folder.path().join("model"))
            .expect("the folder")
            .map(|entry| entry.and_then(|entry| entry.metadata()).expect("a file").len())
            .sum();
        assert!(size <= limit + limit / 8, "{size}");
        let fresh = another(&folder.path().join("model"));
        assert_eq!(found(&fresh, &[4999]).len(), 1, "the newest is there");
        assert!(found(&fresh, &[0]).is_empty(), "the oldest is not");
    }
}
