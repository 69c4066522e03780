//! What was fetched from afar, on disk: entries that never change, and the least recently used go first.

use std::fs;
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{Downloads, hex};
use crate::background;
use crate::error::{Result, error};

/// The file in an entry's folder that says what it is.
const DESCRIPTION: &str = "entry.json";

/// The folder in an entry's folder that holds its files.
const FILES: &str = "files";

/// A folder of entries, each a folder with a model's files. Processes share it.
#[derive(Debug, Clone)]
pub struct DiskCache {
    root: PathBuf,
    /// Bytes that all entries may take; those that were used lately stay in any case.
    pub(crate) limit: u64,
    /// Bytes that one file may have.
    pub(crate) largest_fetch: u64,
    /// How long an entry stays after its last use: somebody may be reading it.
    grace: Duration,
    /// What is being fetched into it.
    pub(crate) downloads: Downloads,
}

/// What an entry was fetched from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CacheEntry {
    /// Files, by their place in the folder, and the ETags that they came with.
    pub files: Vec<(String, Option<String>)>,
    /// The main file.
    pub main: String,
    /// The features' names, where the model's description gave them.
    #[serde(default)]
    pub features: Vec<String>,
}

impl DiskCache {
    /// The cache in `root`; if none is given, in `$DATAFUSION_PREDICT_CACHE`, or else in the user's cache folder.
    pub(crate) fn new(root: Option<PathBuf>, limit: u64, largest_fetch: u64) -> Self {
        let named = root.or_else(|| std::env::var_os("DATAFUSION_PREDICT_CACHE").map(PathBuf::from));
        let root = named.unwrap_or_else(|| {
            dirs::cache_dir().unwrap_or_else(std::env::temp_dir).join("datafusion-predict").join("fetched")
        });
        Self { root, limit, largest_fetch, grace: Duration::from_secs(600), downloads: Downloads::default() }
    }

    /// The folder for what models have scored, which is not counted among what was fetched.
    pub(crate) fn remembered(&self) -> PathBuf {
        self.root.join("remembered")
    }

    /// The folder for what providers of devices build, which is not counted either.
    #[cfg(feature = "onnxruntime")]
    pub(crate) fn engines(&self) -> PathBuf {
        self.root.join("engines")
    }

    /// The folder for models that stand beside a tokenizer from elsewhere, which is not counted either.
    pub(crate) fn with_tokenizers(&self) -> PathBuf {
        self.root.join("tokenized")
    }

    /// The entry that was last fetched under `name`, with the folder of its files.
    pub(crate) fn find(&self, name: &str) -> Option<(PathBuf, CacheEntry)> {
        let (_, folder) = self.entries(name).filter_map(|path| Some((used(&path)?, path))).max()?;
        let entry = serde_json::from_slice(&fs::read(folder.join(DESCRIPTION)).ok()?).ok()?;
        touch(&folder);
        Some((folder.join(FILES), entry))
    }

    /// Removes what was fetched under `name`, which has turned out to be something else.
    pub(crate) fn forget(&self, name: &str) {
        for folder in self.entries(name) {
            let _ = fs::remove_dir_all(folder); // somebody else may be at it
        }
    }

    fn entries(&self, name: &str) -> impl Iterator<Item = PathBuf> {
        let prefix = key(name);
        let folders = fs::read_dir(&self.root).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()));
        folders.filter(move |path| path.file_name().is_some_and(|file| file.to_string_lossy().starts_with(&prefix)))
    }

    /// Fetches what is called `name`: `fetch` writes its files into a folder, and describes them; half of them are never
    /// seen. It may find that nothing is new: then there is no new entry.
    pub(crate) async fn fetch<F: Future<Output = Result<Option<CacheEntry>>>>(
        &self,
        name: &str,
        fetch: impl FnOnce(PathBuf) -> F,
    ) -> Result<Option<(PathBuf, CacheEntry)>> {
        let broken = |cause: io::Error| {
            error!(Unreadable, "the cache '{}' can't be used", self.root.display()).with_source(cause)
        };
        fs::create_dir_all(&self.root).map_err(broken)?;
        let fresh = tempfile::Builder::new().prefix(UNFINISHED).tempdir_in(&self.root).map_err(broken)?;
        let files = fresh.path().join(FILES);
        fs::create_dir(&files).map_err(broken)?;
        let Some(entry) = fetch(files).await? else { return Ok(None) };
        let text = serde_json::to_vec(&entry).map_err(|cause| broken(cause.into()))?;
        fs::write(fresh.path().join(DESCRIPTION), text).map_err(broken)?;
        let folder = self.root.join(format!("{}{}", key(name), uuid::Uuid::new_v4().simple()));
        fs::rename(fresh.keep(), &folder).map_err(broken)?;
        let (this, name, newest) = (self.clone(), name.to_owned(), folder.clone());
        let evicted = background::blocking(move || Ok(this.evict(&name, &newest))).await?;
        evicted.map_err(broken)?;
        Ok(Some((folder.join(FILES), entry)))
    }

    /// Removes earlier entries of `name`, those that processes left half done, and the least recently used while all
    /// take more than the limit; none that was used lately, nor `newest`.
    fn evict(&self, name: &str, newest: &Path) -> io::Result<()> {
        let prefix = key(name);
        let mut entries = vec![];
        for folder in fs::read_dir(&self.root)? {
            let folder = folder?.path();
            let file = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let unfinished = file.starts_with(UNFINISHED);
            let entry = is_key(&file) && folder.join(DESCRIPTION).is_file();
            if !unfinished && !entry {
                continue; // not ours
            }
            let age = SystemTime::now().duration_since(used(&folder).unwrap_or(SystemTime::UNIX_EPOCH));
            let rest = if unfinished { ABANDONED } else { self.grace };
            let in_use = folder == newest || age.is_err() || age.is_ok_and(|age| age < rest);
            if !in_use && (unfinished || file.starts_with(&prefix)) {
                let _ = fs::remove_dir_all(&folder); // somebody else may be at it
            } else if !unfinished {
                entries.push((in_use, used(&folder), size(&folder), folder));
            }
        }
        let mut total: u64 = entries.iter().map(|(_, _, size, _)| size).sum();
        entries.sort();
        for (in_use, _, size, folder) in entries {
            if total <= self.limit || in_use {
                break;
            }
            if fs::remove_dir_all(&folder).is_ok() {
                total -= size;
            }
        }
        Ok(())
    }
}

