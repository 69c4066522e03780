//! The object stores of a run: each input file is read in the version that the run began with.

use std::collections::HashMap;
use std::fmt::{self, Debug, Display, Formatter};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use async_trait::async_trait;
use bytes::Bytes;
use datafusion::common::Result as DFResult;
use datafusion::execution::object_store::ObjectStoreRegistry;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetRange, GetResult, GetResultPayload, ListResult, MultipartUpload,
    OBJECT_STORE_COALESCE_DEFAULT, ObjectMeta, ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult,
    RenameOptions, Result, coalesce_ranges,
};
use url::Url;

use crate::storage::{StorageOptions, open_store};

/// What the stores of a run share.
#[derive(Debug, Default)]
pub(super) struct Pins {
    /// The versions of the files that the run has fixed.
    etags: RwLock<HashMap<(String, Path), String>>,
    /// Bytes that were read.
    read: AtomicU64,
}

impl Pins {
    /// From now on the file at `path` of the store at `url` is read in the version `etag`, or not at all.
    pub(super) fn pin(&self, url: &Url, path: Path, etag: String) {
        self.etags.write().unwrap_or_else(PoisonError::into_inner).insert((key(url), path), etag);
    }

    /// Bytes that were read since the last call.
    pub(super) fn take_bytes_read(&self) -> u64 {
        self.read.swap(0, Ordering::Relaxed)
    }

    fn etag(&self, store: &str, path: &Path) -> Option<String> {
        let etags = self.etags.read().unwrap_or_else(PoisonError::into_inner);
        etags.get(&(store.to_owned(), path.clone())).cloned()
    }
}

/// The stores of the session that a job is run in, each behind a [`PinnedStore`]. One that the session does not know yet is
/// opened with what the environment says.
#[derive(Debug)]
pub(super) struct JobStores {
    session: Arc<dyn ObjectStoreRegistry>,
    pins: Arc<Pins>,
    wrapped: RwLock<HashMap<String, Arc<dyn ObjectStore>>>,
}

impl JobStores {
    pub(super) fn new(session: Arc<dyn ObjectStoreRegistry>, pins: Arc<Pins>) -> Self {
        Self { session, pins, wrapped: RwLock::default() }
    }

    fn wrap(&self, url: &Url, store: Arc<dyn ObjectStore>) -> Arc<dyn ObjectStore> {
        let store: Arc<dyn ObjectStore> =
            Arc::new(PinnedStore { inner: store, pins: self.pins.clone(), key: key(url) });
        self.wrapped.write().unwrap_or_else(PoisonError::into_inner).insert(key(url), store.clone());
        store
    }
}

impl ObjectStoreRegistry for JobStores {
    fn register_store(&self, url: &Url, store: Arc<dyn ObjectStore>) -> Option<Arc<dyn ObjectStore>> {
        self.wrap(url, store);
        None
    }

    fn get_store(&self, url: &Url) -> DFResult<Arc<dyn ObjectStore>> {
        if let Some(store) = self.wrapped.read().unwrap_or_else(PoisonError::into_inner).get(&key(url)) {
            return Ok(store.clone());
        }
        let store = match self.session.get_store(url) {
            Ok(store) => store,
            Err(_) => {
                let (store, _) = open_store(url, &StorageOptions::default())?;
                store
            }
        };
        Ok(self.wrap(url, store))
    }
}

fn key(url: &Url) -> String {
    format!("{}://{}", url.scheme(), &url[url::Position::BeforeHost..url::Position::AfterPort])
}

/// A store that gives a pinned file in its pinned version only.
struct PinnedStore {
    inner: Arc<dyn ObjectStore>,
    pins: Arc<Pins>,
    /// Tells the stores of a run apart.
    key: String,
}

impl Debug for PinnedStore {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        Debug::fmt(&self.inner, f)
    }
}

impl Display for PinnedStore {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        Display::fmt(&self.inner, f)
    }
}

#[async_trait]
impl ObjectStore for PinnedStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.inner.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, mut options: GetOptions) -> Result<GetResult> {
        if options.if_match.is_none() {
            options.if_match = self.pins.etag(&self.key, location);
        }
        let head = options.head;
        let mut got = self.inner.get_opts(location, options).await?;
        if !head {
            let pins = self.pins.clone();
            match got.payload {
                GetResultPayload::Stream(stream) => {
                    let counted = stream.inspect(move |part| {
                        let bytes = part.as_ref().map_or(0, |part| part.len() as u64);
                        pins.read.fetch_add(bytes, Ordering::Relaxed);
                    });
                    got.payload = GetResultPayload::Stream(counted.boxed());
                }
                GetResultPayload::File(..) => {
                    pins.read.fetch_add(got.range.end - got.range.start, Ordering::Relaxed);
                }
            }
        }
        Ok(got)
    }

    /// Request by request, since a store may otherwise look at no version.
    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let get = |range: Range<u64>| async {
            let options = GetOptions { range: Some(GetRange::Bounded(range)), ..GetOptions::default() };
            self.get_opts(location, options).await?.bytes().await
        };
        coalesce_ranges(ranges, get, OBJECT_STORE_COALESCE_DEFAULT).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.inner.rename_opts(from, to, options).await
    }
}

#[cfg(test)]
mod tests {
    use object_store::ObjectStoreExt;
    use object_store::local::LocalFileSystem;

    use super::*;

    #[tokio::test]
    async fn a_file_that_has_changed_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let inner = Arc::new(LocalFileSystem::new_with_prefix(folder.path()).expect("a store"));
        let pins = Arc::new(Pins::default());
        let store = PinnedStore { inner: inner.clone(), pins: pins.clone(), key: "s3://lake".to_owned() };
        let path = Path::from("a");
        inner.put(&path, "before".into()).await.expect("written");
        let etag = inner.head(&path).await.expect("there").e_tag.expect("a version");
        let url = Url::parse("s3://lake/a").expect("a URL");
        pins.pin(&url, path.clone(), etag);
        assert_eq!(store.get_ranges(&path, &[0..2, 4..6]).await.expect("read"), ["be", "re"]);
        assert!(pins.take_bytes_read() >= 4 && pins.take_bytes_read() == 0);
        inner.put(&path, "after!".into()).await.expect("written");
        let changed = |error: object_store::Error| matches!(error, object_store::Error::Precondition { .. });
        assert!(store.get_ranges(&path, &[0..2, 4..6]).await.is_err_and(changed));
        assert!(store.get(&path).await.is_err_and(changed));
        assert!(store.head(&path).await.is_err_and(changed));
    }
}
