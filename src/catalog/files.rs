//! The models' files in a catalog, by the hash of their content.

use std::fs;
use std::io::Read;
use std::path::PathBuf;

use object_store::path::Path;
use object_store::{MultipartUpload, ObjectStore, ObjectStoreExt, PutPayload};
use sha2::{Digest, Sha256};

use super::VersionRecord;
use crate::error::{Error, Result, bail, error};
use crate::storage::{CacheEntry, DiskCache};

/// The name of the ONNX file, whatever it was called.
pub(super) const MAIN: &str = "model.onnx";

/// Bytes of a part of a large file; S3 takes no parts below 5 MiB, and 10,000 of them.
const PART: usize = 16 << 20;

/// The files of a model on this machine.
#[derive(Debug, Clone)]
pub struct ModelFiles {
    /// The ONNX file.
    pub path: PathBuf,
    /// The external weights, by their names beside it.
    pub external: Vec<String>,
    /// The SHA-256 of all, as [`Model::sha256`](crate::Model::sha256) gives it.
    pub sha256: String,
}

impl ModelFiles {
    /// Names in the catalog, and paths on this machine.
    fn each(&self) -> impl Iterator<Item = (&str, PathBuf)> {
        let main = std::iter::once((MAIN, self.path.clone()));
        main.chain(self.external.iter().map(|name| (name.as_str(), self.path.with_file_name(name))))
    }
}

/// Copies `files` into `folder`, unless they are there. What changes meanwhile never arrives under the hash that it had.
///
/// `local` is the store's folder, if it is one of this machine.
pub(super) async fn publish(
    store: &dyn ObjectStore,
    folder: &Path,
    files: &ModelFiles,
    local: Option<&std::path::Path>,
) -> Result<()> {
    let mut hash = Sha256::new();
    let mut uploads = vec![];
    for (i, (name, path)) in files.each().enumerate() {
        if i > 0 {
            hash.update(name.as_bytes());
        }
        let target = target(folder, name)?;
        let size = fs::metadata(&path).map_err(|cause| unreadable(&path, cause))?.len();
        let there = store.head(&target).await.is_ok_and(|found| found.size == size);
        uploads.push(match there {
            true => Upload::None,
            false => send(store, &target, &path, size, &mut hash).await?,
        });
        if there {
            hash_file(&path, &mut hash)?;
        }
    }
    let found: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    if found != files.sha256 {
        for upload in uploads {
            if let Upload::Parts(mut upload) = upload {
                let _ = upload.abort().await;
            }
        }
        bail!(InvalidModel, "'{}' has changed while it was read: try again", files.path.display());
    }
    for (upload, (name, _)) in uploads.into_iter().zip(files.each()) {
        let target = target(folder, name)?;
        let done = match upload {
            Upload::None => continue,
            Upload::Whole(bytes) => store.put(&target, PutPayload::from(bytes)).await,
            Upload::Parts(mut upload) => upload.complete().await,
        };
        done.map_err(|cause| unwritable(&target, cause))?;
        if let Some(local) = local {
            // A commit that outlasts the machine's failure must not name what does not.
            let path = local.join(target.as_ref());
            fs::File::open(&path).and_then(|file| file.sync_all()).map_err(|cause| unreadable(&path, cause))?;
        }
    }
    Ok(())
}

/// A file on its way, which is not seen yet.
enum Upload {
    None,
    Whole(Vec<u8>),
    Parts(Box<dyn MultipartUpload>),
}

async fn send(
    store: &dyn ObjectStore,
    target: &Path,
    path: &std::path::Path,
    size: u64,
    hash: &mut Sha256,
) -> Result<Upload> {
    if size <= PART as u64 {
        let bytes = fs::read(path).map_err(|cause| unreadable(path, cause))?;
        hash.update(&bytes);
        return Ok(Upload::Whole(bytes));
    }
    let mut file = fs::File::open(path).map_err(|cause| unreadable(path, cause))?;
    let mut upload = store.put_multipart(target).await.map_err(|cause| unwritable(target, cause))?;
    loop {
        let mut part = Vec::with_capacity(PART);
        file.by_ref().take(PART as u64).read_to_end(&mut part).map_err(|cause| unreadable(path, cause))?;
        if part.is_empty() {
            return Ok(Upload::Parts(upload));
        }
        hash.update(&part);
        upload.put_part(PutPayload::from(part)).await.map_err(|cause| unwritable(target, cause))?;
    }
}

/// Brings the files of `record` from `folder` into the cache, if they are not there.
pub(super) async fn fetch(
    store: &dyn ObjectStore,
    folder: &Path,
    record: &VersionRecord,
    cache: &DiskCache,
) -> Result<PathBuf> {
    let name = format!("sha256:{}", record.sha256); // the same bytes, whatever catalog they come from
    if let Some((local, entry)) = cache.find(&name) {
        return Ok(local.join(entry.main));
    }
    let download = |local: PathBuf| async move {
        for name in std::iter::once(MAIN).chain(record.external_files.iter().map(String::as_str)) {
            let from = target(folder, name)?;
            let to = local.join(name);
            let unwritable = |cause| error!(Unreadable, "'{}' can't be written", to.display()).with_source(cause);
            if let Some(parent) = to.parent() {
                fs::create_dir_all(parent).map_err(unwritable)?;
            }
            let failed = |cause| error!(Unreadable, "the catalog's file '{from}' can't be read").with_source(cause);
            let mut bytes = store.get(&from).await.map_err(failed)?.into_stream();
            let mut file = fs::File::create(&to).map_err(unwritable)?;
            while let Some(chunk) = futures::StreamExt::next(&mut bytes).await {
                std::io::Write::write_all(&mut file, &chunk.map_err(failed)?).map_err(unwritable)?;
            }
        }
        Ok(CacheEntry { main: MAIN.to_owned(), ..CacheEntry::default() })
    };
    let (local, entry) = cache.fetch(&name, download).await?;
    Ok(local.join(entry.main))
}

fn target(folder: &Path, name: &str) -> Result<Path> {
    let name = Path::parse(name)
        .map_err(|cause| error!(InvalidModel, "external weights '{name}' can't be kept").with_source(cause))?;
    Ok(Path::from_iter(folder.parts().chain(name.parts())))
}

fn hash_file(path: &std::path::Path, hash: &mut Sha256) -> Result<()> {
    let mut file = fs::File::open(path).map_err(|cause| unreadable(path, cause))?;
    let mut chunk = vec![0; 1 << 16];
    loop {
        match file.read(&mut chunk).map_err(|cause| unreadable(path, cause))? {
            0 => return Ok(()),
            read => hash.update(&chunk[..read]),
        }
    }
}

fn unreadable(path: &std::path::Path, cause: std::io::Error) -> Error {
    error!(Unreadable, "'{}' can't be read", path.display()).with_source(cause)
}

fn unwritable(target: &Path, cause: object_store::Error) -> Error {
    error!(Unreadable, "the catalog's file '{target}' can't be written").with_source(cause)
}