/// What the folders of fetches begin with that are not done.
const UNFINISHED: &str = "datafusion-predict-fetching-";

/// A fetch that was not done in so long was left by a process that ended.
const ABANDONED: Duration = Duration::from_secs(24 * 3600);

/// What the folders of entries for `name` begin with.
fn key(name: &str) -> String {
    let hash = Sha256::digest(name);
    format!("{}-", hex(&hash[..16]))
}

/// Whether a folder is called as entries are.
fn is_key(file: &str) -> bool {
    let digits = |text: &str| text.len() == 32 && text.chars().all(|c| c.is_ascii_hexdigit());
    file.split_once('-').is_some_and(|(key, entry)| digits(key) && digits(entry))
}

/// When the entry was last used: the time of its description.
fn used(folder: &Path) -> Option<SystemTime> {
    let description = fs::metadata(folder.join(DESCRIPTION)).or_else(|_| fs::metadata(folder));
    description.and_then(|metadata| metadata.modified()).ok()
}

fn touch(folder: &Path) {
    let file = fs::File::options().write(true).open(folder.join(DESCRIPTION));
    let _ = file.and_then(|file| file.set_modified(SystemTime::now())); // only the order of eviction is at stake
}

fn size(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().filter_map(|entry| entry.ok());
    let sizes = entries.map(|entry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => size(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    });
    sizes.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn put(cache: &DiskCache, name: &str, bytes: usize) -> PathBuf {
        let fetch = |folder: PathBuf| async move {
            fs::write(folder.join("model.onnx"), vec![0; bytes]).expect("room for it");
            Ok(Some(CacheEntry { main: "model.onnx".into(), ..CacheEntry::default() }))
        };
        cache.fetch(name, fetch).await.expect("fetched").expect("it is new").0
    }

    #[tokio::test]
    async fn the_least_recently_used_go_first() {
        let root = tempfile::tempdir().expect("a folder");
        let cache = DiskCache { grace: Duration::ZERO, ..DiskCache::new(Some(root.path().to_owned()), 2500, 0) };
        put(&cache, "a", 1000).await;
        put(&cache, "b", 1000).await;
        let later = SystemTime::now() + std::time::Duration::from_secs(5);
        let (folder, _) = cache.find("a").expect("it is there");
        let description = folder.with_file_name(DESCRIPTION);
        let file = fs::File::options().write(true).open(description).expect("its description");
        file.set_modified(later).expect("a file of ours");
        put(&cache, "c", 1000).await;
        assert!(cache.find("a").is_some() && cache.find("b").is_none() && cache.find("c").is_some());
        let newest = put(&cache, "d", 9000).await;
        assert!(newest.exists() && cache.find("c").is_none());
        // Somebody may be reading what was used lately: two who fetch the same leave each other's.
        let careful = DiskCache { grace: Duration::from_secs(60), limit: 0, ..cache };
        let (one, other) = (put(&careful, "d", 10).await, put(&careful, "d", 10).await);
        assert!(one.exists() && other.exists());
        // What is not ours stays, whatever the limit.
        fs::create_dir(root.path().join("holiday photos")).expect("a folder");
        put(&DiskCache { grace: Duration::ZERO, ..careful.clone() }, "e", 10).await;
        assert!(root.path().join("holiday photos").exists() && !one.exists());
        careful.forget("d");
        assert!(careful.find("d").is_none());
    }

    #[tokio::test]
    async fn a_fetch_that_fails_leaves_nothing() {
        let root = tempfile::tempdir().expect("a folder");
        let cache = DiskCache { grace: Duration::ZERO, ..DiskCache::new(Some(root.path().to_owned()), 2500, 0) };
        let fetch = |folder: PathBuf| async move {
            fs::write(folder.join("model.onnx"), "half").expect("room for it");
            crate::error::bail!(Unreadable, "the line is dead")
        };
        assert!(cache.fetch("a", fetch).await.is_err());
        assert!(cache.find("a").is_none());
        assert_eq!(fs::read_dir(root.path()).expect("the folder").count(), 0);
    }
}
