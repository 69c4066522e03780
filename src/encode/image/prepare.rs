//! From the pixels of pictures to a model's input.

use datafusion_predict_native::{ElementType, TensorData};
use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};
use half::f16;
use image::RgbImage;

use super::decode::decode;
use super::{BadImage, Channels, Fit, ImagePreparation, Resample, Size};
use crate::cancel::CancelToken;

/// The numbers of all `images`, as [`ImagePreparation::prepare`].
pub(super) fn all(
    preparation: &ImagePreparation,
    images: &[&[u8]],
    threads: usize,
    cancel: &CancelToken,
) -> Result<Option<TensorData>, BadImage> {
    let scaled = |value: u8, channel: usize| {
        (f32::from(value) * preparation.scale - preparation.mean[channel]) / preparation.std[channel]
    };
    Ok(match preparation.element {
        ElementType::UInt8 => of_elements(preparation, images, threads, cancel, |value, _| value)?
            .map(|values| TensorData::UInt8(values.into())),
        ElementType::Float16 => {
            let scaled = |value, channel| f16::from_f32(scaled(value, channel));
            of_elements(preparation, images, threads, cancel, scaled)?.map(|values| TensorData::Float16(values.into()))
        }
        _ => {
            of_elements(preparation, images, threads, cancel, scaled)?.map(|values| TensorData::Float32(values.into()))
        }
    })
}

/// The same in elements of one type; `element` is what a pixel's value becomes in a channel.
fn of_elements<T: Copy + Default + Send + Sync>(
    preparation: &ImagePreparation,
    images: &[&[u8]],
    threads: usize,
    cancel: &CancelToken,
    element: impl Fn(u8, usize) -> T,
) -> Result<Option<Vec<T>>, BadImage> {
    let channels = preparation.channels.count();
    let tables: Vec<[T; 256]> =
        (0..channels).map(|channel| std::array::from_fn(|value| element(value as u8, channel))).collect();
    let size: usize = preparation.shape().iter().product();
    let mut values = vec![T::default(); images.len() * size];
    // Each thread has pictures that follow each other.
    let each = images.len().div_ceil(threads.max(1)).max(1);
    let parts = images.chunks(each).zip(values.chunks_mut(each * size)).enumerate();
    let part = |(number, (images, values)): (usize, (&[&[u8]], &mut [T]))| -> Result<bool, BadImage> {
        let mut resizer = Resizer::new();
        for (i, (bytes, values)) in images.iter().zip(values.chunks_mut(size)).enumerate() {
            if cancel.is_cancelled() {
                return Ok(false);
            }
            let bad = |problem| (number * each + i, problem);
            let picture = decode(bytes, preparation.max_pixels).map_err(bad)?;
            let picture = resized(picture, preparation, &mut resizer).map_err(bad)?;
            write(&picture, preparation, &tables, values);
        }
        Ok(true)
    };
    let done = if each >= images.len() {
        parts.map(part).collect::<Result<Vec<_>, _>>()
    } else {
        std::thread::scope(|scope| {
            let part = &part;
            let threads: Vec<_> = parts.map(|it| scope.spawn(move || part(it))).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
                .collect()
        })
    };
    Ok(done?.iter().all(|whole| *whole).then_some(values))
}

/// The picture in the size to which it is resized, before it is cropped or filled up.
fn resized(picture: RgbImage, preparation: &ImagePreparation, resizer: &mut Resizer) -> Result<RgbImage, String> {
    let Some((fit, size, resample)) = preparation.resize else { return Ok(picture) };
    let Size { height, width } = resized_size(fit, size, &picture);
    if (width as u64).saturating_mul(height as u64) > preparation.max_pixels {
        return Err(format!(
            "of {} × {} pixels would have {width} × {height}, more than {} (option 'max_pixels')",
            picture.width(),
            picture.height(),
            preparation.max_pixels
        ));
    }
    let (width, height) = (width as u32, height as u32); // no more than the limit
    if picture.dimensions() == (width, height) {
        return Ok(picture);
    }
    // Filters that weigh some pixels negatively are cut off at black and white between their two passes, which Pillow makes in
    // this order: columns first.
    let overshoots = matches!(resample, Resample::Bicubic | Resample::Lanczos);
    if overshoots && picture.width() != width && picture.height() != height {
        let columns = scaled(&picture, width, picture.height(), resample, resizer)?;
        return scaled(&columns, width, height, resample, resizer);
    }
    scaled(&picture, width, height, resample, resizer)
}

