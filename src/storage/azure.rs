//! Microsoft Azure Blob Storage.

use std::sync::Arc;

use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::{ClientConfigKey, ObjectStore};
use url::Url;

use super::{ANY_TIME, StorageOptions, unusable};
use crate::error::Result;

/// The bucket that `url` names.
pub(super) fn open(url: &Url, options: &StorageOptions) -> Result<Arc<dyn ObjectStore>> {
    let keys = options.keys::<AzureConfigKey>("azure.")?;
    let own = options.names_endpoint("azure.");
    let builder = if own { MicrosoftAzureBuilder::new() } else { MicrosoftAzureBuilder::from_env() };
    let builder = builder.with_url(url.as_str());
    let builder = builder.with_config(AzureConfigKey::Client(ClientConfigKey::Timeout), ANY_TIME);
    let builder = keys.into_iter().fold(builder, |builder, (key, value)| builder.with_config(key, value));
    let store = builder.build().map_err(|cause| unusable(url, cause))?;
    Ok(Arc::new(store))
}
