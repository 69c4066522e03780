//! What is in files, read for rows that stream.

use std::sync::Arc;

use bytes::Bytes;
use datafusion::arrow::array::{ArrayRef, BinaryViewBuilder};
use datafusion::arrow::buffer::Buffer;
use futures::{Stream, StreamExt, stream};
use object_store::{GetResult, ObjectStoreExt};

use super::place::Place;
use crate::error::{Error, Result, bail, error};
use crate::storage::{hint, patience, redacted};

/// Files that a partition reads at the same time.
const AT_ONCE: usize = 8;

/// Bytes of a batch, at most, unless one file has more.
pub(super) const BATCH: usize = 16 << 20;

/// Files with no more bytes than that are read ahead; larger ones when it is their turn.
const AHEAD: u64 = (BATCH / AT_ONCE) as u64;

/// A file that was opened.
pub(super) struct OpenFile {
    uri: String,
    state: Opened,
}

enum Opened {
    /// A small one, which was read at once.
    Read(Bytes),
    /// A large one, of which nothing was read yet.
    Found(GetResult),
}

impl OpenFile {
    /// Opens the file `uri` at `place`.
    ///
    /// # Errors
    /// A file that is not there, or that has more than `most` bytes.
    pub(super) async fn open(uri: String, place: &Place, most: u64) -> Result<Self> {
        let most = most.min(i32::MAX as u64); // more, no value of a column can have
        let found = patience::answer(place.store.get(&place.path)).await.map_err(|cause| unreadable(&uri, cause))?;
        let size = found.meta.size;
        if size > most {
            bail!(Unreadable, "'{}' has {size} bytes, more than {most} (option predict.largest_blob)", redacted(&uri));
        }
        let state = if size <= AHEAD {
            Opened::Read(found.bytes().await.map_err(|cause| unreadable(&uri, cause))?)
        } else {
            Opened::Found(found)
        };
        Ok(Self { uri, state })
    }

    /// What is in it.
    ///
    /// # Errors
    /// A file that can't be read to its end.
    pub(super) async fn content(self) -> Result<Bytes> {
        match self.state {
            Opened::Read(content) => Ok(content),
            Opened::Found(found) => found.bytes().await.map_err(|cause| unreadable(&self.uri, cause)),
        }
    }
}

fn unreadable(uri: &str, cause: object_store::Error) -> Error {
    let note = hint(&cause);
    error!(Unreadable, "'{}' can't be read", redacted(uri)).with_source(cause).with_note(note)
}

/// Does `open` for each of `items`, some at the same time, and gives the answers in the order of the items.
pub(super) fn in_order<T, F: Future>(
    items: impl IntoIterator<Item = T>,
    open: impl Fn(T) -> F,
) -> impl Stream<Item = F::Output> {
    stream::iter(items).map(open).buffered(AT_ONCE)
}

/// The contents of files as a column, each where it was read to.
pub(super) fn column(contents: Vec<Option<Bytes>>) -> Result<ArrayRef> {
    let mut views = BinaryViewBuilder::with_capacity(contents.len());
    for content in contents {
        match content {
            None => views.append_null(),
            Some(short) if short.len() <= 12 => views.append_value(short),
            Some(content) => {
                let length = content.len() as u32; // a file that was opened has no more
                let block = views.append_block(Buffer::from(content));
                views.try_append_view(block, 0, length).map_err(|cause| {
                    error!(Unreadable, "the contents of files can't be put together").with_source(cause)
                })?;
            }
        }
    }
    Ok(Arc::new(views.finish()))
}
