//! Models on web servers.

use std::sync::OnceLock;
use std::time::Duration;

use async_trait::async_trait;
use futures::{StreamExt, TryStreamExt};
use reqwest::header::{ETAG, IF_NONE_MATCH};
use reqwest::{Client, RequestBuilder, Response, StatusCode};
use url::Url;

use super::remote::{Opened, Remote, file_or_folder};
use crate::error::{Error, Result, bail, error};
use crate::storage::{StorageOptions, redacted};

/// How often a request is sent, where the server or the way to it fails.
const ATTEMPTS: u32 = 3;

/// Bytes of an answer in JSON, at most.
const LARGEST_JSON: usize = 16 << 20;

/// How a server is told who asks.
#[derive(Clone, Default)]
pub(super) enum Login {
    #[default]
    None,
    Token(String),
    Password(String, Option<String>),
}

impl Login {
    fn sign(&self, request: RequestBuilder) -> RequestBuilder {
        match self {
            Self::None => request,
            Self::Token(token) => request.bearer_auth(token),
            Self::Password(user, password) => request.basic_auth(user, password.as_ref()),
        }
    }
}

/// Files under a URL.
pub(super) struct Site {
    base: Url,
    login: Login,
    candidates: Vec<(String, String)>,
}

impl Site {
    /// The files under `base`, which ends with a slash.
    pub(super) fn new(base: Url, login: Login, candidates: Vec<(String, String)>) -> Self {
        Self { base, login, candidates }
    }

    #[cfg(test)]
    pub(super) fn base(&self) -> &Url {
        &self.base
    }
}

/// The site and the path that `url` names.
pub(super) fn site(url: &Url, options: &StorageOptions) -> Result<Site> {
    let mut base = url.clone();
    base.set_path("/");
    let path = url.path().trim_start_matches('/').to_owned();
    // Not from the environment, which would be sent to any server; user and password may stand in the URL.
    let login = options.given("http.token").map_or(Login::None, Login::Token);
    Ok(Site::new(base, login, file_or_folder(&path)))
}

#[async_trait]
impl Remote for Site {
    async fn open(&self, name: &str, known: Option<&str>) -> Result<Opened> {
        let mut url = self.base.clone();
        url.set_path(&format!("{}{name}", self.base.path()));
        let shown = redacted(url.as_str());
        let request = || {
            let request = self.login.sign(client()?.get(url.clone()));
            Ok(known.into_iter().fold(request, |request, etag| request.header(IF_NONE_MATCH, etag)))
        };
        let response = send(&shown, request).await?;
        match response.status() {
            StatusCode::NOT_FOUND | StatusCode::GONE => return Ok(Opened::Missing),
            StatusCode::NOT_MODIFIED => return Ok(Opened::Unchanged),
            status if !status.is_success() => return Err(refused(&shown, status)),
            _ => {}
        }
        let etag = response.headers().get(ETAG).and_then(|etag| etag.to_str().ok()).map(str::to_owned);
        let size = response.content_length();
        let bytes = response.bytes_stream().map_err(move |cause| {
            error!(Unreadable, "'{shown}' can't be read to its end").with_source(Reason::of(cause))
        });
        Ok(Opened::Content { etag, size, bytes: bytes.boxed() })
    }

    fn candidates(&self) -> Vec<(String, String)> {
        self.candidates.clone()
    }

    fn place(&self) -> String {
        let files: Vec<_> = self.candidates.iter().map(|(folder, file)| format!("{folder}{file}")).collect();
        format!("{}{}", self.base, files.join(","))
    }
}

/// The answer in JSON to a GET of `url`; `None` if there is no such thing.
pub(super) async fn get_json(url: &Url, login: &Login) -> Result<Option<serde_json::Value>> {
    let shown = redacted(url.as_str());
    let response = send(&shown, || Ok(login.sign(client()?.get(url.clone())))).await?;
    let status = response.status();
    if status == StatusCode::NOT_FOUND {
        return Ok(None);
    }
    let mut bytes = vec![];
    let mut chunks = response.bytes_stream();
    while let Some(chunk) = chunks.next().await {
        let failed = |cause| error!(Unreadable, "'{shown}' can't be read").with_source(Reason::of(cause));
        bytes.extend_from_slice(&chunk.map_err(failed)?);
        if bytes.len() > LARGEST_JSON {
            bail!(Unreadable, "'{shown}' can't be read: its answer is larger than {LARGEST_JSON} bytes");
        }
    }
    if !status.is_success() {
        // MLflow says why.
        let answer: Option<serde_json::Value> = serde_json::from_slice(&bytes).ok();
        let message = answer.as_ref().and_then(|answer| answer["message"].as_str());
        return Err(refused(&shown, status).with_note(message));
    }
    let parsed = serde_json::from_slice(&bytes);
    parsed.map(Some).map_err(|cause| error!(Unreadable, "'{shown}' did not answer in JSON").with_source(cause))
}

fn client() -> Result<&'static Client> {
    static CLIENT: OnceLock<Client> = OnceLock::new();
    if let Some(client) = CLIENT.get() {
        return Ok(client);
    }
    let client = Client::builder()
        .user_agent(concat!("datafusion-predict/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(Duration::from_secs(10))
        .read_timeout(Duration::from_secs(30))
        .build()
        .map_err(|cause| error!(Unreadable, "no client for HTTP can be made").with_source(Reason::of(cause)))?;
    Ok(CLIENT.get_or_init(|| client))
}

async fn send(shown: &str, request: impl Fn() -> Result<RequestBuilder>) -> Result<Response> {
    let mut attempt = 1;
    loop {
        let sent = request()?.send().await;
        let again = match &sent {
            Ok(response) => response.status().is_server_error() || response.status() == StatusCode::TOO_MANY_REQUESTS,
            Err(cause) => cause.is_connect() || cause.is_timeout(),
        };
        if !again || attempt == ATTEMPTS {
            return sent.map_err(|cause| error!(Unreadable, "'{shown}' can't be read").with_source(Reason::of(cause)));
        }
        tokio::time::sleep(Duration::from_millis(100 << attempt)).await;
        attempt += 1;
    }
}

fn refused(shown: &str, status: StatusCode) -> Error {
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            error!(Unreadable, "'{shown}' can't be read: the server refuses it ({status}): are credentials given?")
        }
        _ => error!(Unreadable, "'{shown}' can't be read: the server answered {status}"),
    }
}

/// Why a request failed, without its URL, which may hold what is secret.
#[derive(Debug)]
struct Reason(String);

impl Reason {
    fn of(cause: reqwest::Error) -> Self {
        let cause = cause.without_url();
        let mut text = cause.to_string();
        let mut source = std::error::Error::source(&cause);
        while let Some(inner) = source {
            let more = inner.to_string();
            if !text.contains(&more) {
                text = format!("{text}: {more}");
            }
            source = inner.source();
        }
        Self(text)
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Reason {}

/// The URL of `path` under `base`, whatever slashes either has.
pub(super) fn join(base: &Url, path: &str) -> Result<Url> {
    if base.cannot_be_a_base() {
        bail!(Unreadable, "'{}' is no base of a URL", redacted(base.as_str()));
    }
    let mut url = base.clone();
    url.set_path(&format!("{}/{}", base.path().trim_end_matches('/'), path.trim_start_matches('/')));
    Ok(url)
}
