//! Where models come from: a file, a folder, an object store, the web, a model hub, MLflow.
//!
//! ```text
//!  path ───────────────────────────────────────────────► file on this machine
//!  s3, gs, az ─► object ─┐                                   ▲
//!  http(s) ────► http ───┼─► remote: the files of a model ─► cache
//!  hf ─────────► hub ────┤
//!  mlflow ─────► mlflow ─┘
//! ```

#[cfg(feature = "http")]
mod http;
#[cfg(feature = "http")]
mod hub;
#[cfg(feature = "mlflow")]
mod mlflow;
mod mlmodel;
mod object;
mod remote;
mod tokenizer;

use std::path::PathBuf;

use crate::error::{Result, bail, error};
#[cfg(not(all(feature = "http", feature = "mlflow")))]
use crate::storage::not_built_in;
use crate::storage::{DiskCache, Place, StorageOptions, redacted, relative};
use remote::fetch_remote;
pub(crate) use tokenizer::with_tokenizer;

/// A model's file on this machine.
#[derive(Debug)]
pub(crate) struct Fetched {
    /// Where it came from, without what may be secret.
    pub uri: String,
    /// The ONNX file; external weights are beside it.
    pub path: PathBuf,
    /// The features' names, where the model's description (MLflow's signature) gives them.
    pub features: Vec<String>,
}

/// Brings the model at `uri` to this machine, if it is not there.
///
/// # Errors
/// A place that is not known, that can't be reached, that refuses, or that holds no model; a file over the limit.
pub(crate) async fn fetch(uri: &str, options: &StorageOptions, cache: &DiskCache) -> Result<Fetched> {
    let place = Place::of(uri)?;
    let scheme = match &place {
        Place::Local(_) => "file",
        Place::Remote(url) => url.scheme(),
    };
    let prefix = match scheme {
        "file" => None,
        "http" | "https" => Some("http."),
        "hf" => Some("hf."),
        "gs" => Some("gcp."),
        "s3" | "s3a" => Some("aws."),
        "mlflow" | "models" => Some(""), // its files may be anywhere
        "az" | "adl" | "azure" | "abfs" | "abfss" => Some("azure."),
        _ => Some(""), // refused below, by its name
    };
    options.check(scheme, prefix)?;
    match place {
        Place::Local(path) => local(uri, path),
        Place::Remote(url) => match url.scheme() {
            #[cfg(feature = "http")]
            "http" | "https" => fetch_remote(uri, &http::site(&url, options)?, cache).await,
            #[cfg(feature = "http")]
            "hf" => fetch_remote(uri, &hub::repository(&url, options)?, cache).await,
            #[cfg(feature = "mlflow")]
            "mlflow" | "models" => {
                let (uri, artifact) = mlflow::resolve(uri, options).await?;
                match artifact {
                    mlflow::Artifact::Elsewhere(place) => {
                        let options = options.for_place(&place);
                        // A place of the server's choice: boxed, since it may be any.
                        let fetched = Box::pin(fetch(&place, &options, cache)).await?;
                        Ok(Fetched { uri, ..fetched })
                    }
                    mlflow::Artifact::Served(files) => fetch_remote(&uri, &files, cache).await,
                }
            }
            "s3" | "s3a" | "gs" | "az" | "adl" | "azure" | "abfs" | "abfss" => {
                fetch_remote(uri, &object::folder(&url, options)?, cache).await
            }
            #[cfg(not(feature = "http"))]
            "http" | "https" | "hf" => Err(not_built_in(uri, "http")),
            #[cfg(not(feature = "mlflow"))]
            "mlflow" | "models" => Err(not_built_in(uri, "mlflow")),
            other => bail!(
                Unreadable,
                "'{}' can't be read: the scheme '{other}' is not supported, give a path, or a URL with file, s3, gs, az, http, https, hf or mlflow",
                redacted(uri)
            ),
        },
    }
}

/// Whether `uri` is what [`redacted`] left of another.
pub(crate) fn is_redacted(uri: &str) -> bool {
    uri.ends_with("?…") || uri.contains("…@")
}

/// Whether `uri` holds what may be secret, and what a later process would need.
pub(crate) fn holds_secrets(uri: &str) -> bool {
    redacted(uri) != uri
}

fn local(uri: &str, path: PathBuf) -> Result<Fetched> {
    let described = path.join(mlmodel::DESCRIPTION).is_file();
    if described && (cfg!(feature = "mlflow") || !path.join(FILE).is_file()) {
        let file = path.join(mlmodel::DESCRIPTION);
        let unreadable = |cause| error!(Unreadable, "'{}' can't be read", file.display()).with_source(cause);
        if std::fs::metadata(&file).map_err(unreadable)?.len() > mlmodel::LARGEST_DESCRIPTION {
            bail!(InvalidModel, "'{uri}': its {} is too large", mlmodel::DESCRIPTION);
        }
        let text = std::fs::read(&file).map_err(unreadable)?;
        let description = mlmodel::read_description(uri, &text)?;
        let data = inside(uri, &description.data)?;
        return Ok(Fetched { uri: uri.to_owned(), path: path.join(data), features: description.features });
    }
    let path = match path.is_dir() {
        true => match [FILE, STATIC].map(|file| path.join(file)).into_iter().find(|file| file.is_file()) {
            Some(file) => file,
            None => {
                bail!(Unreadable, "'{uri}' is a folder without a file {FILE}, {STATIC} or {}", mlmodel::DESCRIPTION)
            }
        },
        false => path,
    };
    Ok(Fetched { uri: uri.to_owned(), path, features: vec![] })
}

/// The model's file in a folder.
const FILE: &str = "model.onnx";

/// The file in a folder that is a static embedding model.
const STATIC: &str = "model.safetensors";

/// `name`, which a model's description or graph gives, if it stays within the model's folder.
fn inside(uri: &str, name: &str) -> Result<String> {
    match relative(name) {
        Some(name) => Ok(name),
        None => bail!(InvalidModel, "'{}': its file '{name}' is outside the model's folder", redacted(uri)),
    }
}