/// The picture in another size.
fn scaled(
    picture: &RgbImage,
    width: u32,
    height: u32,
    resample: Resample,
    resizer: &mut Resizer,
) -> Result<RgbImage, String> {
    let failed = |cause: &dyn std::fmt::Display| format!("can't be resized to {width} × {height} pixels: {cause}");
    let source = ImageRef::new(picture.width(), picture.height(), picture.as_raw(), PixelType::U8x3);
    let source = source.map_err(|cause| failed(&cause))?;
    let mut resized = Image::new(width, height, PixelType::U8x3);
    let filter = match resample {
        Resample::Nearest => None,
        Resample::Box => Some(FilterType::Box),
        Resample::Bilinear => Some(FilterType::Bilinear),
        Resample::Hamming => Some(FilterType::Hamming),
        Resample::Bicubic => Some(FilterType::CatmullRom),
        Resample::Lanczos => Some(FilterType::Lanczos3),
    };
    let algorithm = filter.map_or(ResizeAlg::Nearest, ResizeAlg::Convolution);
    let options = ResizeOptions::new().resize_alg(algorithm);
    resizer.resize(&source, &mut resized, &options).map_err(|cause| failed(&cause))?;
    RgbImage::from_raw(width, height, resized.into_vec()).ok_or_else(|| failed(&"too few pixels"))
}

/// Rounded as the libraries do with which such models are trained.
fn resized_size(fit: Fit, size: Size, picture: &RgbImage) -> Size {
    let (width, height) = (picture.width() as usize, picture.height() as usize);
    let rounded = |value: f64| (value.round_ties_even() as usize).max(1);
    match fit {
        Fit::Exact => size,
        // One side is as long as it should be, and the other no shorter: all of the size is covered.
        Fit::Shortest if size.width * height >= size.height * width => {
            Size { width: size.width, height: size.width * height / width }
        }
        Fit::Shortest => Size { height: size.height, width: size.height * width / height },
        Fit::Letterbox | Fit::Pad => {
            let scale = (size.width as f64 / width as f64).min(size.height as f64 / height as f64);
            Size {
                height: rounded(height as f64 * scale).min(size.height),
                width: rounded(width as f64 * scale).min(size.width),
            }
        }
    }
}

/// Writes the middle of the picture into `values`, by the table of each channel.
fn write<T: Copy>(picture: &RgbImage, preparation: &ImagePreparation, tables: &[[T; 256]], values: &mut [T]) {
    let Size { height, width } = preparation.size;
    let channels = preparation.channels.count();
    let at_start = matches!(preparation.resize, Some((Fit::Pad, ..)));
    let rows = Overlap::of(picture.height() as usize, height, at_start);
    let columns = Overlap::of(picture.width() as usize, width, at_start);
    if rows.length < height || columns.length < width {
        let filled: Vec<T> = tables.iter().map(|table| table[usize::from(preparation.fill)]).collect();
        if preparation.channels_last {
            values.chunks_exact_mut(channels).for_each(|pixel| pixel.copy_from_slice(&filled));
        } else {
            values.chunks_exact_mut(height * width).zip(filled).for_each(|(plane, filled)| plane.fill(filled));
        }
    }
    // Where the colours of a pixel go, and how far the next pixel is.
    let (plane, step) = if preparation.channels_last { (1, channels) } else { (height * width, 1) };
    let source_width = picture.width() as usize * 3;
    for row in 0..rows.length {
        let source = &picture.as_raw()[(rows.from + row) * source_width + columns.from * 3..][..columns.length * 3];
        let start = ((rows.to + row) * width + columns.to) * step;
        match preparation.channels {
            Channels::Luma => {
                let table = &tables[0];
                let pixels = source.chunks_exact(3).map(|pixel| luma([pixel[0], pixel[1], pixel[2]]));
                values[start..].iter_mut().zip(pixels).for_each(|(value, pixel)| *value = table[usize::from(pixel)]);
            }
            Channels::Rgb | Channels::Bgr => {
                for channel in 0..3 {
                    let colour = if preparation.channels == Channels::Bgr { 2 - channel } else { channel };
                    let table = &tables[channel];
                    let pixels = source[colour..].iter().step_by(3);
                    let places = values[start + channel * plane..].iter_mut().step_by(step);
                    places.zip(pixels).for_each(|(value, pixel)| *value = table[usize::from(*pixel)]);
                }
            }
        }
    }
}

/// Which part of a picture's side is seen, and where.
struct Overlap {
    /// Its first pixel in the picture.
    from: usize,
    /// Its first pixel in the model's input.
    to: usize,
    length: usize,
}

