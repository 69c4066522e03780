//! The SHA-256 of a file that is being read.

use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;

use bytes::Bytes;
use sha2::{Digest, Sha256};

use crate::error::{Result, error};

/// Below this size, in bytes, a thread costs more than it saves.
const WORTH_A_THREAD: u64 = 1 << 20;

/// Pieces that wait for the thread, at most: they stay in memory for as long.
const WAITING: usize = 16;

/// Hashes what it is given: a small file at once, a large one on a thread of its own while it is decoded.
pub(super) enum Hashing {
    Here(Sha256),
    Beside { pieces: SyncSender<Bytes>, thread: JoinHandle<Sha256> },
}

impl Hashing {
    /// For a file of `size` bytes.
    pub(super) fn of_size(size: u64) -> Self {
        if size < WORTH_A_THREAD {
            return Self::Here(Sha256::new());
        }
        let (pieces, given) = sync_channel::<Bytes>(WAITING);
        let hash = move || {
            let mut hash = Sha256::new();
            given.into_iter().for_each(|piece| hash.update(&piece));
            hash
        };
        match std::thread::Builder::new().name("model-hash".into()).spawn(hash) {
            Ok(thread) => Self::Beside { pieces, thread },
            Err(_) => Self::Here(Sha256::new()), // no thread is to be had
        }
    }

    /// Adds a copy of `bytes`.
    pub(super) fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Here(hash) => hash.update(bytes),
            Self::Beside { .. } => self.update_shared(Bytes::copy_from_slice(bytes)),
        }
    }

    /// Adds `bytes`.
    pub(super) fn update_shared(&mut self, bytes: Bytes) {
        match self {
            Self::Here(hash) => hash.update(&bytes),
            // Its receiver lives as long as the thread, which only ends with this sender.
            Self::Beside { pieces, .. } => drop(pieces.send(bytes)),
        }
    }

    /// The hash of all, once it is there.
    pub(super) fn finish(self) -> Sha256 {
        match self {
            Self::Here(hash) => hash,
            Self::Beside { pieces, thread } => {
                drop(pieces);
                match thread.join() {
                    Ok(hash) => hash,
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
        }
    }
}

/// A hash that is there, or that a thread works on.
pub(super) enum PendingHash {
    Ready(Result<String>),
    Beside(JoinHandle<Result<String>>),
}

impl PendingHash {
    /// Calls `hash`, at once for files of few bytes (`size`), else on a thread of its own.
    pub(super) fn of(size: u64, hash: impl FnOnce() -> Result<String> + Send + 'static) -> Self {
        if size < WORTH_A_THREAD {
            return Self::Ready(hash());
        }
        match std::thread::Builder::new().name("model-hash".into()).spawn(hash) {
            Ok(thread) => Self::Beside(thread),
            Err(cause) => Self::Ready(Err(error!(Unreadable, "a model can't be hashed").with_source(cause))),
        }
    }

    /// The hash in hexadecimal digits, once it is there.
    pub(super) fn wait(self) -> Result<String> {
        match self {
            Self::Ready(hash) => hash,
            Self::Beside(thread) => thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
        }
    }
}
