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

/// How often it is looked whether other processes have added or removed anything.
const REFRESH: Duration = Duration::from_secs(1);

/// Values that are this near to each other are read together.
const GAP: u64 = 8 << 10;

/// Bytes that are read together, at most, unless one value has more.
const LARGEST_READ: u64 = 4 << 20;

/// Rows of the index in memory, at most: some hundred megabytes. Beyond, the oldest segments are not looked at.
const MOST_ROWS: usize = 8 << 20;

/// A store that no process has opened for so long is removed: its model has another version, or another program runs it.
const UNUSED: Duration = Duration::from_secs(30 * 24 * 3600);

/// The file whose time says when a store was last opened.
const USED: &str = "used";

/// The values of one model, in a folder.
#[derive(Debug)]
pub(super) struct Store {
    folder: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// `None` in the place of one that is gone.
    segments: Vec<Option<Segment>>,
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
    /// `None` if the index has no room for its rows.
    file: Option<Arc<Mutex<File>>>,
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
            let file = |segment: &Option<Segment>| segment.as_ref().and_then(|segment| segment.file.clone());
            (spans, state.segments.iter().map(file).collect::<Vec<_>>())
        };
        // In the order of the files: neighbours are read together.
        spans.sort_unstable_by_key(|(_, (segment, span))| (*segment, span.offset));
        let mut found = Vec::with_capacity(spans.len());
        let mut rest = spans.as_slice();
        while let Some((_, (segment, first))) = rest.first() {
            let mut end = first.end();
            let others = rest[1..].iter().take_while(|(_, (other, span))| {
                let near = other == segment
                    && span.offset <= end + GAP
                    && span.end().saturating_sub(first.offset) <= LARGEST_READ;
                if near {
                    end = end.max(span.end());
                }
                near
            });
            let (these, others) = rest.split_at(1 + others.count());
            rest = others;
            let file = files[*segment as usize].as_deref();
            let Some(Ok(bytes)) = file.map(|file| read(file, first.offset, (end - first.offset) as usize)) else {
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

    /// Adds rows, and removes the oldest where the store has more than `limit` bytes.
    ///
    /// # Errors
    /// A folder that can't be written to.
    pub(super) fn add(&self, rows: &[(Key, &[u8])], limit: u64) -> io::Result<()> {
        for rows in rows.chunks(segment::MOST_ROWS) {
            let record = segment::record(rows);
            if record.len() as u64 > limit {
                return Ok(());
            }
            let mut state = self.state();
            self.append(&mut state, rows, &record, limit)?;
            state.written += record.len() as u64;
            if state.written > limit / 16 {
                state.written = 0;
                let own = state.own_segment().map(|(_, segment)| segment.path.clone());
                drop(state);
                make_room(&self.folder, own.as_deref(), limit);
                remove_unused(&self.folder);
            }
        }
        Ok(())
    }

    /// Appends `record`, which holds `rows`, to the segment of this process; to a new one where that is full.
    fn append(&self, state: &mut State, rows: &[(Key, &[u8])], record: &[u8], limit: u64) -> io::Result<()> {
        let full = SEGMENT.min(limit / 4);
        if state.own_segment().is_none_or(|(_, segment)| segment.read >= full) {
            fs::create_dir_all(&self.folder)?;
            let path = self.folder.join(format!("{}.segment", Uuid::new_v4()));
            let file = OpenOptions::new().create_new(true).append(true).read(true).open(&path)?;
            state.segments.push(Some(Segment { path, file: Some(Arc::new(Mutex::new(file))), read: 0 }));
            state.own = Some(state.segments.len() - 1);
        }
        let State { segments, index, own, .. } = state;
        let Some((place, segment)) = own.and_then(|place| Some((place, segments[place].as_mut()?))) else {
            return Ok(());
        };
        let Some(file) = &segment.file else { return Ok(()) };
        if let Err(error) = lock(file).write_all(record) {
            // Half a record may be there: nothing follows it.
            *own = None;
            return Err(error);
        }
        segment.read += record.len() as u64;
        let mut offset = segment.read - rows.iter().map(|(_, value)| value.len() as u64).sum::<u64>();
        for (key, value) in rows {
            let span = Span { offset, length: value.len() as u32, checksum: segment::checksum(value) }; // it fits
            index.entry(*key).or_insert((place as u32, span));
            offset += value.len() as u64;
        }
        state.bound();
        Ok(())
    }

    /// Reads what other processes have added, and leaves out what they have removed.
    fn refresh(&self, state: &mut State) {
        match state.refreshed {
            Some(at) if at.elapsed() < REFRESH => return,
            Some(_) => {}
            None if self.folder.is_dir() => {
                let _ = fs::write(self.folder.join(USED), ""); // only its own end depends on it
            }
            None => {}
        }
        state.refreshed = Some(Instant::now());
        let mut segments = segments(&self.folder);
        state.forget(|segment| !segments.iter().any(|(_, _, path)| *path == segment.path));
        segments.sort();
        for (_, _, path) in segments {
            let known = state.segments.iter().position(|segment| segment.as_ref().is_some_and(|it| it.path == path));
            let place = match known {
                Some(own) if state.own == Some(own) => continue,
                Some(place) => place,
                None => {
                    let Ok(file) = File::open(&path) else { continue };
                    state.segments.push(Some(Segment { path, file: Some(Arc::new(Mutex::new(file))), read: 0 }));
                    state.segments.len() - 1
                }
            };
            let State { segments, index, .. } = state;
            let Some(segment) = &mut segments[place] else { continue };
            let Some(file) = &segment.file else { continue };
            let read = segment::read_from(&mut lock(file), segment.read, |key, span| {
                index.entry(key).or_insert((place as u32, span));
            });
            match read {
                Ok(end) => segment.read = end,
                Err(error) => log::warn!("'{}' can't be read: {error}", segment.path.display()),
            }
            state.bound();
        }
    }
}

impl State {
    fn own_segment(&self) -> Option<(usize, &Segment)> {
        self.own.and_then(|place| Some((place, self.segments[place].as_ref()?)))
    }

    /// Leaves out the segments that are `gone`, with their rows.
    fn forget(&mut self, gone: impl Fn(&Segment) -> bool) {
        let mut any = false;
        for segment in &mut self.segments {
            if segment.as_ref().is_some_and(&gone) {
                *segment = None;
                any = true;
            }
        }
        if any {
            let segments = &self.segments;
            self.index.retain(|_, (place, _)| segments[*place as usize].is_some());
        }
        self.own = self.own.filter(|place| self.segments[*place].is_some());
    }

    /// Takes the rows of the oldest segments out of the index while it has too many.
    fn bound(&mut self) {
        while self.index.len() > MOST_ROWS {
            let own = self.own;
            let oldest = self.segments.iter_mut().enumerate().find_map(|(place, segment)| {
                let segment = segment.as_mut().filter(|segment| segment.file.is_some() && own != Some(place))?;
                segment.file = None;
                Some(place as u32)
            });
            let Some(oldest) = oldest else { return };
            self.index.retain(|_, (place, _)| *place != oldest);
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

/// The segments in `folder`: when each was last written to, its bytes, and its path.
fn segments(folder: &Path) -> Vec<(SystemTime, u64, PathBuf)> {
    let files = fs::read_dir(folder).into_iter().flatten().flatten();
    let segment = |file: fs::DirEntry| {
        let path = file.path();
        let metadata = file.metadata().ok().filter(|_| path.extension().is_some_and(|it| it == "segment"))?;
        Some((metadata.modified().ok()?, metadata.len(), path))
    };
    files.filter_map(segment).collect()
}

/// Removes the oldest segments of `folder` until the others have no more than `limit` bytes; `kept` stays.
fn make_room(folder: &Path, kept: Option<&Path>, limit: u64) {
    let mut segments = segments(folder);
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

/// Removes the stores beside `folder` that no process has opened for long.
fn remove_unused(folder: &Path) {
    let stores = folder.parent().and_then(|parent| fs::read_dir(parent).ok()).into_iter().flatten().flatten();
    for store in stores.map(|store| store.path()).filter(|store| store != folder) {
        let last = segments(&store).into_iter().map(|(time, _, _)| time);
        let opened = fs::metadata(store.join(USED)).and_then(|used| used.modified()).ok();
        let age = last.chain(opened).max().and_then(|last| last.elapsed().ok());
        if age.is_some_and(|age| age > UNUSED) {
            let _ = fs::remove_dir_all(&store); // somebody else may be at it
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
        let rows: Vec<_> = rows.iter().map(|(key, value)| (*key, value.as_bytes())).collect();
        store.add(&rows, limit).expect("a folder");
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
        let path = segments(&folder).remove(0).2;
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
    fn what_others_remove_is_not_there_and_what_is_unused_goes() {
        let folder = tempfile::tempdir().expect("a folder");
        let (model, other) = (folder.path().join("model"), folder.path().join("other"));
        let (one, two) = (another(&model), another(&model));
        add(&one, 0..10, 1 << 20);
        assert_eq!(found(&two, &[1]).len(), 1);
        for (_, _, path) in segments(&model) {
            fs::remove_file(path).expect("a segment");
        }
        for store in [&one, &two] {
            store.state().refreshed = None;
            assert!(found(store, &[1]).is_empty());
        }
        add(&one, 20..30, 1 << 20);
        assert_eq!(found(&another(&model), &[25]).len(), 1, "it goes on in a new segment");

        add(&another(&other), 0..10, 1 << 20);
        let times = fs::FileTimes::new().set_modified(SystemTime::now() - 2 * UNUSED);
        let (_, _, old) = segments(&other).remove(0);
        File::options().append(true).open(old).and_then(|file| file.set_times(times)).expect("a file");
        remove_unused(&model);
        assert!(model.is_dir() && !other.exists());
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
