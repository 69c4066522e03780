//! Models on a hub: `hf://owner/repo[@revision][/file]`.

use url::Url;

use super::http::{Login, Site, join};
use super::remote::file_or_folder;
use super::{FILE, STATIC};
use crate::error::{Result, bail, error};
use crate::storage::{StorageOptions, redacted};

/// The hub that is asked, unless the option `hf.endpoint` or `$HF_ENDPOINT` names another.
const ENDPOINT: &str = "https://huggingface.co";

/// The repository and the file that `url` names.
pub(super) fn repository(url: &Url, options: &StorageOptions) -> Result<Site> {
    let wrong = || {
        error!(
            Unreadable,
            "'{}' can't be read: expected hf://owner/repo or hf://owner/repo/file.onnx",
            redacted(url.as_str())
        )
    };
    // `owner@revision` can't be: what stands before an @ in the host is no owner of ours.
    if !url.username().is_empty() {
        return Err(wrong());
    }
    let owner = url.host_str().ok_or_else(wrong)?;
    let path = url.path().trim_start_matches('/');
    let (repository, file) = path.split_once('/').unwrap_or((path, ""));
    let (repository, revision) = repository.split_once('@').unwrap_or((repository, "main"));
    if repository.is_empty() || revision.is_empty() {
        return Err(wrong());
    }
    let endpoint = options.get("hf.endpoint", "HF_ENDPOINT").unwrap_or_else(|| ENDPOINT.to_owned());
    let endpoint = match Url::parse(&endpoint) {
        Ok(endpoint) if !endpoint.cannot_be_a_base() => endpoint,
        _ => bail!(InvalidOption, "the hub's endpoint '{}' is no URL", redacted(&endpoint)),
    };
    let base = join(&endpoint, &format!("{owner}/{repository}/resolve/{revision}/"))?;
    // The environment's token is for the environment's hub.
    let token = match options.given("hf.endpoint") {
        Some(_) => options.given("hf.token"),
        None => options.get("hf.token", "HF_TOKEN"),
    };
    let login = token.map_or(Login::None, Login::Token);
    let candidates = match file {
        "" => [("", FILE), ("onnx/", FILE), ("", STATIC)].map(|(folder, file)| (folder.into(), file.into())).to_vec(),
        file => file_or_folder(file),
    };
    Ok(Site::new(base, login, candidates))
}

#[cfg(test)]
mod tests {
    use super::super::remote::Remote;
    use super::*;

    #[test]
    fn repositories_have_revisions_and_files() {
        let mut options = StorageOptions::default();
        options.push("hf.endpoint", "http://127.0.0.1:1/hub/");
        let site = |uri: &str| repository(&Url::parse(uri).expect("a URL"), &options);
        let found = site("hf://ana/bert@v2/onnx/m.onnx").expect("a file");
        assert_eq!(found.base().as_str(), "http://127.0.0.1:1/hub/ana/bert/resolve/v2/");
        assert_eq!(found.candidates()[0], ("onnx/".to_owned(), "m.onnx".to_owned()));
        assert_eq!(site("hf://ana/bert").expect("a repository").candidates().len(), 3);
        assert!(site("hf://ana").is_err() && site("hf://ana/@v2").is_err());
    }
}
