//! The options of models of images.

use std::fmt;

use crate::encode::{Channels, Fit, Resample, Size};
use crate::error::{Result, bail};

/// How a model of images is called. What is not given is read from the files beside the model.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct ImageOptions {
    /// Height and width to which a picture is resized: `224`, or `480x640`.
    pub image_size: Option<String>,
    /// How it is brought to that size: `shortest`, `exact`, `letterbox`, `pad` or `none`.
    pub resize: Option<String>,
    /// How the new pixels are computed: `nearest`, `box`, `bilinear`, `hamming`, `bicubic` or `lanczos`.
    pub resample: Option<String>,
    /// Cuts the middle out of the resized picture: `true` in the size of `image_size`, or a size such as `224`; `false` cuts nothing.
    pub crop: Option<String>,
    /// The mean of each channel over the training data, subtracted after scaling: one number for all channels, or a list of three.
    pub mean: Option<String>,
    /// The standard deviation of each channel, by which it is divided last: one number for all channels, or a list of three.
    pub std: Option<String>,
    /// The factor for the values of pixels, which are 0 to 255: 1/255 makes them 0 to 1.
    pub scale: Option<String>,
    /// The places of the dimensions: `NCHW` or `NHWC`.
    pub layout: Option<String>,
    /// The channels: `RGB`, `BGR` or `L`.
    pub channels: Option<String>,
    /// The value of pixels around a picture that is smaller than the model's input.
    pub fill: Option<String>,
    /// Pixels that a picture may have.
    pub max_pixels: Option<String>,
}

/// What the option `crop` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Crop {
    /// Nothing is cut off.
    No,
    /// The size to which pictures are resized.
    ToSize,
    To(Size),
}

impl ImageOptions {
    /// The names of these options.
    pub(super) const NAMES: [&str; 11] = [
        "image_size",
        "resize",
        "resample",
        "crop",
        "mean",
        "std",
        "scale",
        "layout",
        "channels",
        "fill",
        "max_pixels",
    ];

    /// Takes the option, if it is one of these.
    ///
    /// # Errors
    /// A value that it can't have.
    pub(super) fn take(&mut self, name: &str, value: &str) -> Result<bool> {
        let place = match name {
            "image_size" => &mut self.image_size,
            "resize" => &mut self.resize,
            "resample" => &mut self.resample,
            "crop" => &mut self.crop,
            "mean" => &mut self.mean,
            "std" => &mut self.std,
            "scale" => &mut self.scale,
            "layout" => &mut self.layout,
            "channels" => &mut self.channels,
            "fill" => &mut self.fill,
            "max_pixels" => &mut self.max_pixels,
            _ => return Ok(false),
        };
        *place = Some(value.to_owned());
        // Each is read again when the model is prepared: what it can't be is said now.
        self.size()?;
        self.fit()?;
        self.resample()?;
        self.crop()?;
        numbers("mean", self.mean.as_deref())?;
        if numbers("std", self.std.as_deref())?.is_some_and(|values| values.contains(&0.0)) {
            bail!(InvalidOption, "option 'std' is '{value}': nothing can be divided by 0");
        }
        self.scale()?;
        self.is_channels_last()?;
        self.channels()?;
        self.fill()?;
        self.max_pixels()?;
        Ok(true)
    }

    /// The options that are given, with their values.
    pub(crate) fn pairs(&self) -> Vec<(&'static str, String)> {
        let Self { image_size, resize, resample, crop, mean, std, scale, layout, channels, fill, max_pixels } = self;
        let values = [image_size, resize, resample, crop, mean, std, scale, layout, channels, fill, max_pixels];
        Self::NAMES.into_iter().zip(values).filter_map(|(name, value)| Some((name, value.clone()?))).collect()
    }

    pub(crate) fn size(&self) -> Result<Option<Size>> {
        self.image_size.as_deref().map(|text| size("image_size", text)).transpose()
    }

    /// `Some(None)` if pictures are not to be resized.
    pub(crate) fn fit(&self) -> Result<Option<Option<Fit>>> {
        let fits = [
            ("shortest", Some(Fit::Shortest)),
            ("exact", Some(Fit::Exact)),
            ("letterbox", Some(Fit::Letterbox)),
            ("pad", Some(Fit::Pad)),
            ("none", None),
        ];
        choice("resize", self.resize.as_deref(), &fits)
    }

