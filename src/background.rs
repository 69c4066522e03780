//! Threads of our own, for what waits for a network and for what nobody waits for.
//!
//! Connections outlive the async runtime of a single query, so they belong to one of our own. A lock of the catalog is only ever held by
//! its tasks: who waits for it does not depend on a runtime of the caller's that may be busy.

use std::future::Future;
use std::sync::OnceLock;
use std::time::Duration;

use datafusion::common::runtime::SpawnedTask;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::task::{AbortHandle, JoinHandle};

use crate::cancel::CancelToken;
use crate::error::{Error, Result, error};

fn handle() -> Result<&'static Handle> {
    static RUNTIME: OnceLock<std::io::Result<Runtime>> = OnceLock::new();
    let runtime = RUNTIME
        .get_or_init(|| Builder::new_multi_thread().worker_threads(2).thread_name("predict-io").enable_all().build());
    match runtime {
        Ok(runtime) => Ok(runtime.handle()),
        Err(cause) => Err(error!(EngineFailed, "no threads to reach models with: {cause}")),
    }
}

/// Ends a task when it is dropped.
pub(crate) struct AbortOnDrop(AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Does `work` once `left` is no time at all, unless what is returned is dropped before.
pub(crate) fn once(
    left: impl Fn() -> Duration + Send + 'static,
    work: impl FnOnce() + Send + 'static,
) -> Result<AbortOnDrop> {
    let task = handle()?.spawn(async move {
        loop {
            let left = left();
            if left.is_zero() {
                return work();
            }
            tokio::time::sleep(left).await;
        }
    });
    Ok(AbortOnDrop(task.abort_handle()))
}

/// Runs `work` there; it ends early if nobody waits for it any more.
pub(crate) async fn run<T: Send + 'static>(work: impl Future<Output = Result<T>> + Send + 'static) -> Result<T> {
    let task = handle()?.spawn(work);
    let _guard = AbortOnDrop(task.abort_handle());
    join(task).await
}

/// Runs `work` there, to its end, even if nobody waits for it any more: others may.
pub(crate) async fn finish<T: Send + 'static>(work: impl Future<Output = Result<T>> + Send + 'static) -> Result<T> {
    join(handle()?.spawn(work)).await
}

/// As [`finish`], and waits for it on this thread: only where a synchronous interface leaves no choice.
pub(crate) fn block_on<T: Send + 'static>(work: impl Future<Output = Result<T>> + Send + 'static) -> Result<T> {
    let (sender, receiver) = std::sync::mpsc::sync_channel(1);
    handle()?.spawn(async move { sender.send(work.await) });
    receiver.recv().unwrap_or_else(|cause| Err(failed(cause)))
}

/// Runs `work` there, where nobody waits for it.
pub(crate) fn spawn(work: impl Future<Output = ()> + Send + 'static) {
    if let Ok(handle) = handle() {
        handle.spawn(work);
    }
}

/// Has `work` done on a thread of ours, where nobody waits for it.
pub(crate) fn detached(work: impl FnOnce() + Send + 'static) {
    match handle() {
        Ok(handle) => drop(handle.spawn_blocking(work)),
        Err(_) => work(),
    }
}

/// Runs what computes, or waits for a disk, on a thread of its own.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    SpawnedTask::spawn_blocking(work).join().await.unwrap_or_else(|cause| Err(failed(cause)))
}

/// As [`blocking`]; its token is cancelled if nobody waits for it any more.
pub(crate) async fn cancellable<T: Send + 'static>(
    work: impl FnOnce(&CancelToken) -> Result<T> + Send + 'static,
) -> Result<T> {
    let token = CancelToken::default();
    let _cancel = token.cancel_on_drop();
    blocking(move || work(&token)).await
}

async fn join<T>(task: JoinHandle<Result<T>>) -> Result<T> {
    task.await.unwrap_or_else(|cause| Err(failed(cause)))
}

fn failed(cause: impl std::error::Error + Send + Sync + 'static) -> Error {
    error!(EngineFailed, "a task in the background has failed").with_source(cause)
}
