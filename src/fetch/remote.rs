//! The files of a model elsewhere, and how they come into the cache.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use datafusion_predict_native::Model;
use futures::StreamExt;
use futures::stream::BoxStream;

use super::{FILE, Fetched, STATIC, inside, mlmodel};
use crate::background;
use crate::byte_size::ByteSize;
use crate::error::{Error, Result, bail, error};
use crate::storage::{CacheEntry, DiskCache, redacted};

/// A place with files.
#[async_trait]
pub(super) trait Remote: Send + Sync {
    /// Opens the file `name`, unless it still has the ETag `known`.
    async fn open(&self, name: &str, known: Option<&str>) -> Result<Opened>;

    /// What tells this place from all others, for the cache.
    fn place(&self) -> String;

    /// Where the model's file may be, in order: its folder, with a slash at the end if it is not empty, and its name.
    fn candidates(&self) -> Vec<(String, String)>;
}

/// What a place answers.
pub(super) enum Opened {
    /// There is no such file.
    Missing,
    /// It is as it was.
    Unchanged,
    /// Its content, whose size may be known before.
    Content { etag: Option<String>, size: Option<u64>, bytes: BoxStream<'static, Result<Bytes, Error>> },
}

/// The file at `path`; where there is none, the model in the folder `path`.
pub(super) fn file_or_folder(path: &str) -> Vec<(String, String)> {
    let files = if cfg!(feature = "mlflow") { &[mlmodel::DESCRIPTION, FILE, STATIC][..] } else { &[FILE, STATIC] };
    let in_folder =
        |folder: &str| -> Vec<_> { files.iter().map(|file| (folder.to_owned(), (*file).to_owned())).collect() };
    match path.strip_suffix('/') {
        Some(_) => in_folder(path),
        None if path.is_empty() => in_folder(""),
        None => {
            let (folder, file) =
                path.rsplit_once('/').map_or(("", path), |(_, file)| (&path[..path.len() - file.len()], file));
            let mut candidates = vec![(folder.to_owned(), file.to_owned())];
            candidates.extend(in_folder(&format!("{path}/")));
            candidates
        }
    }
}

/// Brings a model from `remote` into the cache; files that have not changed since are taken from there.
pub(super) async fn fetch_remote(uri: &str, remote: &dyn Remote, cache: &DiskCache) -> Result<Fetched> {
    let shown = redacted(uri);
    let name = remote.place();
    let previous = cache.find(&name);
    let fetch = |folder| async {
        let unchanged = AtomicBool::new(previous.is_some());
        let download =
            Download { uri: &shown, remote, previous: previous.as_ref(), cache, folder, unchanged: &unchanged };
        let entry = download.model().await?;
        Ok((!unchanged.into_inner()).then_some(entry))
    };
    let fetched = cache.fetch(&name, fetch).await?;
    let (folder, entry) = match fetched.or_else(|| previous.clone()) {
        Some(entry) => entry,
        None => bail!(Unreadable, "'{shown}' can't be read: it has not changed since never"),
    };
    Ok(Fetched { uri: shown, path: folder.join(entry.main), features: entry.features })
}

/// One model on its way.
struct Download<'a> {
    uri: &'a str,
    remote: &'a dyn Remote,
    previous: Option<&'a (PathBuf, CacheEntry)>,
    cache: &'a DiskCache,
    /// Where it goes.
    folder: PathBuf,
    /// Whether nothing was new so far.
    unchanged: &'a AtomicBool,
}

