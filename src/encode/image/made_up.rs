//! Pictures for trying a model.

use std::io::Cursor;

use image::{ImageFormat, RgbImage};

/// Pixels of a side.
const SIDE: u32 = 48;

/// A file in the format PNG: colours that change slowly, and otherwise for each `number`.
pub(super) fn file(number: usize) -> Vec<u8> {
    let step = 1 + number as u32 % 7;
    let picture = RgbImage::from_fn(SIDE, SIDE, |x, y| {
        image::Rgb([(x * step) as u8, (y * step + 40 * step) as u8, ((x + y) * 2 + 31 * step) as u8])
    });
    let mut file = Cursor::new(vec![]);
    picture.write_to(&mut file, ImageFormat::Png).expect("memory takes what is written");
    file.into_inner()
}
