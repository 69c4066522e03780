//! A catalog in an object store, or in memory.

use std::fmt::{self, Debug, Formatter};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Instant;

use async_trait::async_trait;
use datafusion_predict_native::ModelFiles;
use object_store::ObjectStore;
use object_store::memory::InMemory;
use object_store::path::Path;

use super::files;
use super::log::{Log, Replayed};
use super::{CatalogSnapshot, Change, Committed, HistoryEntry, ModelCatalog, VersionRecord};
use crate::background;
use crate::error::{Result, bail};
use crate::storage::journal::Journal;
use crate::storage::{DiskCache, StoreFolder};

/// Models in an object store: a log of commits, and the models' files by their hashes.
///
/// Any number of processes may use one at the same time. The format is described in `docs/catalog-format.md`.
#[derive(Clone)]
pub struct ObjectStoreCatalog {
    inner: Arc<Inner>,
}

/// Its name alone: a store may hold credentials, and a catalog is long.
impl Debug for ObjectStoreCatalog {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ObjectStoreCatalog").field(&self.inner.log.folder().name()).finish()
    }
}

struct Inner {
    log: Log,
    /// Whether it lasts as long as the process: nobody else writes, and files stay where they are.
    in_memory: bool,
    /// What planning sees.
    snapshot: RwLock<Arc<CatalogSnapshot>>,
    /// One of us talks to the log at a time.
    replayed: tokio::sync::Mutex<Replayed>,
    /// When the last look at the log began that has ended, and what went wrong: who asked before need not look again.
    looked: Mutex<Option<(Instant, Option<String>)>>,
}

impl ObjectStoreCatalog {
    /// A catalog that lasts as long as the process. It copies no files.
    pub fn in_memory() -> Self {
        Self::new(StoreFolder::new(Arc::new(InMemory::new()), Path::default(), "catalog 'memory'"), true)
    }

    /// The catalog at `uri`: a folder, `file:///…`, `s3://…`, `gs://…` or `az://…`. One that is not there is made by its
    /// first model.
    ///
    /// Credentials come from the usual environment variables.
    ///
    /// ```
    /// # #[tokio::main] async fn main() -> datafusion_predict::Result<()> {
    /// use std::sync::Arc;
    /// use datafusion_predict::{CreateModel, ModelCatalog, ObjectStoreCatalog, PredictRuntime};
    ///
    /// let folder = std::env::temp_dir().join(format!("models-{}", std::process::id()));
    /// let catalog = ObjectStoreCatalog::open(&folder.to_string_lossy()).await?; // or s3://bucket/models
    /// let runtime = PredictRuntime::builder().with_catalog(Arc::new(catalog)).build();
    /// runtime.create(&CreateModel::new("iris", "tests/models/sklearn/iris_forest.onnx")?, "auto").await?;
    ///
    /// // Another process, later.
    /// let catalog = ObjectStoreCatalog::open(&folder.to_string_lossy()).await?;
    /// assert!(catalog.snapshot().get("iris").is_some());
    /// # std::fs::remove_dir_all(folder).expect("the folder");
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// A place that is none, that can't be reached or that refuses; a catalog that is damaged or of a newer format.
    pub async fn open(uri: &str) -> Result<Self> {
        let catalog = Self::new(StoreFolder::open("catalog", uri)?, false);
        catalog.reopen().await?;
        Ok(catalog)
    }

