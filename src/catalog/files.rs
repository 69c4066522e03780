//! The models' files in a catalog, by the hash of their content.

use std::fs;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::PathBuf;

use datafusion_predict_native::ModelFiles;
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload};
use sha2::{Digest, Sha256};

use super::VersionRecord;
use crate::background;
use crate::error::{Error, Result, bail, error};
use crate::storage::{CacheEntry, DiskCache, hex, patience, relative};

/// The name of the ONNX file, whatever it was called.
pub(super) const MAIN: &str = "model.onnx";

/// Bytes of a part of a large file; S3 takes no parts below 5 MiB, and 10,000 of them.
const PART: u64 = 16 << 20;

/// Names in the catalog, and paths on this machine.
fn each(files: &ModelFiles) -> impl Iterator<Item = (&str, PathBuf)> {
    let main = std::iter::once((MAIN, files.path.clone()));
    main.chain(files.external.iter().map(|name| (name.as_str(), files.path.with_file_name(name))))
}

/// Copies `files` into `folder`, unless they are there. What changes meanwhile never arrives under the hash that it had.
///
/// `local` is the store's folder, if it is one of this machine.
///
/// # Errors
/// Files that can't be read or written, or that have changed; names of external weights that can't be kept.
pub(super) async fn publish(
    store: &dyn ObjectStore,
    folder: &Path,
    files: &ModelFiles,
    local: Option<&std::path::Path>,
) -> Result<()> {
    for (name, _) in each(files) {
        let target = target(folder, name)?;
        if name != MAIN && target == self::target(folder, MAIN)? {
            bail!(InvalidModel, "external weights '{name}' have the name that the catalog gives to the graph");
        }
    }
    let wanted = files.clone();
    let hashes = background::blocking(move || hash_all(&wanted)).await?;
    for ((name, path), hash) in each(files).zip(hashes) {
        let target = target(folder, name)?;
        let size = fs::metadata(&path).map_err(|cause| unreadable(&path, cause))?.len();
        let there = match local {
            Some(local) => hash_of(local.join(target.as_ref())).await.is_some_and(|found| found == hash),
            // A large file is not sent again for the sake of what may have happened to its content.
            None => size > PART && patience::answer(store.head(&target)).await.is_ok_and(|found| found.size == size),
        };
        if !there {
            send(store, &target, &path, size, &hash).await?;
        }
        if let Some(local) = local {
            // A commit that outlasts the machine's failure must not name what does not.
            let path = local.join(target.as_ref());
            let unflushed = |cause| error!(Unreadable, "'{}' can't be flushed", path.display()).with_source(cause);
            flush(&path).map_err(unflushed)?;
        }
    }
    Ok(())
}

/// Hashes what is written.
struct HashWriter<'a>(&'a mut Sha256);

impl Write for HashWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The hash of the file at `path`, if it can be read.
async fn hash_of(path: PathBuf) -> Option<Hash> {
    let hash = background::blocking(move || {
        let mut hash = Sha256::new();
        let copied = fs::File::open(&path).and_then(|mut file| std::io::copy(&mut file, &mut HashWriter(&mut hash)));
        copied.map(|_| hash.finalize()).map_err(|cause| unreadable(&path, cause))
    });
    hash.await.ok()
}

/// The hash of each file; all together must be what the model was read from.
fn hash_all(files: &ModelFiles) -> Result<Vec<Hash>> {
    let mut all = Sha256::new();
    let mut hashes = vec![];
    for (i, (name, path)) in each(files).enumerate() {
        if i > 0 {
            all.update(name.as_bytes());
        }
        let mut one = Sha256::new();
        let mut file = fs::File::open(&path).map_err(|cause| unreadable(&path, cause))?;
        let mut chunk = vec![0; 1 << 16];
        loop {
            let read = file.read(&mut chunk).map_err(|cause| unreadable(&path, cause))?;
            if read == 0 {
                break;
            }
            all.update(&chunk[..read]);
            one.update(&chunk[..read]);
        }
        hashes.push(one.finalize());
    }
    if hex(all.finalize()) == files.sha256 { Ok(hashes) } else { Err(changed(&files.path)) }
}

type Hash = sha2::digest::Output<Sha256>;

fn changed(path: &std::path::Path) -> Error {
    error!(InvalidModel, "'{}' has changed while it was read: try again", path.display())
}

