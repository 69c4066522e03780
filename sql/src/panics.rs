//! Panics in queries, which end the query and not the shell.

use std::any::Any;
use std::env;
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Mutex, PoisonError};

use datafusion::common::exec_datafusion_err;
use datafusion::error::{DataFusionError, Result};
use futures::FutureExt;

/// File and line of the last panic. A caught panic carries its message only, so the hook notes its place here.
static LAST_PLACE: Mutex<Option<String>> = Mutex::new(None);

/// Keeps panics from writing over the screen; with `RUST_BACKTRACE` they are printed as ever.
pub(crate) fn keep_quiet() {
    if env::var_os("RUST_BACKTRACE").is_some() {
        return;
    }
    panic::set_hook(Box::new(|info| {
        *LAST_PLACE.lock().unwrap_or_else(PoisonError::into_inner) = info.location().map(ToString::to_string);
    }));
}

/// Runs `work`; a panic in it is an error.
pub(crate) async fn caught<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    AssertUnwindSafe(work).catch_unwind().await.unwrap_or_else(|panic| Err(error(panic.as_ref())))
}

/// The error that tells a user of a panic: its place, its message, and that the session goes on.
pub(crate) fn error(panic: &(dyn Any + Send)) -> DataFusionError {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    let place = LAST_PLACE.lock().unwrap_or_else(PoisonError::into_inner).take();
    let place = place.map(|place| format!(" at {place}")).unwrap_or_default();
    exec_datafusion_err!(
        "the statement ended by a bug{place}: {}. The session goes on; RUST_BACKTRACE=1 shows more",
        text.unwrap_or("a panic without a message")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_an_error_with_its_message() {
        let error = caught(async { if true { panic!("index {} of 2", 3) } else { Ok(()) } }).await;
        assert!(error.expect_err("it panics").to_string().contains("ended by a bug"));
        assert_eq!(caught(async { Ok(1) }).await.expect("no panic"), 1);
    }
}
