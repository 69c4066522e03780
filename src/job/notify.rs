//! Tells a server how a run has ended: the option `notify`.

use super::records::RunSummary;

/// Posts the summary to `url`, several times if the server does not take it. What goes wrong is logged: the run has ended.
#[cfg(feature = "http")]
pub(super) async fn notify(job: &str, url: &str, run: &RunSummary) {
    let (body, url, job) = (posted::body(job, run), url.to_owned(), job.to_owned());
    let posted = crate::background::finish(async move { posted::post(&url, body).await });
    if let Err(error) = posted.await {
        log::warn!("job '{job}': nobody was told of run {}: {error}", run.run);
    }
}

/// In a build without the feature `http`.
#[cfg(not(feature = "http"))]
pub(super) async fn notify(job: &str, url: &str, run: &RunSummary) {
    log::warn!(
        "job '{job}': '{url}' is not told of run {}: this program was built without the feature 'http'",
        run.run
    );
}

#[cfg(feature = "http")]
mod posted {
    use std::time::Duration;

    use hmac::{Hmac, KeyInit, Mac};
    use sha2::Sha256;

    use crate::error::{Result, bail, error};
    use crate::job::RunSummary;
    use crate::storage::{hex, redacted};

    /// Names the secret that posts are signed with.
    const SECRET: &str = "DATAFUSION_PREDICT_NOTIFY_SECRET";
    /// `sha256=` and the HMAC-SHA256 of the body with the secret, in hexadecimal digits.
    const SIGNATURE: &str = "x-signature-256";
    const ATTEMPTS: u32 = 5;
    const PATIENCE: Duration = Duration::from_secs(10);

    pub(super) fn body(job: &str, run: &RunSummary) -> Vec<u8> {
        let mut body = serde_json::to_value(run).unwrap_or_default();
        if let Some(body) = body.as_object_mut() {
            body.insert("job".to_owned(), job.into());
            body.remove("plan"); // a file of the catalog's
        }
        body.to_string().into_bytes()
    }

    fn signature(secret: &str, body: &[u8]) -> Option<String> {
        let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).ok()?;
        mac.update(body);
        Some(format!("sha256={}", hex(mac.finalize().into_bytes())))
    }

    pub(super) async fn post(url: &str, body: Vec<u8>) -> Result<()> {
        let client = reqwest::Client::builder().timeout(PATIENCE).build();
        let client =
            client.map_err(|cause| error!(Unreadable, "'{}' can't be reached", redacted(url)).with_source(cause))?;
        let secret = std::env::var(SECRET).ok().filter(|secret| !secret.is_empty());
        let signed = secret.and_then(|secret| signature(&secret, &body));
        let mut attempt = 0;
        loop {
            let mut request = client.post(url).header("content-type", "application/json").body(body.clone());
            if let Some(signed) = &signed {
                request = request.header(SIGNATURE, signed);
            }
            let problem = match request.send().await {
                Ok(answer) if answer.status().is_success() => return Ok(()),
                Ok(answer) => format!("the server answers {}", answer.status()),
                Err(cause) => cause.without_url().to_string(),
            };
            attempt += 1;
            if attempt == ATTEMPTS {
                bail!(Unreadable, "'{}' can't be reached: {problem}", redacted(url));
            }
            tokio::time::sleep(Duration::from_millis(250 << attempt)).await;
        }
    }

    #[cfg(test)]
    mod tests {
        #[test]
        fn bodies_are_signed_as_others_sign_them() {
            // printf '{"a":1}' | openssl dgst -sha256 -hmac key
            let expected = "sha256=88a67f24bbcdaed0e6c997404bb79a743baf44c6bab2f4c27328e3009d22e342";
            assert_eq!(super::signature("key", b"{\"a\":1}").as_deref(), Some(expected));
        }
    }
}
