//! Format, size and channels of a picture, from the header of its file.

use std::io::Cursor;

use image::metadata::Orientation;
use image::{ImageDecoder, ImageReader, Limits};

use super::decode::{BESIDE, known_format};

/// Format, size and channels of a picture, as the header of its file gives them: nothing is decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ImageInfo {
    /// `jpeg`, `png` or `webp`.
    pub format: &'static str,
    /// Pixels from left to right of the upright picture.
    pub width: u32,
    /// Pixels from top to bottom of the upright picture.
    pub height: u32,
    /// Channels after decoding, transparency among them: a palette, and CMYK, become three.
    pub channels: u8,
    /// Bits of a channel.
    pub bits: u16,
    /// How the file's pixels are turned or mirrored against the upright picture, as EXIF numbers it: 1 if they are not.
    pub orientation: u8,
}

impl ImageInfo {
    /// Reads what stands before the pixels of a file; `None`, if it is no JPEG, PNG or WebP. The pixels may be damaged or missing.
    pub(crate) fn of(file: &[u8]) -> Option<Self> {
        let (format, name) = known_format(file).ok()?;
        let mut reader = ImageReader::with_format(Cursor::new(file), format);
        let mut limits = Limits::no_limits();
        limits.max_alloc = Some(BESIDE);
        reader.limits(limits);
        let mut decoder = reader.into_decoder().ok()?;
        let (width, height) = decoder.dimensions();
        let color = decoder.original_color_type();
        let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms).to_exif();
        // From the fifth on, pixels are turned by a quarter.
        let (width, height) = if orientation >= 5 { (height, width) } else { (width, height) };
        let channels = color.channel_count();
        let bits = color.bits_per_pixel() / u16::from(channels.max(1));
        Some(Self { format: name, width, height, channels, bits, orientation })
    }
}

#[cfg(test)]
mod tests {
    use image::{DynamicImage, ImageFormat};

    use super::*;

    fn info(picture: &DynamicImage, format: ImageFormat) -> Option<ImageInfo> {
        let mut file = Cursor::new(vec![]);
        picture.write_to(&mut file, format).expect("a file in memory");
        ImageInfo::of(&file.into_inner())
    }

    #[test]
    fn the_beginning_of_a_file_says_what_it_is() {
        let jpeg = info(&DynamicImage::new_rgb8(30, 20), ImageFormat::Jpeg).expect("a picture");
        let expected = ImageInfo { format: "jpeg", width: 30, height: 20, channels: 3, bits: 8, orientation: 1 };
        assert_eq!(jpeg, expected);
        let grey = info(&DynamicImage::new_luma16(3, 2), ImageFormat::Png).expect("a picture");
        assert_eq!((grey.format, grey.channels, grey.bits), ("png", 1, 16));
        let clear = info(&DynamicImage::new_rgba8(3, 2), ImageFormat::WebP).expect("a picture");
        assert_eq!((clear.format, clear.channels, clear.bits), ("webp", 4, 8));
        assert_eq!(ImageInfo::of(b"GIF89a"), None);
        assert_eq!(ImageInfo::of(b""), None);
    }
}
