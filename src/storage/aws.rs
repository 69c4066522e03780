//! Amazon S3, and what speaks its protocol.

use std::sync::Arc;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::{ClientConfigKey, ObjectStore};
use url::Url;

use super::{ANY_TIME, StorageOptions, unusable};
use crate::error::Result;

/// The bucket that `url` names.
pub(super) fn open(url: &Url, options: &StorageOptions) -> Result<Arc<dyn ObjectStore>> {
    let keys = options.keys::<AmazonS3ConfigKey>("aws.")?;
    let own = options.names_endpoint("aws.");
    let builder = if own { AmazonS3Builder::new() } else { AmazonS3Builder::from_env() }.with_url(url.as_str());
    let builder = builder.with_config(AmazonS3ConfigKey::Client(ClientConfigKey::Timeout), ANY_TIME);
    let builder = keys.into_iter().fold(builder, |builder, (key, value)| builder.with_config(key, value));
    // Who names an endpoint without TLS means it.
    let plain =
        builder.get_config_value(&AmazonS3ConfigKey::Endpoint).is_some_and(|endpoint| endpoint.starts_with("http://"));
    let builder = if plain { builder.with_allow_http(true) } else { builder };
    let store = builder.build().map_err(|cause| unusable(url, cause))?;
    Ok(Arc::new(store))
}
