//! What the files beside a model of images say of it, in the format of Hugging Face's image processors.

use datafusion_predict_native::Model;
use serde_json::Value;

use crate::call::ImageOptions;
use crate::encode::{Fit, Resample, Size};
use crate::error::{Result, bail};
use crate::scoring::companions::{json, labels, number};

/// What is known of a model of images beside its graph.
#[derive(Debug, Default)]
pub(super) struct Settings {
    /// How pictures are resized; `Some(None)` if they are not.
    pub fit: Option<Option<Fit>>,
    pub size: Option<Size>,
    pub crop: Option<Size>,
    pub resample: Option<Resample>,
    pub scale: Option<f32>,
    pub mean: Option<Vec<f32>>,
    pub std: Option<Vec<f32>>,
    /// Whether the model takes blue before red.
    pub is_bgr: bool,
    /// The names of the labels, in order.
    pub labels: Option<Vec<String>>,
    /// What the model is trained for: `ViTForImageClassification`.
    pub architecture: String,
    /// Whether each label holds for itself.
    pub is_multi_label: bool,
}

/// Keys of the file that, unless they are off, change pixels in ways that are not known here.
const UNKNOWN_STEPS: [&str; 7] =
    ["do_pad", "do_thumbnail", "do_align_long_axis", "do_rotate", "do_invert_colors", "include_top", "rescale_offset"];

impl Settings {
    /// Reads the files beside `model`. What `options` say is not asked of the files.
    ///
    /// # Errors
    /// Files that are not what they should be, that ask for more than is known here, or for sizes that no model with a fixed size
    /// can have.
    pub(super) fn of(label: &str, model: &Model, options: &ImageOptions) -> Result<Self> {
        let config = json(label, model, "config.json")?;
        let mut settings = Self {
            labels: labels(&config),
            architecture: config["architectures"][0].as_str().unwrap_or_default().to_owned(),
            is_multi_label: config["problem_type"] == "multi_label_classification",
            ..Self::default()
        };
        let file = json(label, model, Model::PREPROCESSOR)?;
        if !file.is_object() {
            return Ok(settings);
        }
        let does = |name: &str, default: bool| file[name].as_bool().unwrap_or(default);
        let kind = file["image_processor_type"].as_str().or(file["feature_extractor_type"].as_str());
        let kind = kind.unwrap_or_default();
        let crops_a_part = !kind.starts_with("ConvNext") && !file["crop_pct"].is_null();
        let unknown = UNKNOWN_STEPS.into_iter().find(|step| does(step, false));
        let unknown = unknown.or(crops_a_part.then_some("crop_pct")).or(kind.starts_with("Levit").then_some(kind));
        if let Some(step) = unknown.filter(|_| options.resize.is_none()) {
            bail!(
                InvalidModel,
                "model '{label}': its {} asks for '{step}', which is not known here: OPTIONS (resize …, image_size …) say how pictures are prepared in its place",
                Model::PREPROCESSOR
            );
        }
        let read = FileOfModel { label: label.to_owned(), file: &file };
        if does("do_resize", true) {
            settings.of_size(&read, kind, options)?;
        } else {
            settings.fit = Some(None);
        }
        if does("do_center_crop", false) {
            settings.crop = read.size("crop_size")?;
        }
        settings.resample = match file["resample"].as_u64() {
            Some(0) => Some(Resample::Nearest),
            Some(1) => Some(Resample::Lanczos),
            Some(2) => Some(Resample::Bilinear),
            Some(3) => Some(Resample::Bicubic),
            Some(4) => Some(Resample::Box),
            Some(5) => Some(Resample::Hamming),
            _ => kind.contains("CLIP").then_some(Resample::Bicubic),
        };
        let factor = file["rescale_factor"].as_f64().unwrap_or(1.0 / 255.0);
        settings.scale = Some(if does("do_rescale", true) { factor as f32 } else { 1.0 });
        if does("do_normalize", !file["image_mean"].is_null()) {
            settings.mean = floats(&file["image_mean"]);
            settings.std = floats(&file["image_std"]);
        }
        if settings.std.as_ref().is_some_and(|std| std.contains(&0.0)) {
            bail!(InvalidModel, "model '{label}': 'image_std' of its {} has a 0", Model::PREPROCESSOR);
        }
        settings.is_bgr = does("do_flip_channel_order", false);
        Ok(settings)
    }

    /// `size`, which several kinds of processors mean in several ways.
    fn of_size(&mut self, read: &FileOfModel, kind: &str, options: &ImageOptions) -> Result<()> {
        let size = &read.file["size"];
        let shortest = !size["shortest_edge"].is_null();
        let by_shortest = ["CLIP", "ChineseCLIP", "MobileNet", "MobileViT", "ConvNext"];
        let square = if shortest { read.side(&size["shortest_edge"], "size")? } else { read.side(size, "size")? };
        match square {
            Some(square) if kind.starts_with("ConvNext") => {
                // Smaller inputs are cut out of a larger picture.
                self.crop = (square.height < 384).then_some(square);
                (self.fit, self.size) = match self.crop {
                    Some(_) => {
                        let part = read.file["crop_pct"].as_f64().unwrap_or(224.0 / 256.0);
                        let whole = (square.height as f64 / part) as usize; // an endless one is no size
                        (Some(Some(Fit::Shortest)), Some(read.checked(whole, whole, "crop_pct")?))
                    }
                    None => (Some(Some(Fit::Exact)), Some(square)),
                };
            }
            Some(square) => {
                let fit = if shortest || by_shortest.iter().any(|it| kind.starts_with(it)) {
                    Fit::Shortest
                } else {
                    Fit::Exact
                };
                (self.fit, self.size) = (Some(Some(fit)), Some(square));
            }
            None => match read.size("size")? {
                Some(sides) => (self.fit, self.size) = (Some(Some(Fit::Exact)), Some(sides)),
                None if size.is_null() || options.image_size.is_some() || options.resize.is_some() => {}
                None => bail!(
                    InvalidModel,
                    "model '{}': its {} resizes pictures to {size}, each to another size: OPTIONS (image_size …, resize 'letterbox') gives all the same",
                    read.label,
                    Model::PREPROCESSOR
                ),
            },
        }
        Ok(())
    }
}

/// The file, and the model's name for errors.
struct FileOfModel<'a> {
    label: String,
    file: &'a Value,
}

impl FileOfModel<'_> {
    /// `224`, or `{"height": 224, "width": 224}`, under `key`.
    fn size(&self, key: &str) -> Result<Option<Size>> {
        let value = &self.file[key];
        match (number(&value["height"]), number(&value["width"])) {
            (Some(height), Some(width)) => self.checked(height, width, key).map(Some),
            _ => self.side(value, key),
        }
    }

    /// A square, by its side.
    fn side(&self, value: &Value, key: &str) -> Result<Option<Size>> {
        number(value).map(|side| self.checked(side, side, key)).transpose()
    }

    fn checked(&self, height: usize, width: usize, key: &str) -> Result<Size> {
        match Size::checked(height, width) {
            Some(size) => Ok(size),
            None => bail!(
                InvalidModel,
                "model '{}': '{key}' of its {} is {height} x {width} pixels, expected 1 to {} on a side",
                self.label,
                Model::PREPROCESSOR,
                Size::LARGEST_SIDE
            ),
        }
    }
}

fn floats(value: &Value) -> Option<Vec<f32>> {
    match value {
        Value::Array(values) => values.iter().map(|value| value.as_f64().map(|value| value as f32)).collect(),
        value => value.as_f64().map(|value| vec![value as f32]),
    }
}
