//! What the files beside a model of images say of it, in the format of Hugging Face's image processors.

use datafusion_predict_native::Model;
use serde_json::Value;

use crate::encode::{Fit, Resample, Size};
use crate::error::{Result, bail};
use crate::scoring::companions::{json, labels, number};

/// What is known of a model of images beside its graph.
#[derive(Debug, Default)]
pub(super) struct Settings {
    pub resize: Option<(Fit, Size)>,
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

impl Settings {
    /// Reads the files beside `model`. Where `size_is_given`, an option says how pictures are resized.
    ///
    /// # Errors
    /// Files that are not what they should be, and sizes that no model with a fixed size can have.
    pub(super) fn of(label: &str, model: &Model, size_is_given: bool) -> Result<Self> {
        let config = json(label, model, "config.json")?;
        let mut settings = Self {
            labels: labels(&config),
            architecture: config["architectures"][0].as_str().unwrap_or_default().to_owned(),
            is_multi_label: config["problem_type"] == "multi_label_classification",
            ..Self::default()
        };
        let Value::Object(_) = json(label, model, Model::PREPROCESSOR)? else { return Ok(settings) };
        let file = json(label, model, Model::PREPROCESSOR)?;
        let does = |name: &str, default: bool| file[name].as_bool().unwrap_or(default);
        let kind = file["image_processor_type"].as_str().or(file["feature_extractor_type"].as_str());
        let kind = kind.unwrap_or_default();
        if does("do_resize", true) && !size_is_given {
            settings.of_size(label, &file, kind)?;
        }
        if does("do_center_crop", false) {
            settings.crop = side_or_sides(&file["crop_size"]);
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
        settings.is_bgr = does("do_flip_channel_order", false);
        Ok(settings)
    }

    /// `size`, which several kinds of processors mean in several ways.
    fn of_size(&mut self, label: &str, file: &Value, kind: &str) -> Result<()> {
        let size = &file["size"];
        let square = |side: usize| Size { height: side, width: side };
        let shortest = number(&size["shortest_edge"]);
        let by_shortest = ["CLIP", "ChineseCLIP", "MobileNet", "MobileViT", "ConvNext"];
        let side = number(size).or(shortest);
        self.resize = match (side, side_or_sides(size)) {
            (Some(side), _) if kind.starts_with("ConvNext") => {
                // Smaller inputs are cut out of a larger picture.
                let part = file["crop_pct"].as_f64().unwrap_or(224.0 / 256.0);
                self.crop = (side < 384).then(|| square(side));
                Some(match self.crop {
                    Some(_) => (Fit::Shortest, square((side as f64 / part) as usize)),
                    None => (Fit::Exact, square(side)),
                })
            }
            (Some(side), _) if shortest.is_some() || by_shortest.iter().any(|it| kind.starts_with(it)) => {
                Some((Fit::Shortest, square(side)))
            }
            (_, Some(sides)) => Some((Fit::Exact, sides)),
            (_, None) if size.is_null() => None,
            (_, None) => bail!(
                InvalidModel,
                "model '{label}': its {} resizes pictures to {size}, each to another size: OPTIONS (image_size …, resize 'letterbox') gives all the same",
                Model::PREPROCESSOR
            ),
        };
        Ok(())
    }
}

/// `224`, or `{"height": 224, "width": 224}`.
fn side_or_sides(value: &Value) -> Option<Size> {
    match (number(value), number(&value["height"]), number(&value["width"])) {
        (Some(side), ..) => Some(Size { height: side, width: side }),
        (None, Some(height), Some(width)) => Some(Size { height, width }),
        _ => None,
    }
}

fn floats(value: &Value) -> Option<Vec<f32>> {
    match value {
        Value::Array(values) => values.iter().map(|value| value.as_f64().map(|value| value as f32)).collect(),
        value => value.as_f64().map(|value| vec![value as f32]),
    }
}
