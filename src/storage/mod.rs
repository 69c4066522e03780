//! Places beyond this process: object stores, and the cache of what was fetched from afar.

mod cache;

use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreScheme};
use url::Url;

pub(crate) use cache::CacheEntry;
pub use cache::DiskCache;

use crate::error::{Result, bail, error};

/// Options of a statement that say how a place is reached, by their names: `aws.region`, `http.token` …
///
/// They may hold credentials: nothing prints or keeps them.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct StorageOptions(Vec<(String, String)>);

impl std::fmt::Debug for StorageOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(name, _)| name)).finish()
    }
}

impl StorageOptions {
    /// What the names of these options begin with.
    pub const PREFIXES: [&str; 6] = ["aws.", "azure.", "gcp.", "hf.", "http.", "mlflow."];

    /// The options that are not settings of an object store.
    const NAMES: [&str; 7] = [
        "http.token",
        "hf.token",
        "hf.endpoint",
        "mlflow.tracking_uri",
        "mlflow.token",
        "mlflow.username",
        "mlflow.password",
    ];

    /// Takes over an option, if its name is that of one of these.
    pub(crate) fn push(&mut self, name: &str, value: &str) -> bool {
        let ours = Self::PREFIXES.iter().any(|prefix| name.starts_with(prefix));
        if ours {
            self.0.push((name.to_owned(), value.to_owned()));
        }
        ours
    }

    /// Whether they name a server of their own, to which the environment's credentials do not go.
    fn names_endpoint(&self, prefix: &str) -> bool {
        let ours = self.0.iter().filter_map(|(name, _)| name.strip_prefix(prefix));
        ours.into_iter().any(|key| ["endpoint", "url", "uri"].iter().any(|word| key.contains(word)))
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The value of the option `name`.
    pub(crate) fn given(&self, name: &str) -> Option<String> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone())
    }

    /// The value of the option `name`, else of the environment variable `variable`.
    pub(crate) fn get(&self, name: &str, variable: &str) -> Option<String> {
        self.given(name).or_else(|| std::env::var(variable).ok()).filter(|value| !value.is_empty())
    }

    /// Refuses options for another place than one with `scheme`, whose options' names start with `prefix`.
    pub(crate) fn check(&self, scheme: &str, prefix: Option<&str>) -> Result<()> {
        if let Some((name, _)) = self.0.iter().find(|(name, _)| prefix.is_none_or(|prefix| !name.starts_with(prefix))) {
            bail!(InvalidOption, "option '{name}' has no meaning for a model by '{scheme}'");
        }
        // Those of stores are checked by the stores.
        let ours = |name: &str| ["hf.", "http.", "mlflow."].iter().any(|prefix| name.starts_with(prefix));
        match self.0.iter().find(|(name, _)| ours(name) && !Self::NAMES.contains(&name.as_str())) {
            Some((name, _)) => {
                let near = datafusion_predict_udfs::nearest(name, Self::NAMES);
                let near = near.map_or_else(
                    || format!("; there are {}", Self::NAMES.join(", ")),
                    |near| format!("; did you mean '{near}'?"),
                );
                bail!(InvalidOption, "unknown option '{name}'{near}")
            }
            None => Ok(()),
        }
    }

    /// Those that have a meaning for the place that `uri` names, which a server chose.
    pub(crate) fn for_place(&self, uri: &str) -> Self {
        let prefix = match uri.split_once(':').map(|(scheme, _)| scheme) {
            Some("s3" | "s3a") => "aws.",
            Some("gs") => "gcp.",
            Some("az" | "adl" | "azure" | "abfs" | "abfss") => "azure.",
            _ => return Self::default(),
        };
        Self(self.0.iter().filter(|(name, _)| name.starts_with(prefix)).cloned().collect())
    }

    /// The options under `prefix`, as keys of a store's configuration.
    fn keys<K: FromStr>(&self, prefix: &str) -> Result<Vec<(K, String)>> {
        let ours = self.0.iter().filter_map(|(name, value)| Some((name, name.strip_prefix(prefix)?, value)));
        let keys = ours.map(|(name, key, value)| match key.parse() {
            Ok(key) => Ok((key, value.clone())),
            Err(_) => bail!(InvalidOption, "unknown option '{name}': it is no setting of the store"),
        });
        keys.collect()
    }
}

/// Where a URI leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// A path of this machine.
    Local(PathBuf),
    /// Something else, by the scheme of its URL.
    Remote(Url),
}

impl Place {
    /// The place that `uri` names: a path, `file:///…` or a URL.
    ///
    /// # Errors
    /// What is neither.
    pub(crate) fn of(uri: &str) -> Result<Self> {
        // One letter before the colon is a drive, no scheme.
        let scheme = uri.split_once(':').filter(|(scheme, _)| {
            scheme.len() > 1 && scheme.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'))
        });
        match scheme {
            Some((scheme, path)) if scheme.eq_ignore_ascii_case("file") => match path.strip_prefix("//") {
                Some(path) if path.starts_with('/') => match Url::parse(uri).map(|url| url.to_file_path()) {
                    // The path as it stands, unless it has escapes.
                    Ok(Ok(decoded)) if path.contains('%') => Ok(Self::Local(decoded)),
                    _ => Ok(Self::Local(PathBuf::from(path))),
                },
                _ => bail!(Unreadable, "'{uri}' can't be read: expected file:///, and an absolute path"),
            },
            Some((scheme, _))
                if !uri.contains("://") && ["s3", "gs", "az", "http", "https", "hf"].contains(&scheme) =>
            {
                bail!(Unreadable, "'{uri}' can't be read: expected {scheme}://")
            }
            Some(("runs", _)) => bail!(
                Unreadable,
                "'{uri}' can't be read: name a registered model, as in mlflow:/models/name/1, or give the path of its folder"
            ),
            Some(_) if uri.contains("://") || uri.starts_with("mlflow:") || uri.starts_with("models:") => {
                Url::parse(uri)
                    .map(Self::Remote)
                    .map_err(|cause| error!(Unreadable, "'{}' is no URL", redacted(uri)).with_source(cause))
            }
            _ => match (uri.strip_prefix("~/"), dirs::home_dir()) {
                (Some(rest), Some(home)) => Ok(Self::Local(home.join(rest))),
                _ => Ok(Self::Local(PathBuf::from(uri))),
            },
        }
    }
}

