//! Models in object stores.

use std::sync::Arc;

use async_trait::async_trait;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::{GetOptions, ObjectStore};
use url::Url;

use super::remote::{Opened, Remote, file_or_folder};
use crate::error::{Result, error};
use crate::storage::{StorageOptions, hint, open_store, patience, redacted};

/// Objects of a store, by their paths from its root.
pub(super) struct Objects {
    store: Arc<dyn ObjectStore>,
    path: String,
    uri: String,
    /// What else tells the store from another of its name.
    endpoint: String,
}

/// The store and the path that `url` names.
pub(super) fn folder(url: &Url, options: &StorageOptions) -> Result<Objects> {
    let (store, path) = open_store(url, options)?;
    let slash = if url.path().ends_with('/') { "/" } else { "" };
    let endpoints = [("aws.endpoint", "AWS_ENDPOINT_URL"), ("azure.endpoint", "AZURE_STORAGE_ENDPOINT")];
    let endpoint = endpoints.iter().find_map(|(option, variable)| options.get(option, variable)).unwrap_or_default();
    Ok(Objects { store, path: format!("{path}{slash}"), uri: redacted(url.as_str()), endpoint })
}

#[async_trait]
impl Remote for Objects {
    async fn open(&self, name: &str, known: Option<&str>) -> Result<Opened> {
        let unreadable = |cause: object_store::Error| {
            let note = hint(&cause);
            error!(Unreadable, "'{}' can't be read", self.uri).with_source(cause).with_note(note)
        };
        let path = Path::parse(name).map_err(|cause| unreadable(cause.into()))?;
        let options = GetOptions::new().with_if_none_match(known);
        match patience::answer(self.store.get_opts(&path, options)).await {
            Ok(got) => {
                let (etag, size) = (got.meta.e_tag.clone(), got.meta.size);
                let uri = self.uri.clone();
                let bytes = stream::try_unfold(got.into_stream(), |mut bytes| async move {
                    Ok(patience::answer(bytes.try_next()).await?.map(|chunk| (chunk, bytes)))
                });
                let cut = move |cause: object_store::Error| {
                    error!(Unreadable, "'{uri}' can't be read to its end").with_source(cause)
                };
                Ok(Opened::Content { etag, size: Some(size), bytes: bytes.map_err(cut).boxed() })
            }
            Err(object_store::Error::NotFound { .. }) => Ok(Opened::Missing),
            Err(object_store::Error::NotModified { .. }) => Ok(Opened::Unchanged),
            Err(cause) => Err(unreadable(cause)),
        }
    }

    fn place(&self) -> String {
        format!("{} {}", self.endpoint, self.uri)
    }

    fn candidates(&self) -> Vec<(String, String)> {
        file_or_folder(&self.path)
    }
}
