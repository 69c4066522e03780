//! Where a file is: a path of this machine, or an object of a store that the session knows.
//!
//! Plans name stores by their URLs; only what runs them has a store.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::execution::runtime_env::RuntimeEnv;
use object_store::ObjectStore;
use object_store::path::Path;
use url::{Position, Url};

use crate::error::{Result, bail, error};
use crate::storage::{StorageOptions, open_store, redacted};

/// A file of a store.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub store: Arc<dyn ObjectStore>,
    pub path: Path,
}

/// The file that `uri` names: a path, or a URL such as `s3://bucket/photo.jpg`.
///
/// # Errors
/// A URL that is none, and a store that can't be opened.
pub(super) fn place(uri: &str, environment: &RuntimeEnv) -> Result<Place> {
    let unusable = || error!(Unreadable, "'{}' names no file", redacted(uri));
    if !uri.contains("://") {
        let absolute = std::path::absolute(uri).map_err(|cause| unusable().with_source(cause))?;
        let path = Path::from_absolute_path(absolute).map_err(|cause| unusable().with_source(cause))?;
        return Ok(Place { store: local(environment)?, path });
    }
    let url = Url::parse(uri).map_err(|cause| unusable().with_source(cause))?;
    if url.query().is_some() || url.fragment().is_some() || url.password().is_some() {
        bail!(
            Unreadable,
            "'{}' names no file: '?' and '#' in a name are written %3F and %23, and credentials belong into the environment",
            redacted(uri)
        );
    }
    let path = Path::from_url_path(url.path()).map_err(|cause| unusable().with_source(cause))?;
    Ok(Place { store: store(&url, environment)?, path })
}

fn local(environment: &RuntimeEnv) -> Result<Arc<dyn ObjectStore>> {
    let found = environment.object_store(ObjectStoreUrl::local_filesystem());
    found.map_err(|cause| error!(Unreadable, "this session reads no files of this machine").with_source(cause))
}

/// The store that `url` begins with: that of the session, or one by the credentials of the environment.
///
/// # Errors
/// A URL of no store that is known, and a store that can't be opened.
pub(super) fn store(url: &Url, environment: &RuntimeEnv) -> Result<Arc<dyn ObjectStore>> {
    static OPENED: LazyLock<Mutex<HashMap<String, Arc<dyn ObjectStore>>>> = LazyLock::new(Mutex::default);
    let name = url[..Position::BeforePath].to_owned();
    if let Ok(known) = ObjectStoreUrl::parse(&name).and_then(|name| environment.object_store(name)) {
        return Ok(known);
    }
    let mut opened = OPENED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(store) = opened.get(&name) {
        return Ok(store.clone());
    }
    let (store, _) = open_store(url, &StorageOptions::default())?;
    opened.insert(name, store.clone());
    Ok(store)
}
