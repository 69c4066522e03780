//! Arrow columns to tensors and back.
//!
//! ```text
//!  arguments ──InputEncoder──► tensors, or columns where they lie ──► engine ──► tensors ──OutputColumn──► a column
//! ```
//!
//! The table of types is [`ElementType`](datafusion_predict_native::ElementType)'s.

mod bytes;
mod image;
mod inputs;
mod lists;
mod missing;
mod nulls;
mod outputs;
mod text;

pub use bytes::BytesTaken;
#[cfg(feature = "images")]
pub(crate) use image::ImageInfo;
pub(crate) use image::{Channels, Fit, ImagePreparation, Resample, Size, made_up_image};
pub(crate) use inputs::{ArgumentError, InputEncoder, element_tensor, is_list_like};
pub(crate) use lists::{BytesFit, as_lists};
pub(crate) use missing::with_missing_text;
pub(crate) use nulls::{list_nulls, row_nulls, rows_without_nulls, scatter};
pub(crate) use outputs::{OutputColumn, concat, list_type, map_type, struct_fields, vector_type};
pub(crate) use text::{Tokenize, TokenizerFile, Tokens};
