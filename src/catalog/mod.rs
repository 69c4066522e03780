//! Names → versions of models: what there is, not what runs it.

mod change;
mod checkpoint;
mod commit;
mod files;
mod handle;
mod interface;
mod log;
mod name;
mod object_store;
mod snapshot;
mod version;

use std::fmt::Debug;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion_predict_native::ModelFiles;

pub use self::object_store::ObjectStoreCatalog;
pub(crate) use self::object_store::author;
pub use change::Change;
pub use commit::HistoryEntry;
pub use handle::{ModelHandle, Readiness};
pub use interface::{Feature, Interface, TensorNote};
pub use name::{ModelReference, VersionReference};
pub(crate) use name::{fold_alias, fold_name, version_number};
pub use snapshot::CatalogSnapshot;
pub(crate) use snapshot::ModelPin;
pub use version::{DEFAULT_ALIAS, ModelEntry, ModelVersion, Traffic, VersionRecord};

use crate::error::Result;
use crate::storage::{DiskCache, StoreFolder};

/// What a change has led to.
#[derive(Debug, Clone)]
pub struct Committed {
    /// What there is then.
    pub snapshot: Arc<CatalogSnapshot>,
    /// The number of the version that was created, if one was.
    pub created: Option<u64>,
}

/// Where models are kept. What it holds is seen through snapshots: planning asks them, and never waits.
#[async_trait]
pub trait ModelCatalog: Debug + Send + Sync {
    /// The models as of the last [`refresh`](Self::refresh) or change made here.
    fn snapshot(&self) -> Arc<CatalogSnapshot>;

    /// Learns what others have changed.
    ///
    /// # Errors
    /// A catalog that can't be reached, or that is damaged.
    async fn refresh(&self) -> Result<()>;

    /// Makes a change, all of it or nothing.
    ///
    /// # Errors
    /// A change that does not fit what is there, and a catalog that can't be written.
    async fn commit(&self, change: Change) -> Result<Committed>;

    /// All changes that were made, from the first on.
    ///
    /// # Errors
    /// A catalog that can't be read.
    async fn history(&self) -> Result<Vec<HistoryEntry>>;

    /// Whether models' files are copied in; else they are read from where they came from.
    fn keeps_files(&self) -> bool;

    /// Copies a model's files in, before a commit names them.
    ///
    /// # Errors
    /// Files that can't be read or written, or that change meanwhile.
    async fn publish(&self, files: &ModelFiles) -> Result<()>;

    /// The ONNX file of a version whose files were copied in, on this machine.
    ///
    /// # Errors
    /// Files that can't be read.
    async fn fetch(&self, record: &VersionRecord, cache: &DiskCache) -> Result<PathBuf>;

    /// What [`fetch`](Self::fetch) gave is gone or damaged: the next call brings it anew.
    fn forget(&self, record: &VersionRecord, cache: &DiskCache);

    /// Where jobs are kept, beside the models; `None` if they can't be.
    fn jobs(&self) -> Option<StoreFolder> {
        None
    }
}
