//! What is in files, read for rows that stream.

use bytes::Bytes;
use datafusion::arrow::array::{ArrayRef, BinaryViewBuilder};
use datafusion::arrow::buffer::Buffer;
use futures::{Stream, StreamExt, stream};
use object_store::ObjectStoreExt;
use std::sync::Arc;

use super::place::Place;
use crate::error::{Result, bail, error};
use crate::storage::{hint, patience, redacted};

/// Files that a partition reads at the same time.
const AT_ONCE: usize = 8;

/// Bytes of a batch, at most, unless one file has more.
pub(super) const BATCH: usize = 16 << 20;

/// The content of the file `uri` at `place`.
///
/// # Errors
/// A file that is not there, or that has more than `most` bytes.
pub(super) async fn content(uri: &str, place: &Place, most: u64) -> Result<Bytes> {
    let unreadable = |cause: object_store::Error| {
        let note = hint(&cause);
        error!(Unreadable, "'{}' can't be read", redacted(uri)).with_source(cause).with_note(note)
    };
    let got = patience::answer(place.store.get(&place.path)).await.map_err(unreadable)?;
    if got.meta.size > most {
        bail!(
            Unreadable,
            "'{}' has {} bytes, more than {most} (option predict.largest_blob)",
            redacted(uri),
            got.meta.size
        );
    }
    got.bytes().await.map_err(unreadable)
}

/// Does `read` for each of `items`, some at the same time, and gives the answers in the order of the items.
pub(super) fn in_order<T, R, F>(
    items: impl IntoIterator<Item = T>,
    read: impl Fn(T) -> F,
) -> impl Stream<Item = F::Output>
where
    F: Future<Output = R>,
{
    stream::iter(items).map(read).buffered(AT_ONCE)
}

/// The contents of files as a column, each where it was read to.
pub(super) fn column(contents: Vec<Option<Bytes>>) -> Result<ArrayRef> {
    let mut views = BinaryViewBuilder::with_capacity(contents.len());
    for content in contents {
        match content {
            None => views.append_null(),
            Some(short) if short.len() <= 12 => views.append_value(short),
            Some(content) => {
                let length = content.len() as u32; // no file is as large as that
                let block = views.append_block(Buffer::from(content));
                views.try_append_view(block, 0, length).map_err(|cause| {
                    error!(Unreadable, "the contents of files can't be put together").with_source(cause)
                })?;
            }
        }
    }
    Ok(Arc::new(views.finish()))
}
