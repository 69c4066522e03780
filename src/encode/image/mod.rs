//! Images → the numbers that models of images take.
//!
//! ```text
//!  bytes of a file ─► pixels, upright ─► resized ─► cropped or padded ─► (pixel × scale − mean) / std, in the model's layout
//! ```
//!
//! Pixels are resized as Pillow does it, with antialiasing: what models were trained with, and a score drifts with anything else.

#[cfg(feature = "images")]
mod decode;
#[cfg(feature = "images")]
mod info;
#[cfg(feature = "images")]
mod made_up;
#[cfg(feature = "images")]
mod prepare;

use datafusion_predict_native::{ElementType, TensorData};

#[cfg(feature = "images")]
pub(crate) use self::info::ImageInfo;
use crate::cancel::CancelToken;

/// Bytes of a run's input, unless one picture has more.
const LARGEST_RUN: usize = 64 << 20;

/// How a picture is brought to the size that the model takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Fit {
    /// Stretched.
    Exact,
    /// Its shorter side gets the size; the longer one is what it then is.
    Shortest,
    /// All of it is inside, and the rest filled up on both sides.
    Letterbox,
    /// All of it is inside, at the top left, and the rest filled up.
    Pad,
}

/// How the pixels of a resized picture are computed: Pillow's filters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Resample {
    Nearest,
    Box,
    Bilinear,
    Hamming,
    Bicubic,
    Lanczos,
}

/// The channels of the model's input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Channels {
    Rgb,
    Bgr,
    /// Brightness alone, as ITU-R 601 weighs the colours.
    Luma,
}

impl Channels {
    pub(crate) fn count(self) -> usize {
        if self == Self::Luma { 1 } else { 3 }
    }
}

/// Height and width.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Size {
    pub height: usize,
    pub width: usize,
}

impl Size {
    /// Pixels of a side of a model's input, at most.
    pub(crate) const LARGEST_SIDE: usize = 8192;

    /// The size, if a model's input can have it.
    pub(crate) fn checked(height: usize, width: usize) -> Option<Self> {
        let fits = |side: usize| (1..=Self::LARGEST_SIDE).contains(&side);
        (fits(height) && fits(width)).then_some(Self { height, width })
    }
}

/// What is done with a picture before a model sees it.
#[derive(Debug, Clone)]
#[cfg_attr(not(feature = "images"), expect(dead_code, reason = "only what decodes pictures reads all of it"))]
pub(crate) struct ImagePreparation {
    /// How it is resized, if it is.
    pub resize: Option<(Fit, Size, Resample)>,
    /// The size of the model's input. A larger picture is cropped around its middle, a smaller one is filled up around it.
    pub size: Size,
    pub channels: Channels,
    /// Whether the channels of a pixel stand together, and not each in a plane of its own.
    pub channels_last: bool,
    /// What a pixel's value is multiplied by; then the mean is subtracted, and it is divided by the deviation.
    pub scale: f32,
    /// For each channel.
    pub mean: Vec<f32>,
    /// For each channel.
    pub std: Vec<f32>,
    /// The value of pixels around a picture that is smaller than the input, before it is scaled.
    pub fill: u8,
    pub element: ElementType,
    /// Pixels of a picture, at most, before and after it is resized.
    pub max_pixels: u64,
}

/// A picture that can't be a model's input: its place among those that were given, and what is wrong with it.
pub(crate) type BadImage = (usize, String);

impl ImagePreparation {
    /// The shape of one picture's numbers.
    pub(crate) fn shape(&self) -> [usize; 3] {
        let Size { height, width } = self.size;
        match self.channels_last {
            true => [height, width, self.channels.count()],
            false => [self.channels.count(), height, width],
        }
    }

    /// Pictures of one run, at most.
    pub(crate) fn most_rows(&self) -> usize {
        let elements: usize = self.shape().iter().product();
        (LARGEST_RUN / (elements * self.element.size().unwrap_or(1)).max(1)).max(1)
    }

    /// The numbers of `images`, one after the other, made by `threads` threads.
    ///
    /// # Errors
    /// The first of them that is no picture, or too large a one. `None` if `cancel` has ended it.
    #[cfg(feature = "images")]
    pub(crate) fn prepare(
        &self,
        images: &[&[u8]],
        threads: usize,
        cancel: &CancelToken,
    ) -> Result<Option<TensorData>, BadImage> {
        prepare::all(self, images, threads, cancel)
    }

    /// In a build without the feature `images`.
    #[cfg(not(feature = "images"))]
    pub(crate) fn prepare(
        &self,
        _images: &[&[u8]],
        _threads: usize,
        _cancel: &CancelToken,
    ) -> Result<Option<TensorData>, BadImage> {
        Err((0, "this program was built without the feature 'images' of datafusion-predict".to_owned()))
    }
}

/// The file of a picture that nobody has taken: the same for the same number, and others for others.
pub(crate) fn made_up_image(number: usize) -> Vec<u8> {
    #[cfg(feature = "images")]
    return made_up::file(number);
    #[cfg(not(feature = "images"))]
    vec![number as u8]
}