async fn send(
    store: &dyn ObjectStore,
    target: &Path,
    path: &std::path::Path,
    size: u64,
    expected: &Hash,
) -> Result<()> {
    let part = async |from: u64| {
        let path = path.to_owned();
        background::blocking(move || {
            let mut bytes = Vec::new();
            let read = fs::File::open(&path).and_then(|mut file| {
                file.seek(SeekFrom::Start(from))?;
                file.take(PART).read_to_end(&mut bytes)
            });
            read.map(|_| bytes).map_err(|cause| unreadable(&path, cause))
        })
        .await
    };
    if size <= PART {
        let bytes = part(0).await?;
        if Sha256::digest(&bytes) != *expected {
            return Err(changed(path));
        }
        let put = patience::upload(store.put(target, PutPayload::from(bytes))).await;
        return put.map(drop).map_err(|cause| unwritable(target, cause));
    }
    let mut upload = store.put_multipart(target).await.map_err(|cause| unwritable(target, cause))?;
    let mut hash = Sha256::new();
    let mut sent = 0;
    let parts = async {
        loop {
            let bytes = part(sent).await?;
            if bytes.is_empty() {
                break;
            }
            sent += bytes.len() as u64;
            hash.update(&bytes);
            upload.put_part(PutPayload::from(bytes)).await.map_err(|cause| unwritable(target, cause))?;
        }
        if hash.finalize() != *expected {
            return Err(changed(path));
        }
        upload.complete().await.map(drop).map_err(|cause| unwritable(target, cause))
    };
    let sent = parts.await;
    if sent.is_err() {
        let _ = upload.abort().await; // nothing of it is seen in any case
    }
    sent
}

/// Flushes a file, and the names that lead to it, to the disk.
fn flush(path: &std::path::Path) -> std::io::Result<()> {
    if !cfg!(unix) {
        return fs::File::options().append(true).open(path)?.sync_all(); // other systems flush only what may be written
    }
    path.ancestors().take(4).try_for_each(|path| fs::File::open(path)?.sync_all())
}

/// What the cache calls the files of this hash.
pub(super) fn cache_name(sha256: &str) -> String {
    format!("sha256:{sha256}") // the same bytes, whatever catalog they come from
}

/// Brings the files of `record` from `folder` into the cache, if they are not there.
pub(super) async fn fetch(
    store: &dyn ObjectStore,
    folder: &Path,
    record: &VersionRecord,
    cache: &DiskCache,
) -> Result<PathBuf> {
    let name = cache_name(&record.sha256);
    if let Some((local, entry)) = cache.find(&name) {
        return Ok(local.join(entry.main));
    }
    let download = |local: PathBuf| async move {
        let mut hash = Sha256::new();
        for name in std::iter::once(MAIN).chain(record.external_files.iter().map(String::as_str)) {
            if name != MAIN {
                hash.update(name.as_bytes());
            }
            let from = target(folder, name)?;
            let to = local.join(relative(name).ok_or_else(|| outside(name))?);
            let unwritable = |cause| error!(Unreadable, "'{}' can't be written", to.display()).with_source(cause);
            if let Some(parent) = to.parent() {
                fs::create_dir_all(parent).map_err(unwritable)?;
            }
            let failed = |cause| error!(Unreadable, "the catalog's file '{from}' can't be read").with_source(cause);
            let got = patience::answer(store.get(&from)).await.map_err(failed)?;
            let download = cache.downloads.begin(from.as_ref(), Some(got.meta.size));
            let mut bytes = got.into_stream();
            let mut file = fs::File::create(&to).map_err(unwritable)?;
            while let Some(chunk) = patience::answer(bytes.try_next()).await.map_err(failed)? {
                hash.update(&chunk);
                download.add(chunk.len());
                file.write_all(&chunk).map_err(unwritable)?;
            }
        }
        let found = hex(hash.finalize());
        if found != record.sha256 {
            bail!(
                InvalidModel,
                "the catalog's file '{folder}/{MAIN}' is damaged: its sha256 is {found}, expected {}",
                record.sha256
            );
        }
        Ok(Some(CacheEntry { main: MAIN.to_owned(), ..CacheEntry::default() }))
    };
    match cache.fetch(&name, download).await? {
        Some((local, entry)) => Ok(local.join(entry.main)),
        None => bail!(Unreadable, "the catalog's file '{folder}/{MAIN}' was not fetched"),
    }
}

fn target(folder: &Path, name: &str) -> Result<Path> {
    let name = relative(name).ok_or_else(|| outside(name))?;
    let name = Path::parse(&name)
        .map_err(|cause| error!(InvalidModel, "external weights '{name}' can't be kept").with_source(cause))?;
    Ok(Path::from_iter(folder.parts().chain(name.parts())))
}

fn outside(name: &str) -> Error {
    error!(InvalidModel, "external weights '{name}' are outside the model's folder")
}

fn unreadable(path: &std::path::Path, cause: std::io::Error) -> Error {
    error!(Unreadable, "'{}' can't be read", path.display()).with_source(cause)
}

fn unwritable(target: &Path, cause: object_store::Error) -> Error {
    error!(Unreadable, "the catalog's file '{target}' can't be written").with_source(cause)
}
