//! Functions of values that this crate can read, beside those of models: what is in a picture.

mod image_info;

pub(crate) use image_info::image_info;
