//! Places beyond this process: object stores, and the cache of what was fetched from afar.

mod cache;
mod downloads;
mod options;
pub(crate) mod patience;
mod place;

use std::sync::Arc;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ClientConfigKey, ObjectStore, ObjectStoreScheme};
use url::Url;

pub(crate) use cache::CacheEntry;
pub use cache::DiskCache;
pub use downloads::Download;
pub(crate) use downloads::Downloads;
pub use options::StorageOptions;
pub(crate) use place::{Place, absolute, redacted, relative};

use crate::error::{Result, bail, error};

/// For a request as a whole, whose parts have limits: see [`patience`]. The options may say otherwise.
const ANY_TIME: &str = "365days";

/// The store that `url` names (`s3`, `gs`, `az` and their kin), and the path within.
///
/// Credentials come from the usual environment variables and from `options`.
///
/// # Errors
/// Another scheme, and options that the store does not know.
pub(crate) fn open_store(url: &Url, options: &StorageOptions) -> Result<(Arc<dyn ObjectStore>, Path)> {
    let shown = redacted(url.as_str());
    let unusable = |cause: object_store::Error| error!(Unreadable, "'{shown}' can't be used").with_source(cause);
    if url.query().is_some() || url.password().is_some() {
        bail!(
            Unreadable,
            "'{shown}' can't be used: credentials belong into the environment or the options, not into the URL of a store"
        );
    }
    let (scheme, path) = ObjectStoreScheme::parse(url)
        .map_err(|cause| error!(Unreadable, "'{shown}' can't be read").with_source(cause))?;
    let store: Arc<dyn ObjectStore> = match scheme {
        ObjectStoreScheme::AmazonS3 => {
            let keys = options.keys::<AmazonS3ConfigKey>("aws.")?;
            let own = options.names_endpoint("aws.");
            let builder = if own { AmazonS3Builder::new() } else { AmazonS3Builder::from_env() }.with_url(url.as_str());
            let builder = builder.with_config(AmazonS3ConfigKey::Client(ClientConfigKey::Timeout), ANY_TIME);
            let builder = keys.into_iter().fold(builder, |builder, (key, value)| builder.with_config(key, value));
            // Who names an endpoint without TLS means it.
            let plain = builder
                .get_config_value(&AmazonS3ConfigKey::Endpoint)
                .is_some_and(|endpoint| endpoint.starts_with("http://"));
            let builder = if plain { builder.with_allow_http(true) } else { builder };
            Arc::new(builder.build().map_err(unusable)?)
        }
        ObjectStoreScheme::GoogleCloudStorage => {
            let keys = options.keys::<GoogleConfigKey>("gcp.")?;
            let own = options.names_endpoint("gcp.");
            let builder = if own { GoogleCloudStorageBuilder::new() } else { GoogleCloudStorageBuilder::from_env() };
            let builder = builder.with_url(url.as_str());
            let builder = builder.with_config(GoogleConfigKey::Client(ClientConfigKey::Timeout), ANY_TIME);
            let builder = keys.into_iter().fold(builder, |builder, (key, value)| builder.with_config(key, value));
            Arc::new(builder.build().map_err(unusable)?)
        }
        ObjectStoreScheme::MicrosoftAzure => {
            let keys = options.keys::<AzureConfigKey>("azure.")?;
            let own = options.names_endpoint("azure.");
            let builder = if own { MicrosoftAzureBuilder::new() } else { MicrosoftAzureBuilder::from_env() };
            let builder = builder.with_url(url.as_str());
            let builder = builder.with_config(AzureConfigKey::Client(ClientConfigKey::Timeout), ANY_TIME);
            let builder = keys.into_iter().fold(builder, |builder, (key, value)| builder.with_config(key, value));
            Arc::new(builder.build().map_err(unusable)?)
        }
        _ => bail!(Unreadable, "'{shown}' is no object store: expected s3://, gs:// or az://"),
    };
    Ok((store, path))
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
