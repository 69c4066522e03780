//! Models of MLflow's registry, by its REST API.
//!
//! <https://mlflow.org/docs/latest/api_reference/rest-api.html>

use url::Url;

use super::http::{Login, Site, get_json, join};
use super::remote::file_or_folder;
use crate::error::{Result, bail, error};
use crate::storage::{Place, StorageOptions, redacted};

/// Where a registered model's files are.
pub(super) enum Artifact {
    /// At a place of its own: a path, or a URL of an object store.
    Elsewhere(String),
    /// The tracking server gives them.
    Served(Site),
}

/// Which version of a registered model is meant.
#[derive(Debug, PartialEq, Eq)]
struct Registered {
    name: String,
    version: Version,
}

#[derive(Debug, PartialEq, Eq)]
enum Version {
    Number(u64),
    Alias(String),
}

/// Reads `mlflow:/models/name/3`, `mlflow:/models/name@champion`, and MLflow's own `models:/name/3`.
fn parse(uri: &str) -> Result<Registered> {
    let wrong = || {
        error!(
            Unreadable,
            "'{}' can't be read: expected mlflow:/models/name/version or mlflow:/models/name@alias",
            redacted(uri)
        )
    };
    let path = uri.strip_prefix("mlflow:").and_then(|rest| rest.trim_start_matches('/').strip_prefix("models/"));
    let path =
        path.or_else(|| uri.strip_prefix("models:").map(|rest| rest.trim_start_matches('/'))).ok_or_else(wrong)?;
    let (name, version) = match (path.rsplit_once('@'), path.rsplit_once('/')) {
        (Some((name, alias)), _) => (name.trim_end_matches('/'), Version::Alias(alias.to_owned())),
        (None, Some((name, number))) => (name, Version::Number(number.parse().map_err(|_| wrong())?)),
        (None, None) => return Err(wrong()),
    };
    let empty = matches!(&version, Version::Alias(alias) if alias.is_empty());
    if name.is_empty() || name.contains('/') || empty {
        return Err(wrong());
    }
    Ok(Registered { name: name.to_owned(), version })
}

/// Asks the tracking server which version `uri` is, and where its files are.
///
/// # Errors
/// No tracking server, one that can't be reached or that refuses; no such model, version or alias.
pub(super) async fn resolve(uri: &str, options: &StorageOptions) -> Result<(String, Artifact)> {
    let Registered { name, version } = parse(uri)?;
    let server = Server::of(uri, options)?;
    let version = match version {
        Version::Number(number) => number.to_string(),
        Version::Alias(alias) => {
            let found = server.get("registered-models/alias", &[("name", &name), ("alias", &alias)]).await?;
            let version = found.as_ref().and_then(|found| found["model_version"]["version"].as_str());
            match version {
                Some(version) => version.to_owned(),
                None => bail!(UnknownModel, "'{uri}': MLflow knows no model '{name}' with the alias '{alias}'"),
            }
        }
    };
    let asked = [("name", name.as_str()), ("version", version.as_str())];
    let found = server.get("model-versions/get-download-uri", &asked).await?;
    let Some(mut place) = found.as_ref().and_then(|found| found["artifact_uri"].as_str()).map(str::to_owned) else {
        bail!(UnknownModel, "'{uri}': MLflow knows no version {version} of a model '{name}'");
    };
    if let Some(id) = place.strip_prefix("models:/") {
        // Since MLflow 3, a model is logged beside the run that made it.
        let found = server.get(&format!("logged-models/{id}"), &[]).await?;
        let artifacts = found.as_ref().and_then(|found| found["model"]["info"]["artifact_uri"].as_str());
        place = artifacts
            .map(str::to_owned)
            .ok_or_else(|| error!(UnknownModel, "'{uri}': MLflow does not say where the model '{id}' is"))?;
    }
    // An alias moves on: what was read is this version.
    let resolved = format!("mlflow:/models/{name}/{version}");
    match place.strip_prefix("mlflow-artifacts:") {
        Some(path) => {
            // With `//host/`, it names a server, which is the one that was asked.
            let path = match path.strip_prefix("//") {
                Some(rest) => rest.split_once('/').map_or("", |(_, path)| path),
                None => path.trim_start_matches('/'),
            };
            let base = join(&server.base, &format!("api/2.0/mlflow-artifacts/artifacts/{path}/"))?;
            Ok((resolved, Artifact::Served(Site::new(base, server.login, file_or_folder("")))))
        }
        None => {
            let place = format!("{}/", place.trim_end_matches('/'));
            server.may_name(uri, &place)?;
            Ok((resolved, Artifact::Elsewhere(place)))
        }
    }
}

