//! Reads a file as a protobuf buffer: hashed on the way, and large fields straight into buffers of their own.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};

use bytes::{Buf, Bytes};

use super::hash::Hashing;
use super::weights::LARGE;

/// Bytes that are read at once, where no field asks for more.
const CHUNK: usize = 64 * 1024;

/// A file from its beginning to its end. At no time does it hold more than a chunk, so that what is decoded from it is
/// in memory once.
pub(super) struct FileBuf {
    file: File,
    size: u64,
    /// Bytes that are not read yet.
    unread: u64,
    chunk: Vec<u8>,
    position: usize,
    hash: Hashing,
    /// For each large field that was read, by the address of its buffer: the byte of the file at which it begins.
    offsets: HashMap<usize, u64>,
    failure: Option<io::Error>,
}

impl FileBuf {
    /// The whole of `file`.
    pub(super) fn new(file: File) -> io::Result<Self> {
        let unread = file.metadata()?.len();
        let hash = Hashing::of_size(unread);
        let mut buf = Self {
            file,
            size: unread,
            unread,
            chunk: vec![],
            position: 0,
            hash,
            offsets: HashMap::new(),
            failure: None,
        };

        buf.refill();
        Ok(buf)
    }

    /// The hash of all that was read, or what went wrong while reading: a [`Buf`] can't say so.
    /// With it, where in the file each large field begins, by the address of its buffer.
    pub(super) fn finish(mut self) -> io::Result<(Hashing, HashMap<usize, u64>)> {
        while self.has_remaining() {
            self.advance(self.chunk().len());
        }
        match self.failure {
            Some(failure) => Err(failure),
            None => Ok((self.hash, self.offsets)),
        }
    }

    fn refill(&mut self) {
        let next = usize::try_from(self.unread).unwrap_or(usize::MAX).min(CHUNK);
        self.chunk.resize(next, 0);
        self.position = 0;
        let mut chunk = std::mem::take(&mut self.chunk);
        self.fill(&mut chunk);
        self.hash.update(&chunk);
        self.chunk = chunk;
    }

    fn fill(&mut self, bytes: &mut [u8]) {
        self.unread -= bytes.len() as u64;
        if let Err(failure) = self.file.read_exact(bytes) {
            bytes.fill(0);
            self.failure.get_or_insert(failure);
        }
    }
}

impl Buf for FileBuf {
    fn remaining(&self) -> usize {
        let unread = usize::try_from(self.unread).unwrap_or(usize::MAX);
        unread.saturating_add(self.chunk.len() - self.position)
    }

    fn chunk(&self) -> &[u8] {
        &self.chunk[self.position..]
    }

    fn advance(&mut self, mut count: usize) {
        loop {
            let here = count.min(self.chunk.len() - self.position);
            self.position += here;
            count -= here;
            if self.position == self.chunk.len() && self.unread > 0 {
                self.refill();
            }
            if count == 0 || !self.has_remaining() {
                return;
            }
        }
    }

    fn copy_to_bytes(&mut self, len: usize) -> Bytes {
        assert!(len <= self.remaining(), "prost asks for what is there");
        let start = self.size.saturating_sub(self.remaining() as u64);
        let mut bytes = vec![0; len];
        let here = len.min(self.chunk.len() - self.position);
        bytes[..here].copy_from_slice(&self.chunk()[..here]);
        let bytes = if here < len {
            self.position = self.chunk.len();
            self.fill(&mut bytes[here..]);
            let bytes = Bytes::from(bytes);
            self.hash.update_shared(bytes.slice(here..));
            self.refill();
            bytes
        } else {
            self.advance(here);
            bytes.into()
        };
        if len >= LARGE {
            self.offsets.insert(bytes.as_ptr() as usize, start);
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use sha2::{Digest, Sha256};

    use super::*;

    #[test]
    fn bytes_come_in_order_however_they_are_taken() {
        let content: Vec<u8> = (0..3 * CHUNK + 17).map(|i| (i % 251) as u8).collect();
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        file.write_all(&content).expect("room for it");
        for step in [1000, CHUNK, CHUNK + 1, 2 * CHUNK + 5] {
            let mut buf = FileBuf::new(file.reopen().expect("the file")).expect("its size");
            let mut read = vec![];
            while buf.has_remaining() {
                let len = step.min(buf.remaining());
                read.extend(buf.copy_to_bytes(len));
                if buf.has_remaining() {
                    read.push(buf.get_u8());
                }
            }
            assert!(read == content, "step {step}");
            let (hash, _) = buf.finish().expect("no failure");
            let hash = hash.finish();
            assert_eq!(hash.finalize(), Sha256::digest(&content));
        }
    }
}