    /// The catalog under `root` of a store of your own; `name` is what errors call it.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub async fn open_in(store: Arc<dyn ObjectStore>, root: Path, name: &str) -> Result<Self> {
        let catalog = Self::new(StoreFolder::new(store, root, format!("catalog '{name}'")), false);
        catalog.reopen().await?;
        Ok(catalog)
    }

    fn new(folder: StoreFolder, in_memory: bool) -> Self {
        let inner = Inner {
            log: Log { journal: Journal { folder }, author: author() },
            in_memory,
            snapshot: RwLock::default(),
            replayed: tokio::sync::Mutex::default(),
            looked: Mutex::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    async fn reopen(&self) -> Result<()> {
        let inner = self.inner.clone();
        background::finish(async move {
            let mut replayed = inner.replayed.lock().await;
            *replayed = inner.log.open().await?;
            inner.show(&replayed);
            Ok(())
        })
        .await
    }
}

impl Inner {
    fn show(&self, replayed: &Replayed) {
        *self.snapshot.write().unwrap_or_else(PoisonError::into_inner) = replayed.snapshot.clone();
    }

    fn files(&self, sha256: &str) -> Path {
        self.log.folder().path(&format!("models/{sha256}"))
    }
}

#[async_trait]
impl ModelCatalog for ObjectStoreCatalog {
    fn snapshot(&self) -> Arc<CatalogSnapshot> {
        self.inner.snapshot.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn refresh(&self) -> Result<()> {
        if self.inner.in_memory {
            return Ok(()); // nobody else writes here
        }
        let inner = self.inner.clone();
        let asked = Instant::now();
        background::finish(async move {
            let mut replayed = inner.replayed.lock().await;
            let looked = || inner.looked.lock().unwrap_or_else(PoisonError::into_inner);
            // With what another query has just learned.
            match looked().as_ref().filter(|(began, _)| *began >= asked) {
                Some((_, None)) => return Ok(()),
                Some((_, Some(problem))) => bail!(Unreadable, "{problem}"),
                None => {}
            }
            let began = Instant::now();
            let news = inner.log.catch_up(&mut replayed, 1).await;
            *looked() = Some((began, news.as_ref().err().map(ToString::to_string)));
            if news? {
                inner.show(&replayed);
            }
            Ok(())
        })
        .await
    }

    async fn commit(&self, change: Change) -> Result<Committed> {
        let inner = self.inner.clone();
        background::finish(async move {
            let mut replayed = inner.replayed.lock().await;
            let committed = inner.log.commit(&mut replayed, &change).await;
            inner.show(&replayed); // what others did, in any case
            committed.map(|created| Committed { snapshot: replayed.snapshot.clone(), created })
        })
        .await
    }

    async fn history(&self) -> Result<Vec<HistoryEntry>> {
        let inner = self.inner.clone();
        background::run(async move {
            let replayed = inner.replayed.lock().await;
            inner.log.history(&replayed)
        })
        .await
    }

    fn keeps_files(&self) -> bool {
        !self.inner.in_memory
    }

    async fn publish(&self, files: &ModelFiles) -> Result<()> {
        let (inner, files) = (self.inner.clone(), files.clone());
        background::run(async move {
            let folder = inner.files(&files.sha256);
            let log = inner.log.folder();
            files::publish(log.store().as_ref(), &folder, &files, log.local()).await
        })
        .await
    }

    async fn fetch(&self, record: &VersionRecord, cache: &DiskCache) -> Result<PathBuf> {
        let name = format!("models/{}", record.sha256);
        if let Some(folder) = self.inner.log.folder().local() {
            return Ok(folder.join(&name).join(files::MAIN));
        }
        let (inner, record, cache) = (self.inner.clone(), record.clone(), cache.clone());
        background::finish(async move {
            let folder = inner.files(&record.sha256);
            files::fetch(inner.log.folder().store().as_ref(), &folder, &record, &cache).await
        })
        .await
    }

    fn forget(&self, record: &VersionRecord, cache: &DiskCache) {
        cache.forget(&files::cache_name(&record.sha256));
    }

    fn jobs(&self) -> Option<StoreFolder> {
        (!self.inner.in_memory).then(|| self.inner.log.folder().folder("jobs"))
    }
}

/// Who writes: `user@host`.
pub(crate) fn author() -> String {
    let user = whoami::username().unwrap_or_else(|_| "unknown".to_owned());
    let host = whoami::hostname().unwrap_or_else(|_| "unknown".to_owned());
    format!("{user}@{host}")
}
