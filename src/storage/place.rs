//! URIs: where they lead, and how they are shown.

use std::path::PathBuf;

use url::Url;

use crate::error::{Result, bail, error};

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

/// A path that other processes understand, too.
pub(crate) fn absolute(uri: &str) -> String {
    match Place::of(uri) {
        Ok(Place::Local(path)) => std::path::absolute(&path).unwrap_or(path).to_string_lossy().into_owned(),
        _ => uri.to_owned(),
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
