//! How far files are that are being fetched.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// The files that a process fetches now.
#[derive(Debug, Clone, Default)]
pub(crate) struct Downloads(Arc<Mutex<Vec<Weak<Inner>>>>);

#[derive(Debug)]
struct Inner {
    uri: String,
    total: Option<u64>,
    done: AtomicU64,
}

/// One file, which is no longer fetched when this is dropped.
#[derive(Debug)]
pub(crate) struct Under(Arc<Inner>);

/// How far a file is that is being fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Download {
    /// Where it comes from, without credentials.
    pub uri: String,
    /// Bytes that are here.
    pub done: u64,
    /// Bytes in all, where the server says so.
    pub total: Option<u64>,
}

impl Downloads {
    /// A file of `total` bytes is fetched from `uri`.
    pub(crate) fn begin(&self, uri: &str, total: Option<u64>) -> Under {
        let inner = Arc::new(Inner { uri: uri.to_owned(), total, done: AtomicU64::new(0) });
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|download| download.strong_count() > 0);
        all.push(Arc::downgrade(&inner));
        Under(inner)
    }

    /// Those that go on, the first begun first.
    pub(crate) fn all(&self) -> Vec<Download> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let running = all.iter().filter_map(Weak::upgrade);
        running
            .map(|it| Download { uri: it.uri.clone(), done: it.done.load(Ordering::Relaxed), total: it.total })
            .collect()
    }
}

impl Under {
    /// `bytes` more are here.
    pub(crate) fn add(&self, bytes: usize) {
        self.0.done.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_fetched_is_shown_while_it_is() {
        let downloads = Downloads::default();
        let first = downloads.begin("s3://a/m.onnx", Some(10));
        first.add(4);
        let second = downloads.begin("https://b/m.onnx", None);
        let all = downloads.all();
        assert_eq!(all.len(), 2);
        assert_eq!(all[0], Download { uri: "s3://a/m.onnx".into(), done: 4, total: Some(10) });
        drop(first);
        assert_eq!(downloads.all().len(), 1);
        drop(second);
        assert!(downloads.all().is_empty());
    }
}
