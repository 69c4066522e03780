//! Ends runs whose query is gone.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

type Hook = Box<dyn Fn() + Send>;

/// Tells the runs of one stream that nobody waits for them any more.
#[derive(Clone, Default)]
pub struct CancelToken(Arc<Inner>);

#[derive(Default)]
struct Inner {
    cancelled: AtomicBool,
    hooks: Mutex<Hooks>,
}

/// The hooks of the runs under way, by the order of their start.
#[derive(Default)]
struct Hooks {
    next: u64,
    running: BTreeMap<u64, Hook>,
}

impl CancelToken {
    /// Cancels: the hooks of the runs under way are called, and every later run ends at once.
    pub fn cancel(&self) {
        let hooks = self.hooks();
        self.0.cancelled.store(true, Ordering::SeqCst);
        hooks.running.values().for_each(|hook| hook());
    }

    /// Whether [`cancel`](Self::cancel) was called.
    pub fn is_cancelled(&self) -> bool {
        self.0.cancelled.load(Ordering::SeqCst)
    }

    /// Runs `work`, during which a cancellation calls `hook`, from another thread; `None` if it was cancelled before.
    pub fn with_hook<T>(&self, hook: impl Fn() + Send + 'static, work: impl FnOnce() -> T) -> Option<T> {
        let id = {
            let mut hooks = self.hooks();
            if self.is_cancelled() {
                return None;
            }
            hooks.next += 1;
            let id = hooks.next;
            hooks.running.insert(id, Box::new(hook));
            id
        };
        let result = work();
        self.hooks().running.remove(&id);
        Some(result)
    }

    /// Cancels when what is returned is dropped.
    pub fn cancel_on_drop(&self) -> CancelOnDrop {
        CancelOnDrop(self.clone())
    }

    fn hooks(&self) -> MutexGuard<'_, Hooks> {
        self.0.hooks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Cancels its token when it is dropped: kept where the query is, so that nothing of it goes on without it.
#[derive(Debug)]
pub struct CancelOnDrop(CancelToken);

impl CancelOnDrop {
    /// The token that is cancelled when this is dropped.
    pub fn token(&self) -> &CancelToken {
        &self.0
    }
}

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

impl fmt::Debug for CancelToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CancelToken").field("cancelled", &self.is_cancelled()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cancellation_reaches_the_running_work_and_stops_the_next() {
        let token = CancelToken::default();
        let called = Arc::new(AtomicBool::new(false));
        let hook = {
            let called = called.clone();
            move || called.store(true, Ordering::SeqCst)
        };
        assert_eq!(token.with_hook(hook, || token.clone().cancel()), Some(()));
        assert!(called.load(Ordering::SeqCst));
        assert_eq!(token.with_hook(|| {}, || ()), None);
    }
}
