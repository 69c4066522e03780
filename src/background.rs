//! A small runtime of our own for what waits for a network.
//!
//! Planning is synchronous, and may need a model that is not loaded yet: a thread of the caller's runtime then waits,
//! which must not be the one that the answer needs. Connections outlive the runtime of a single query, too.

use std::future::Future;
use std::sync::OnceLock;

use tokio::runtime::{Builder, Handle, Runtime};

use crate::error::{Result, error};

fn handle() -> Result<&'static Handle> {
    static RUNTIME: OnceLock<std::io::Result<Runtime>> = OnceLock::new();
    let runtime = RUNTIME
        .get_or_init(|| Builder::new_multi_thread().worker_threads(1).thread_name("predict-io").enable_all().build());
    match runtime {
        Ok(runtime) => Ok(runtime.handle()),
        Err(cause) => Err(error!(EngineFailed, "no thread to load models with: {cause}")),
    }
}

/// Runs `work` there.
pub(crate) async fn run<T: Send + 'static>(work: impl Future<Output = Result<T>> + Send + 'static) -> Result<T> {
    match handle()?.spawn(work).await {
        Ok(result) => result,
        Err(cause) => Err(error!(EngineFailed, "loading a model failed").with_source(cause)),
    }
}

/// Runs `work` there, and waits for it on this thread.
pub(crate) fn wait<T: Send + 'static>(work: impl Future<Output = Result<T>> + Send + 'static) -> Result<T> {
    let (sender, receiver) = std::sync::mpsc::sync_channel(1);
    handle()?.spawn(async move { sender.send(work.await) });
    receiver.recv().unwrap_or_else(|_| Err(error!(EngineFailed, "loading a model failed")))
}
