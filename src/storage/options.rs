//! How a place is reached: options of a statement, and the environment.

#[cfg(any(feature = "aws", feature = "azure", feature = "gcp"))]
use std::str::FromStr;

use crate::error::{Result, bail};

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
    #[cfg(any(feature = "aws", feature = "azure", feature = "gcp"))]
    pub(super) fn names_endpoint(&self, prefix: &str) -> bool {
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
    #[cfg(feature = "mlflow")]
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
    #[cfg(any(feature = "aws", feature = "azure", feature = "gcp"))]
    pub(super) fn keys<K: FromStr>(&self, prefix: &str) -> Result<Vec<(K, String)>> {
        let ours = self.0.iter().filter_map(|(name, value)| Some((name, name.strip_prefix(prefix)?, value)));
        let keys = ours.map(|(name, key, value)| match key.parse() {
            Ok(key) => Ok((key, value.clone())),
            Err(_) => bail!(InvalidOption, "unknown option '{name}': it is no setting of the store"),
        });
        keys.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_not_printed() {
        let mut options = StorageOptions::default();
        assert!(options.push("aws.secret_access_key", "very secret") && !options.push("output", "y"));
        assert_eq!(format!("{options:?}"), "[\"aws.secret_access_key\"]");
    }
}