struct Server {
    base: Url,
    login: Login,
}

impl Server {
    fn of(uri: &str, options: &StorageOptions) -> Result<Self> {
        let Some(base) = options.get("mlflow.tracking_uri", "MLFLOW_TRACKING_URI") else {
            bail!(
                InvalidOption,
                "'{uri}' can't be read: which MLflow? Set MLFLOW_TRACKING_URI, or OPTIONS ('mlflow.tracking_uri' 'http://…')"
            );
        };
        let base = match Url::parse(&base) {
            Ok(base) if matches!(base.scheme(), "http" | "https") => base,
            _ => bail!(
                InvalidOption,
                "'{uri}' can't be read: the tracking URI '{}' is no server's: expected http:// or https://",
                redacted(&base)
            ),
        };
        // The environment's credentials are for the environment's server.
        let get = |key: &str| match options.given("mlflow.tracking_uri") {
            Some(_) => options.given(&format!("mlflow.{key}")),
            None => options.get(&format!("mlflow.{key}"), &format!("MLFLOW_TRACKING_{}", key.to_uppercase())),
        };
        let login = match (get("token"), get("username")) {
            (Some(token), _) => Login::Token(token),
            (None, Some(user)) => Login::Password(user, get("password")),
            (None, None) => Login::None,
        };
        Ok(Self { base, login })
    }

    /// Whether the server may send us to `place`: to stores, and to files of this machine only if it runs here.
    fn may_name(&self, uri: &str, place: &str) -> Result<()> {
        let here = match self.base.host() {
            Some(url::Host::Domain(name)) => name == "localhost",
            Some(url::Host::Ipv4(address)) => address.is_loopback(),
            Some(url::Host::Ipv6(address)) => address.is_loopback(),
            None => false,
        };
        let allowed = match Place::of(place)? {
            Place::Local(_) => here,
            Place::Remote(url) => !matches!(url.scheme(), "mlflow" | "models" | "runs" | "hf"),
        };
        match allowed {
            true => Ok(()),
            false => bail!(
                Unreadable,
                "'{uri}': MLflow says that its files are at '{}', where it may not send us",
                redacted(place)
            ),
        }
    }

    /// The answer of the registry's API; `None` if there is no such thing.
    async fn get(&self, what: &str, query: &[(&str, &str)]) -> Result<Option<serde_json::Value>> {
        let mut url = join(&self.base, &format!("api/2.0/mlflow/{what}"))?;
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        get_json(&url, &self.login).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_of_the_registry_are_named() {
        let named = |uri: &str| parse(uri).map(|registered| (registered.name, registered.version));
        let number = |number| Version::Number(number);
        assert_eq!(named("mlflow:/models/churn/3").expect("a version"), ("churn".into(), number(3)));
        assert_eq!(named("models:/churn/12").expect("MLflow's own form"), ("churn".into(), number(12)));
        let champion = || Version::Alias("champion".into());
        for uri in ["mlflow:/models/churn@champion", "models:/churn@champion", "mlflow:/models/churn/@champion"] {
            assert_eq!(named(uri).expect(uri), ("churn".into(), champion()));
        }
        for wrong in
            ["mlflow:/churn/3", "mlflow:/models/churn", "mlflow:/models/churn/x", "models:/a/b/1", "models:/a@"]
        {
            assert!(named(wrong).is_err(), "{wrong}");
        }
    }
}