/// `uri` without what may be secret: a user's name and password, and the query, which signs URLs.
pub(crate) fn redacted(uri: &str) -> String {
    let Some((scheme, rest)) = uri.split_once("://") else {
        // Not a URL, but perhaps meant as one: `user:password@host`.
        return match uri.rsplit_once('@') {
            Some((user, host)) if user.contains(':') && !user.contains(['/', '\\']) => format!("…@{host}"),
            _ => uri.to_owned(),
        };
    };
    let authority = &rest[..rest.find(['/', '?', '#']).unwrap_or(rest.len())];
    let start = match authority.rfind('@') {
        // A container and its account are no secret.
        Some(at) if scheme.starts_with("abfs") && !authority[..at].contains(':') => 0,
        Some(at) => at + 1,
        // A password with a slash: what follows the colon is no port.
        None => match authority.split_once(':') {
            Some((_, port)) if !port.chars().all(|c| c.is_ascii_digit()) => rest.rfind('@').map_or(0, |at| at + 1),
            _ => 0,
        },
    };
    let user = if start > 0 { "…@" } else { "" };
    match rest[start..].split_once('?') {
        Some((path, _)) => format!("{scheme}://{user}{path}?…"),
        None => format!("{scheme}://{user}{}", &rest[start..]),
    }
}

/// `name`, a path within a model's folder, without `.`; `None` if it leads out of it.
pub(crate) fn relative(name: &str) -> Option<String> {
    let mut parts = vec![];
    for part in std::path::Path::new(name).components() {
        match part {
            std::path::Component::Normal(part) => parts.push(part.to_str()?),
            std::path::Component::CurDir => {}
            _ => return None,
        }
    }
    // What another system would take for a separator or a drive is no name here.
    let plain = |part: &&str| !part.contains(['\\', ':']);
    (!parts.is_empty() && parts.iter().all(plain)).then(|| parts.join("/"))
}

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
            let builder = keys.into_iter().fold(builder, |builder, (key, value)| builder.with_config(key, value));
            Arc::new(builder.build().map_err(unusable)?)
        }
        ObjectStoreScheme::MicrosoftAzure => {
            let keys = options.keys::<AzureConfigKey>("azure.")?;
            let own = options.names_endpoint("azure.");
            let builder = if own { MicrosoftAzureBuilder::new() } else { MicrosoftAzureBuilder::from_env() };
            let builder = builder.with_url(url.as_str());
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_secret_is_not_shown() {
        for (uri, shown) in [
            ("https://ana:pw@host/m.onnx?X-Amz-Signature=abc", "https://…@host/m.onnx?…"),
            ("http://token@host/m", "http://…@host/m"),
            ("abfss://models@account.dfs.core.windows.net/m", "abfss://models@account.dfs.core.windows.net/m"),
            ("s3://bucket/a/m.onnx", "s3://bucket/a/m.onnx"),
            ("https://ana:pa/s?s@host/m", "https://…@host/m"),
            ("https://host:8080/@scope/m", "https://host:8080/@scope/m"),
            ("hf://hf_token@owner/repo", "hf://…@owner/repo"),
            ("hf://owner/repo@v2/m.onnx", "hf://owner/repo@v2/m.onnx"),
            ("models/a?b.onnx", "models/a?b.onnx"),
            ("ana:pw@127.0.0.1:5000", "…@127.0.0.1:5000"),
        ] {
            assert_eq!(redacted(uri), shown);
        }
        let mut options = StorageOptions::default();
        assert!(options.push("aws.secret_access_key", "very secret") && !options.push("output", "y"));
        assert_eq!(format!("{options:?}"), "[\"aws.secret_access_key\"]");
    }

    #[test]
    fn names_stay_within_a_folder() {
        assert_eq!(relative("a/./b.bin").as_deref(), Some("a/b.bin"));
        for wrong in ["", ".", "/etc/passwd", "../a", "a/../../b", "c:\\a", "a\\b"] {
            assert_eq!(relative(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn paths_and_urls_are_told_apart() {
        for path in ["a/b.onnx", "/a b/c:d.onnx", "C:\\m.onnx", "./s3/x"] {
            assert_eq!(Place::of(path).expect("a path"), Place::Local(path.into()));
        }
        assert_eq!(Place::of("file:///a%20b").expect("a file"), Place::Local("/a b".into()));
        assert!(Place::of("file://a/b").is_err() && Place::of("http://[").is_err());
        assert!(matches!(Place::of("mlflow:/models/a/1"), Ok(Place::Remote(_))));
    }
}
