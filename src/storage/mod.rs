//! Places beyond this process: object stores, and the cache of what was fetched from afar.

#[cfg(feature = "aws")]
mod aws;
#[cfg(feature = "azure")]
mod azure;
mod cache;
mod downloads;
mod folder;
#[cfg(feature = "gcp")]
mod gcp;
pub(crate) mod journal;
mod options;
pub(crate) mod patience;
mod place;

use std::sync::Arc;

use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreScheme};
use url::Url;

pub(crate) use cache::CacheEntry;
pub use cache::DiskCache;
pub use downloads::Download;
pub(crate) use downloads::Downloads;
pub use folder::StoreFolder;
pub use options::StorageOptions;
pub(crate) use place::{Place, absolute, redacted, relative};

use crate::error::{Result, bail, error};

/// For a request as a whole, whose parts have limits: see [`patience`]. The options may say otherwise.
#[cfg(any(feature = "aws", feature = "azure", feature = "gcp"))]
const ANY_TIME: &str = "365days";

/// In a build without the feature: a module that refuses what the store of its name would open.
#[cfg(not(all(feature = "aws", feature = "azure", feature = "gcp")))]
macro_rules! not_built {
    ($store:ident) => {
        mod $store {
            use std::sync::Arc;

            use object_store::ObjectStore;
            use url::Url;

            use crate::error::Result;
            use crate::storage::{StorageOptions, not_built_in};

            pub(super) fn open(url: &Url, _options: &StorageOptions) -> Result<Arc<dyn ObjectStore>> {
                Err(not_built_in(url.as_str(), stringify!($store)))
            }
        }
    };
}
#[cfg(not(feature = "aws"))]
not_built!(aws);
#[cfg(not(feature = "azure"))]
not_built!(azure);
#[cfg(not(feature = "gcp"))]
not_built!(gcp);

/// The store that `url` names (`s3`, `gs`, `az` and their kin), and the path within.
///
/// Credentials come from the usual environment variables and from `options`.
///
/// # Errors
/// Another scheme, and options that the store does not know.
pub(crate) fn open_store(url: &Url, options: &StorageOptions) -> Result<(Arc<dyn ObjectStore>, Path)> {
    let shown = redacted(url.as_str());
    if url.query().is_some() || url.password().is_some() {
        bail!(
            Unreadable,
            "'{shown}' can't be used: credentials belong into the environment or the options, not into the URL of a store"
        );
    }
    let (scheme, path) = ObjectStoreScheme::parse(url)
        .map_err(|cause| error!(Unreadable, "'{shown}' can't be read").with_source(cause))?;
    let store = match scheme {
        ObjectStoreScheme::AmazonS3 => aws::open(url, options)?,
        ObjectStoreScheme::GoogleCloudStorage => gcp::open(url, options)?,
        ObjectStoreScheme::MicrosoftAzure => azure::open(url, options)?,
        _ => bail!(Unreadable, "'{shown}' is no object store: expected s3://, gs:// or az://"),
    };
    Ok((store, path))
}

/// The error of a store that can't be used.
#[cfg(any(feature = "aws", feature = "azure", feature = "gcp"))]
fn unusable(url: &Url, cause: object_store::Error) -> crate::error::Error {
    error!(Unreadable, "'{}' can't be used", redacted(url.as_str())).with_source(cause)
}

/// The error for a place that only a build with `feature` reaches.
#[cfg(not(all(feature = "aws", feature = "azure", feature = "gcp", feature = "http", feature = "mlflow")))]
pub(crate) fn not_built_in(uri: &str, feature: &str) -> crate::error::Error {
    error!(
        Unreadable,
        "'{}' can't be read: this program was built without the feature '{feature}' of datafusion-predict",
        redacted(uri)
    )
}

/// What may be done about the failure of a store, where that is known.
pub(crate) fn hint(cause: &object_store::Error) -> Option<&'static str> {
    let text = cause.to_string();
    match text.contains("169.254.169.254") || text.contains("metadata.google.internal") {
        true => Some(
            "no credentials were found: are AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or GOOGLE_…, AZURE_…) set?",
        ),
        false => None,
    }
}

/// A hash in hexadecimal digits.
pub(crate) fn hex(hash: impl AsRef<[u8]>) -> String {
    hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The folder `path` of this machine as a store.
pub(crate) fn open_folder(path: &std::path::Path) -> Result<Arc<dyn ObjectStore>> {
    let store = std::fs::create_dir_all(path)
        .map_err(|source| object_store::Error::Generic { store: "folder", source: source.into() })
        .and_then(|()| LocalFileSystem::new_with_prefix(path));
    match store {
        Ok(store) => Ok(Arc::new(store)),
        Err(cause) => Err(error!(Unreadable, "the folder '{}' can't be used", path.display()).with_source(cause)),
    }
}