    pub(crate) fn resample(&self) -> Result<Option<Resample>> {
        let filters = [
            ("nearest", Resample::Nearest),
            ("box", Resample::Box),
            ("bilinear", Resample::Bilinear),
            ("hamming", Resample::Hamming),
            ("bicubic", Resample::Bicubic),
            ("lanczos", Resample::Lanczos),
        ];
        choice("resample", self.resample.as_deref(), &filters)
    }

    pub(crate) fn crop(&self) -> Result<Option<Crop>> {
        let crop = self.crop.as_deref().map(|text| match text.to_lowercase().as_str() {
            "true" => Ok(Crop::ToSize),
            "false" => Ok(Crop::No),
            _ => size("crop", text).map(Crop::To),
        });
        crop.transpose()
    }

    pub(crate) fn mean(&self) -> Result<Option<Vec<f32>>> {
        numbers("mean", self.mean.as_deref())
    }

    pub(crate) fn std(&self) -> Result<Option<Vec<f32>>> {
        numbers("std", self.std.as_deref())
    }

    pub(crate) fn scale(&self) -> Result<Option<f32>> {
        match numbers("scale", self.scale.as_deref())?.as_deref() {
            None => Ok(None),
            Some([scale]) => Ok(Some(*scale)),
            Some(_) => bail!(InvalidOption, "option 'scale' has several numbers, expected one"),
        }
    }

    pub(crate) fn is_channels_last(&self) -> Result<Option<bool>> {
        choice("layout", self.layout.as_deref(), &[("nchw", false), ("nhwc", true)])
    }

    pub(crate) fn channels(&self) -> Result<Option<Channels>> {
        let channels = [("rgb", Channels::Rgb), ("bgr", Channels::Bgr), ("l", Channels::Luma)];
        choice("channels", self.channels.as_deref(), &channels)
    }

    pub(crate) fn fill(&self) -> Result<Option<u8>> {
        number("fill", self.fill.as_deref(), "a number from 0 to 255")
    }

    pub(crate) fn max_pixels(&self) -> Result<Option<u64>> {
        number("max_pixels", self.max_pixels.as_deref(), "a number of pixels")
    }
}

/// The value that `text` names.
fn choice<T: Copy>(name: &str, text: Option<&str>, known: &[(&str, T)]) -> Result<Option<T>> {
    let Some(text) = text else { return Ok(None) };
    match known.iter().find(|(known, _)| known.eq_ignore_ascii_case(text)) {
        Some((_, value)) => Ok(Some(*value)),
        None => {
            let names: Vec<_> = known.iter().map(|(name, _)| *name).collect();
            bail!(InvalidOption, "option '{name}' is '{text}': expected {}", names.join(", "))
        }
    }
}

fn number<T: std::str::FromStr>(name: &str, text: Option<&str>, expected: impl fmt::Display) -> Result<Option<T>> {
    let Some(text) = text else { return Ok(None) };
    match text.parse() {
        Ok(number) => Ok(Some(number)),
        Err(_) => bail!(InvalidOption, "option '{name}' is '{text}': expected {expected}"),
    }
}

/// `0.5`, or `[0.485, 0.456, 0.406]`
fn numbers(name: &str, text: Option<&str>) -> Result<Option<Vec<f32>>> {
    let Some(text) = text else { return Ok(None) };
    let inner = text.trim().strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let values: Option<Vec<f32>> =
        inner.split(',').map(|value| value.trim().parse().ok().filter(|value: &f32| value.is_finite())).collect();
    match values {
        Some(values) if [1, 3].contains(&values.len()) => Ok(Some(values)),
        _ => bail!(InvalidOption, "option '{name}' is '{text}': expected a number, or one for each of three channels"),
    }
}

/// `224`, or `480x640`: height and width.
fn size(name: &str, text: &str) -> Result<Size> {
    let (height, width) = text.split_once(['x', 'X']).unwrap_or((text, text));
    let side = |text: &str| text.trim().parse().ok();
    match side(height).zip(side(width)).and_then(|(height, width)| Size::checked(height, width)) {
        Some(size) => Ok(size),
        None => {
            bail!(InvalidOption, "option '{name}' is '{text}': expected pixels such as 224, or height x width: 480x640")
        }
    }
}
