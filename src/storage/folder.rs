//! A folder of small files in a store, in which a file that is created once decides.

use std::path::PathBuf;
use std::sync::Arc;

use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};

use super::{Place, StorageOptions, redacted};
use super::{hint, open_folder, open_store, patience};
use crate::background;
use crate::error::{Error, Result, bail, error};

/// A folder in an object store or of this machine.
///
/// It promises one thing beyond reading and writing: of two creations of one file only one succeeds. Catalogs and jobs, which
/// any number of processes use at the same time, need no lock beside that.
#[derive(Clone)]
pub struct StoreFolder {
    store: Arc<dyn ObjectStore>,
    root: Path,
    /// Where the store is a folder of this machine.
    local: Option<PathBuf>,
    /// What errors call it: `catalog 's3://…'`.
    name: String,
}

/// Its name alone: a store may hold credentials.
impl std::fmt::Debug for StoreFolder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("StoreFolder").field(&self.name).finish()
    }
}

impl StoreFolder {
    /// The folder `root` of a store of your own; `name` is what errors call it, as in `catalog 'models'`.
    pub fn new(store: Arc<dyn ObjectStore>, root: Path, name: impl Into<String>) -> Self {
        Self { store, root, local: None, name: name.into() }
    }

    /// The folder at `uri`, a path or a URL, which errors call `kind 'uri'`. A folder of this machine is made.
    pub(crate) fn open(kind: &str, uri: &str) -> Result<Self> {
        let name = format!("{kind} '{}'", redacted(uri));
        match Place::of(uri)? {
            Place::Local(path) => {
                let unusable = |cause: std::io::Error| error!(Unreadable, "{name} can't be used").with_source(cause);
                if path.is_file() {
                    bail!(Unreadable, "{name} can't be used: it is a file, not a folder");
                }
                let path = std::path::absolute(path).map_err(unusable)?;
                Ok(Self { store: open_folder(&path)?, root: Path::default(), local: Some(path), name })
            }
            Place::Remote(url) => {
                let (store, root) = open_store(&url, &StorageOptions::default())?;
                Ok(Self { store, root, local: None, name })
            }
        }
    }

    /// A folder within this one.
    pub(crate) fn folder(&self, name: &str) -> Self {
        Self { root: self.path(name), ..self.clone() }
    }

    pub(crate) fn store(&self) -> &Arc<dyn ObjectStore> {
        &self.store
    }

    /// The folder on this machine that the store's paths are below, if it is one.
    pub(crate) fn local(&self) -> Option<&std::path::Path> {
        self.local.as_deref()
    }

    /// `catalog 's3://…'`
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The path of `file`, in which slashes separate folders.
    pub(crate) fn path(&self, file: &str) -> Path {
        file.split('/').filter(|part| !part.is_empty()).fold(self.root.clone(), |path, part| path.join(part))
    }

    /// `catalog 's3://…': log/00…1.json`
    pub(crate) fn place(&self, file: &str) -> String {
        format!("{}: {file}", self.name)
    }

    /// The content of `file`, if there is such a file.
    pub(crate) async fn get(&self, file: &str) -> Result<Option<bytes::Bytes>> {
        let got = match patience::answer(self.store.get(&self.path(file))).await {
            Ok(got) => patience::answer(got.bytes()).await,
            Err(error) => Err(error),
        };
        match got {
            Ok(bytes) => Ok(Some(bytes)),
            // Stores answer alike where there is no such bucket: not an empty folder.
            Err(cause @ object_store::Error::NotFound { .. })
                if !["NoSuchBucket", "ContainerNotFound"].iter().any(|code| cause.to_string().contains(code)) =>
            {
                Ok(None)
            }
            Err(cause) => Err(self.failed("read", file, cause)),
        }
    }

    /// Whether this call created `file`. It outlasts the machine's failure.
    pub(crate) async fn create(&self, file: &str, bytes: Vec<u8>) -> Result<bool> {
        if let Some(folder) = &self.local {
            let path = folder.join(self.path(file).as_ref());
            let place = self.place(file);
            return background::blocking(move || {
                let created = create_durably(&path, &bytes);
                created.map_err(|cause| error!(Unreadable, "{place} can't be written").with_source(cause))
            })
            .await;
        }
        self.create_soon(file, bytes).await
    }

    /// As [`create`](Self::create), of a file that may be lost when the machine fails.
    pub(crate) async fn create_soon(&self, file: &str, bytes: Vec<u8>) -> Result<bool> {
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        match patience::answer(self.store.put_opts(&self.path(file), PutPayload::from(bytes), options)).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => Ok(false),
            Err(cause) => Err(self.failed("written", file, cause)),
        }
    }

    /// Writes `file`, whether it is there or not.
    pub(crate) async fn put(&self, file: &str, bytes: Vec<u8>) -> Result<()> {
        let put = patience::answer(self.store.put(&self.path(file), PutPayload::from(bytes))).await;
        put.map(drop).map_err(|cause| self.failed("written", file, cause))
    }

    /// The error of a file that can't be read or written.
    pub(crate) fn failed(&self, what: &str, file: &str, cause: object_store::Error) -> Error {
        let note = hint(&cause);
        error!(Unreadable, "{} can't be {what}", self.place(file)).with_source(cause).with_note(note)
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