impl Overlap {
    fn of(picture: usize, input: usize, at_start: bool) -> Self {
        let middle = |more: usize| if at_start { 0 } else { more / 2 };
        Self {
            from: middle(picture.saturating_sub(input)),
            to: middle(input.saturating_sub(picture)),
            length: picture.min(input),
        }
    }
}

/// Brightness by the weights of ITU-R 601, in the integers that Pillow computes with.
fn luma([red, green, blue]: [u8; 3]) -> u8 {
    let sum = u32::from(red) * 19_595 + u32::from(green) * 38_470 + u32::from(blue) * 7_471 + 0x8000;
    (sum >> 16) as u8 // the weights are 1 together
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(width: u32, height: u32) -> RgbImage {
        RgbImage::from_fn(width, height, |x, y| image::Rgb([x as u8, y as u8, 100]))
    }

    fn preparation(height: usize, width: usize) -> ImagePreparation {
        ImagePreparation {
            resize: None,
            size: Size { height, width },
            channels: Channels::Rgb,
            channels_last: false,
            scale: 1.0,
            mean: vec![0.0; 3],
            std: vec![1.0; 3],
            fill: 9,
            element: ElementType::Float32,
            max_pixels: 1 << 20,
        }
    }

    fn written(picture: &RgbImage, preparation: &ImagePreparation) -> Vec<u8> {
        let identity: [u8; 256] = std::array::from_fn(|value| value as u8);
        let tables = vec![identity; preparation.channels.count()];
        let mut values = vec![0; preparation.shape().iter().product()];
        write(picture, preparation, &tables, &mut values);
        values
    }

    #[test]
    fn the_middle_is_taken_and_what_is_missing_is_filled_up() {
        let planes = written(&picture(5, 2), &preparation(4, 3));
        let filled = [9, 9, 9];
        let red = [filled, [1, 2, 3], [1, 2, 3], filled].concat();
        let green = [filled, [0, 0, 0], [1, 1, 1], filled].concat();
        assert_eq!(&planes[..24], [red, green].concat());
        assert_eq!(&planes[24..30], [9, 9, 9, 100, 100, 100]);
        let at_start = ImagePreparation {
            resize: Some((Fit::Pad, Size { height: 4, width: 3 }, Resample::Box)),
            ..preparation(4, 3)
        };
        assert_eq!(written(&picture(2, 1), &at_start)[..6], [0, 1, 9, 9, 9, 9]);
    }

    #[test]
    fn channels_stand_as_the_model_wants_them() {
        let last = ImagePreparation { channels_last: true, channels: Channels::Bgr, ..preparation(1, 2) };
        assert_eq!(written(&picture(2, 1), &last), [100, 0, 0, 100, 0, 1]);
        let luma = ImagePreparation { channels: Channels::Luma, ..preparation(1, 2) };
        assert_eq!(written(&picture(2, 1), &luma), [11, 12]);
    }

    #[test]
    fn sizes_are_those_of_the_training() {
        let size = Size { height: 224, width: 224 };
        let of = |fit, width, height| {
            let Size { height, width } = resized_size(fit, size, &picture(width, height));
            (width, height)
        };
        assert_eq!(of(Fit::Shortest, 640, 427), (335, 224));
        assert_eq!(of(Fit::Shortest, 427, 640), (224, 335));
        assert_eq!(of(Fit::Letterbox, 640, 427), (224, 149));
        assert_eq!(of(Fit::Letterbox, 1, 1000), (1, 224));
        assert_eq!(of(Fit::Exact, 640, 427), (224, 224));
        assert_eq!(of(Fit::Letterbox, 448, 445), (224, 222), "a half is rounded as Python rounds it");
        for (width, height) in [(50, 51), (51, 50), (50, 50), (10, 90), (90, 10)] {
            let wide = resized_size(Fit::Shortest, Size { height: 48, width: 64 }, &picture(width, height));
            assert!(wide.height >= 48 && wide.width >= 64 && (wide.height == 48 || wide.width == 64), "{wide:?}");
        }
    }

    #[test]
    fn a_picture_that_would_be_endless_is_refused() {
        let preparation = ImagePreparation {
            resize: Some((Fit::Shortest, Size { height: 3000, width: 3000 }, Resample::Bilinear)),
            max_pixels: 100_000_000,
            ..preparation(3000, 3000)
        };
        let problem = resized(picture(1, 256), &preparation, &mut Resizer::new()).expect_err("too many pixels");
        assert!(problem.contains("of 1 × 256 pixels would have 3000 × 768000, more than 100000000"), "{problem}");
    }
}
