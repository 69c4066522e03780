//! Files as rows and as values: their names, their sizes and what is in them.
//!
//! ```sql
//! SELECT path, size FROM files('photos/*.jpg');
//! SELECT id, classify('vision', read_blob(picture_uri)) FROM products;
//! ```
//!
//! Contents are read while rows stream: some files at a time, and no more bytes than a batch should have.

mod content;
mod exec;
mod place;
mod read_blob;
mod table;

#[cfg(feature = "proto")]
pub(crate) use exec::FilesExec;
#[cfg(feature = "proto")]
pub(crate) use read_blob::ReadBlobExec;
pub(crate) use read_blob::{PlanReadBlob, read_blob_functions, waiting_for};
pub(crate) use table::FilesFunction;
#[cfg(feature = "proto")]
pub(crate) use table::{Files, FoundFile, schema};
