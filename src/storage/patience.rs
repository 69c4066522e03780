//! How long a store may keep silent.
//!
//! A request for a large file may take any time, so requests have no limit as a whole. What has one is the time until an
//! answer comes, and from one part of it to the next.

use std::future::Future;
use std::time::Duration;

/// For an answer, or for its next part.
const SILENCE: Duration = Duration::from_secs(60);

/// For a part of an upload to be taken.
const UPLOAD: Duration = Duration::from_secs(600);

/// The answer of a store, or of its next part, unless none comes.
pub(crate) async fn answer<T>(work: impl Future<Output = object_store::Result<T>>) -> object_store::Result<T> {
    within(SILENCE, work).await
}

/// As [`answer`], to a part of an upload.
pub(crate) async fn upload<T>(work: impl Future<Output = object_store::Result<T>>) -> object_store::Result<T> {
    within(UPLOAD, work).await
}

async fn within<T>(time: Duration, work: impl Future<Output = object_store::Result<T>>) -> object_store::Result<T> {
    tokio::time::timeout(time, work).await.unwrap_or_else(|_| {
        let source = format!("there was no answer for {} seconds", time.as_secs()).into();
        Err(object_store::Error::Generic { store: "store", source })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn silence_ends() {
        let silent = within(Duration::from_millis(5), std::future::pending::<object_store::Result<()>>()).await;
        let error = silent.expect_err("nothing came").to_string();
        assert!(error.contains("there was no answer for 0 seconds"), "{error}");
        assert!(answer(std::future::ready(Ok(()))).await.is_ok());
    }
}