impl Download<'_> {
    async fn model(&self) -> Result<CacheEntry> {
        let mut entry = CacheEntry::default();
        for (folder, file) in self.remote.candidates() {
            if !self.file(&folder, &file, &mut entry).await? {
                continue;
            }
            let (folder, file) =
                if file == mlmodel::DESCRIPTION { self.described(folder, &mut entry).await? } else { (folder, file) };
            entry.main.clone_from(&file);
            let (external, companions) = self.external_files(&file).await?;
            for name in companions {
                self.file(&folder, name, &mut entry).await?;
            }
            for name in external {
                let name = inside(self.uri, &name)?;
                if !self.file(&folder, &name, &mut entry).await? {
                    bail!(Unreadable, "'{}': its external weights '{name}' are not there", self.uri);
                }
            }
            return Ok(entry);
        }
        bail!(Unreadable, "'{}' can't be read: there is no such file, and no folder with a model in it", self.uri)
    }

    /// The file that an MLmodel names.
    async fn described(&self, folder: String, entry: &mut CacheEntry) -> Result<(String, String)> {
        let text = fs::read(self.folder.join(mlmodel::DESCRIPTION)).map_err(|cause| self.unwritable(cause))?;
        let description = mlmodel::read_description(self.uri, &text)?;
        let data = inside(self.uri, &description.data)?;
        entry.features = description.features;
        let (subfolder, file) = match data.rsplit_once('/') {
            Some((subfolder, file)) => (format!("{subfolder}/"), file.to_owned()),
            None => (String::new(), data),
        };
        let folder = format!("{folder}{subfolder}");
        if !self.file(&folder, &file, entry).await? {
            bail!(Unreadable, "'{}': its file '{subfolder}{file}' is not there", self.uri);
        }
        Ok((folder, file))
    }

    async fn external_files(&self, file: &str) -> Result<(Vec<String>, &'static [&'static str])> {
        let (uri, path) = (self.uri.to_owned(), self.folder.join(file));
        background::blocking(move || Ok(Model::external_files(&uri, &path)?)).await
    }

    /// Writes the file `name` of the place's `folder` into ours; whether it is there.
    async fn file(&self, folder: &str, name: &str, entry: &mut CacheEntry) -> Result<bool> {
        let to = self.folder.join(name);
        let known = self.previous.and_then(|(folder, previous)| {
            let (_, etag) = previous.files.iter().find(|(file, _)| file == name)?;
            Some((folder.join(name), etag.as_deref()?)).filter(|(file, _)| file.is_file())
        });
        let opened = self.remote.open(&format!("{folder}{name}"), known.as_ref().map(|(_, etag)| *etag)).await?;
        if let Some(parent) = to.parent() {
            fs::create_dir_all(parent).map_err(|cause| self.unwritable(cause))?;
        }
        let etag = match (opened, known) {
            (Opened::Missing, _) => return Ok(false),
            (Opened::Unchanged, Some((from, etag))) => {
                fs::hard_link(&from, &to)
                    .or_else(|_| fs::copy(&from, &to).map(drop))
                    .map_err(|cause| self.unwritable(cause))?;
                Some(etag.to_owned())
            }
            (Opened::Unchanged, None) => {
                bail!(Unreadable, "'{}' can't be read: 'not modified' is no answer to a first request", self.uri)
            }
            (Opened::Content { etag, size, bytes }, _) => {
                self.unchanged.store(false, Ordering::Relaxed);
                let description = name == mlmodel::DESCRIPTION;
                let limit = if description { mlmodel::LARGEST_DESCRIPTION } else { self.cache.largest_fetch };
                self.write(&to, size, bytes, limit).await?;
                etag
            }
        };
        entry.files.push((name.to_owned(), etag));
        Ok(true)
    }

    async fn write(
        &self,
        to: &Path,
        size: Option<u64>,
        mut bytes: BoxStream<'static, Result<Bytes>>,
        limit: u64,
    ) -> Result<()> {
        let too_large = |found: String| {
            let limit = ByteSize(limit);
            error!(Unreadable, "'{}' has {found} bytes, more than the download limit of {limit}", self.uri)
        };
        if let Some(size) = size.filter(|size| *size > limit) {
            return Err(too_large(size.to_string()));
        }
        let mut file = fs::File::create(to).map_err(|cause| self.unwritable(cause))?;
        let download = self.cache.downloads.begin(self.uri, size);
        let mut written = 0;
        while let Some(chunk) = bytes.next().await {
            let chunk = chunk?;
            written += chunk.len() as u64;
            download.add(chunk.len());
            if written > limit {
                return Err(too_large(format!("at least {written}")));
            }
            // Into the page cache: no thread is worth it.
            file.write_all(&chunk).map_err(|cause| self.unwritable(cause))?;
        }
        match size {
            Some(size) if size != written => {
                bail!(Unreadable, "'{}' was cut short: {written} of {size} bytes came", self.uri)
            }
            _ => Ok(()),
        }
    }

    fn unwritable(&self, cause: std::io::Error) -> Error {
        error!(Unreadable, "'{}' can't be written into the cache", self.uri).with_source(cause)
    }
}
