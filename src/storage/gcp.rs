//! Google Cloud Storage.

use std::sync::Arc;

use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::{ClientConfigKey, ObjectStore};
use url::Url;

use super::{ANY_TIME, StorageOptions, unusable};
use crate::error::Result;

/// The bucket that `url` names.
pub(super) fn open(url: &Url, options: &StorageOptions) -> Result<Arc<dyn ObjectStore>> {
    let keys = options.keys::<GoogleConfigKey>("gcp.")?;
    let own = options.names_endpoint("gcp.");
    let builder = if own { GoogleCloudStorageBuilder::new() } else { GoogleCloudStorageBuilder::from_env() };
    let builder = builder.with_url(url.as_str());
    let builder = builder.with_config(GoogleConfigKey::Client(ClientConfigKey::Timeout), ANY_TIME);
    let builder = keys.into_iter().fold(builder, |builder, (key, value)| builder.with_config(key, value));
    let store = builder.build().map_err(|cause| unusable(url, cause))?;
    Ok(Arc::new(store))
}
