//! From the bytes of a file to pixels.

use std::io::Cursor;

use image::{DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits, RgbImage};

/// Bytes that the formats take for a pixel, at most: four channels of 16 bits.
const BYTES_OF_PIXEL: u64 = 8;

/// Bytes that decoding may take beside its pixels.
pub(super) const BESIDE: u64 = 64 << 20;

/// The picture in `bytes`, upright, in three channels. Transparency is left out, as Pillow's conversion does.
///
/// # Errors
/// What is wrong with it, in a few words.
pub(super) fn decode(bytes: &[u8], max_pixels: u64) -> Result<RgbImage, String> {
    let (format, name) = known_format(bytes)?;
    let damaged = |cause: ImageError| match cause {
        ImageError::Limits(_) => format!("takes too much memory (option max_pixels {max_pixels})"),
        cause => format!("is a damaged {name}: {cause}"),
    };
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    // What comes before the pixels, such as a profile of colours, may be packed as tightly as they.
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(BESIDE);
    reader.limits(limits.clone());
    let mut decoder = reader.into_decoder().map_err(damaged)?;
    let (width, height) = decoder.dimensions();
    if u64::from(width) * u64::from(height) > max_pixels {
        return Err(format!("has {width} × {height} pixels, more than {max_pixels} (option 'max_pixels')"));
    }
    if width == 0 || height == 0 {
        return Err(format!("has {width} × {height} pixels"));
    }
    limits.max_alloc = Some(max_pixels.saturating_mul(BYTES_OF_PIXEL).saturating_add(BESIDE));
    decoder.set_limits(limits).map_err(damaged)?;
    // What of the metadata can't be read does not turn the picture.
    let orientation = decoder.orientation().ok();
    let mut picture = DynamicImage::from_decoder(decoder).map_err(damaged)?;
    // The decoder fills up with grey what is missing.
    if format == ImageFormat::Jpeg && !has_end(bytes) {
        return Err("is a damaged jpeg: its end is missing".to_owned());
    }
    if let Some(orientation) = orientation {
        picture.apply_orientation(orientation);
    }
    Ok(picture.into_rgb8())
}

/// The format of a picture's file, and the name of the format: JPEG, PNG or WebP.
///
/// # Errors
/// A file of another format, with what it is or how it begins, in a few words.
pub(super) fn known_format(bytes: &[u8]) -> Result<(ImageFormat, &'static str), String> {
    match image::guess_format(bytes) {
        Ok(ImageFormat::Jpeg) => Ok((ImageFormat::Jpeg, "jpeg")),
        Ok(ImageFormat::Png) => Ok((ImageFormat::Png, "png")),
        Ok(ImageFormat::WebP) => Ok((ImageFormat::WebP, "webp")),
        Ok(other) => Err(format!("is in the format {}, not JPEG, PNG or WebP", other.to_mime_type())),
        Err(_) if bytes.is_empty() => Err("is empty".to_owned()),
        Err(_) => Err(format!("is no JPEG, PNG or WebP: it begins with {}", start(bytes))),
    }
}

/// Whether a JPEG ends with the mark of its end, perhaps with other bytes behind it. Within the picture's own data no such mark can
/// be; in what stands before it, a smaller picture may have one.
fn has_end(jpeg: &[u8]) -> bool {
    let mut at = 2;
    while let Some([0xff, marker, high, low]) = jpeg.get(at..at + 4) {
        let length = usize::from(*high) << 8 | usize::from(*low);
        match marker {
            0xff => at += 1,
            0xda => return jpeg[at..].windows(2).rev().any(|pair| pair == [0xff, 0xd9]),
            _ => at += 2 + length,
        }
    }
    false
}

/// The first bytes, for errors.
fn start(bytes: &[u8]) -> String {
    let shown = &bytes[..bytes.len().min(8)];
    match std::str::from_utf8(shown) {
        Ok(text) if !text.contains(char::is_control) => format!("'{text}'"),
        _ => shown.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn png(width: u32, height: u32) -> Vec<u8> {
        let mut file = Cursor::new(vec![]);
        RgbImage::new(width, height).write_to(&mut file, ImageFormat::Png).expect("a file in memory");
        file.into_inner()
    }

    fn jpeg() -> Vec<u8> {
        let mut file = Cursor::new(vec![]);
        let picture = RgbImage::from_fn(64, 48, |x, y| image::Rgb([x as u8, y as u8, 7]));
        picture.write_to(&mut file, ImageFormat::Jpeg).expect("a file in memory");
        file.into_inner()
    }

    #[test]
    fn what_is_no_picture_says_what_it_is() {
        let problem = |bytes: &[u8]| decode(bytes, 1000).expect_err("no picture");
        assert_eq!(problem(b""), "is empty");
        assert_eq!(problem(b"a cat, said to be"), "is no JPEG, PNG or WebP: it begins with 'a cat, s'");
        assert!(problem(b"GIF89a...").contains("image/gif"), "{}", problem(b"GIF89a..."));
        assert_eq!(problem(&png(100, 11)), "has 100 × 11 pixels, more than 1000 (option 'max_pixels')");
        let png = png(20, 20);
        assert!(problem(&png[..png.len() - 30]).contains("is a damaged png"), "{}", problem(&png[..png.len() - 30]));
    }

    #[test]
    fn a_jpeg_is_whole_or_an_error() {
        let jpeg = jpeg();
        assert_eq!(decode(&jpeg, 10_000).expect("a picture").dimensions(), (64, 48));
        for length in [2, 20, jpeg.len() / 2, jpeg.len() - 2, jpeg.len() - 1] {
            let problem = decode(&jpeg[..length], 10_000).expect_err("a part of a picture");
            assert!(problem.contains("damaged") || problem.contains("is no JPEG"), "{length}: {problem}");
        }
        let followed = [jpeg.as_slice(), b"and more"].concat();
        assert!(decode(&followed, 10_000).is_ok());
    }
}
