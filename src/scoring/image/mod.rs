//! Models of images: a column of files' contents in, labels, vectors or whatever the graph gives out.
//!
//! ```text
//!  bytes ─► decoded, resized, scaled ─► engine ─► label and score │ vector │ as it comes
//! ```
//!
//! To all other modules such a model is one that takes bytes: the graph behind it takes pixels.

mod runner;
mod settings;

use std::sync::Arc;

use datafusion_predict_native::{ClassLabels, Dimension, ElementType, Model, TensorSpec};

use self::runner::ImageRunner;
use self::settings::Settings;
use super::axes::Input;
use super::front::BeforeGraph;
use super::head::{self, Activation, Head, outputs_of};
use super::outputs::{SelectedOutput, output_columns, select_outputs};
use crate::call::{Crop, GivenLabels, ImageOptions, ModelOptions, Pooling};
use crate::encode::{Channels, Fit, ImagePreparation, OutputColumn, Resample, Size};
use crate::error::{Result, bail};

/// Pixels of a picture, at most, where no option says so: 300 MB, once they are decoded.
const MOST_PIXELS: u64 = 100_000_000;

/// A model of images, before an engine has prepared its graph.
pub(super) struct ImageModel {
    /// The inputs of the graph.
    pub graph_inputs: Vec<TensorSpec>,
    /// The outputs of the graph that calls need.
    pub graph_outputs: Vec<String>,
    /// The images that a call gives.
    pub inputs: Vec<Input>,
    /// The options, with what the files beside the model say.
    pub options: ModelOptions,
    /// What a user should know of what was chosen.
    pub notes: Vec<String>,
    given: Given,
    runner: ImageRunner,
}

/// What a call gives back.
enum Given {
    /// What a head makes of one output.
    Made(Vec<TensorSpec>),
    /// The outputs as they come.
    AsItComes,
}

impl ImageModel {
    /// `model` as a model of images; `None` if it is none.
    ///
    /// # Errors
    /// Files beside it that can't be read or do not fit the graph; options that do not fit it.
    pub(super) fn of(label: &str, model: &Model, options: &ModelOptions) -> Result<Option<Self>> {
        let given = options.images.pairs().first().map(|(name, _)| *name);
        let has_file = model.companion(Model::PREPROCESSOR).is_some() && cfg!(feature = "images");
        if given.is_none() && !has_file {
            return Ok(None);
        }
        let inputs = &model.signature().inputs;
        let takes_pixels = |input: &TensorSpec| {
            let elements = [ElementType::Float32, ElementType::Float16, ElementType::UInt8];
            input.shape.len() == 4 && elements.contains(&input.element)
        };
        let input = match (inputs.as_slice(), given) {
            ([only], _) if takes_pixels(only) => only,
            // A graph that takes more than an image is called with numbers, as others are.
            (_, None) => return Ok(None),
            (others, Some(option)) => {
                let found: Vec<_> = others.iter().map(TensorSpec::to_string).collect();
                bail!(
                    InvalidOption,
                    "model '{label}' is no model of images (option '{option}'): expected one input of four dimensions of floats or bytes, found {}",
                    found.join(", ")
                )
            }
        };
        if !options.constants.is_empty() || options.bytes.is_some() {
            bail!(
                InvalidOption,
                "model '{label}' takes images: options 'constant.…' and 'bytes' are for models of numbers"
            );
        }
        let settings = Settings::of(label, model, &options.images)?;
        let preparation = preparation(label, input, &settings, &options.images)?;
        let mut effective = options.clone();
        effective.labels = effective.labels.or(settings.labels.clone().map(GivenLabels::Names));
        let chosen = chosen_output(label, model, &settings, &effective)?;
        let rows = input.shape[0].clone();
        let mut notes = chosen.as_ref().map(|chosen| chosen.notes.clone()).unwrap_or_default();
        notes.push(what_is_done(&preparation));
        let spec = TensorSpec { name: "image".to_owned(), element: ElementType::Bytes, shape: vec![rows.clone()] };
        let (given, graph_outputs, head) = match chosen {
            Some(chosen) => {
                if !matches!(chosen.head, Head::Scores(_)) {
                    effective.labels = None;
                }
                effective.output = None;
                let made = outputs_of(&chosen.head, chosen.width, rows);
                (Given::Made(made), vec![chosen.output], Some(chosen.head))
            }
            None => {
                let selected = select_outputs(label, model, &effective)?;
                let names = selected.iter().flat_map(|output| &output.tensors).map(|tensor| tensor.name.clone());
                // Labels that came with the model fit none of its outputs.
                if options.labels.is_none() && options.class.is_none() {
                    effective.labels = None;
                }
                (Given::AsItComes, names.collect(), None)
            }
        };
        let shape = preparation.shape().map(Dimension::Fixed);
        let graph_input =
            TensorSpec { shape: input.shape[..1].iter().cloned().chain(shape).collect(), ..input.clone() };
        Ok(Some(Self {
            graph_inputs: vec![graph_input],
            inputs: vec![Input { spec, constant: None }],
            options: effective,
            notes,
            given,
            runner: ImageRunner {
                label: label.split_once('/').map_or(label, |(name, _)| name).to_owned(),
                preparation,
                head,
                output: graph_outputs.first().cloned().unwrap_or_default(),
            },
            graph_outputs,
        }))
    }

    /// What a call gives back.
    pub(super) fn outputs(&self, label: &str, model: &Model) -> Result<Vec<SelectedOutput>> {
        match &self.given {
            Given::Made(made) => Ok(made.iter().map(SelectedOutput::tensor).collect()),
            Given::AsItComes => select_outputs(label, model, &self.options),
        }
    }

    /// The columns that `outputs`, which are those of this model as runs have shown them, become.
    pub(super) fn columns(&self, label: &str, model: &Model, outputs: &[SelectedOutput]) -> Result<Vec<OutputColumn>> {
        let (Given::Made(_), Some(head)) = (&self.given, &self.runner.head) else {
            return output_columns(label, model, &self.options, outputs);
        };
        let labels = self.options.labels.as_ref().and_then(|labels| labels.names());
        let labels = labels.map(|names| ClassLabels::from(names.to_vec()));
        Ok(outputs.iter().map(|output| head::column(head, output, labels.as_ref())).collect())
    }

    /// What stands before the graph when it runs.
    pub(super) fn runner(&self) -> Arc<dyn BeforeGraph> {
        Arc::new(self.runner.clone())
    }

    /// Elements of one image, as the graph takes it.
    pub(super) fn row_elements(&self) -> usize {
        self.runner.preparation.shape().iter().product()
    }

    /// Rows of a run, at most.
    pub(super) fn most_rows(&self) -> usize {
        self.runner.preparation.most_rows()
    }
}

/// How pictures become the graph's `input`, by its shape, the files beside it and the options.
fn preparation(
    label: &str,
    input: &TensorSpec,
    settings: &Settings,
    options: &ImageOptions,
) -> Result<ImagePreparation> {
    let [_, second, third, fourth] = input.shape.as_slice() else {
        bail!(InvalidModel, "model '{label}': its input {input} is no image");
    };
    let counts = |dim: &Dimension| matches!(dim.size(), Some(1 | 3));
    let channels_last = match (options.is_channels_last()?, counts(second), counts(fourth)) {
        (Some(last), ..) => last,
        (None, true, _) => false,
        (None, false, true) => true,
        (None, false, false) => bail!(
            InvalidOption,
            "model '{label}': where its input {input} has the channels can't be told: OPTIONS (layout 'NCHW') or 'NHWC' says it"
        ),
    };
    let (planes, height, width) = if channels_last { (fourth, second, third) } else { (second, third, fourth) };
    let usual = if settings.is_bgr { Channels::Bgr } else { Channels::Rgb };
    let channels = match (options.channels()?, planes.size()) {
        (Some(channels), None) => channels,
        (Some(channels), Some(count)) if channels.count() == count => channels,
        (None, Some(1)) => Channels::Luma,
        (None, Some(3) | None) => usual,
        (_, Some(count)) => bail!(InvalidOption, "model '{label}': its input {input} has {count} channels"),
    };
    let of_graph = height.size().zip(width.size()).map(|(height, width)| Size { height, width });
    let asked = options.size()?;
    let fit = options.fit()?;
    let crop = match options.crop()? {
        Some(Crop::No) => None,
        Some(Crop::To(size)) => Some(size),
        Some(Crop::ToSize) => asked.or(settings.size).or(of_graph),
        None if asked.is_none() && fit.is_none() => settings.crop,
        None => None,
    };
    let Some(size) = asked.or(settings.size).or(crop).or(of_graph) else {
        bail!(
            InvalidOption,
            "model '{label}': its input {input} has any size: OPTIONS (image_size 224) says which pictures are to have"
        );
    };
    // A picture keeps its proportions, unless something says that it does not.
    let fit = fit.or(settings.fit).unwrap_or(Some(Fit::Shortest));
    let resample = options.resample()?.or(settings.resample).unwrap_or(Resample::Bilinear);
    let final_size = crop.unwrap_or(size);
    if let Some(of_graph) = of_graph.filter(|of_graph| *of_graph != final_size) {
        bail!(
            InvalidOption,
            "model '{label}': its input {input} takes {} x {} pixels, but pictures are to have {} x {} (options 'image_size' and 'crop')",
            of_graph.height,
            of_graph.width,
            final_size.height,
            final_size.width
        );
    }
    let is_scaled = input.element != ElementType::UInt8;
    let wants_scaling = options.mean.is_some() || options.std.is_some() || options.scale.is_some();
    if !is_scaled && wants_scaling {
        bail!(
            InvalidOption,
            "model '{label}': its input {input} takes pixels as they are (options 'mean', 'std', 'scale')"
        );
    }
    let for_each = |name: &str, values: Option<Vec<f32>>, default: f32| match values.as_deref() {
        None => Ok(vec![default; channels.count()]),
        Some([one]) => Ok(vec![*one; channels.count()]),
        Some(values) if values.len() == channels.count() => Ok(values.to_vec()),
        Some(values) => {
            bail!(
                InvalidOption,
                "model '{label}': {} numbers for {} channels ('{name}')",
                values.len(),
                channels.count()
            )
        }
    };
    Ok(ImagePreparation {
        resize: fit.map(|fit| (fit, size, resample)),
        size: final_size,
        channels,
        channels_last,
        scale: options.scale()?.or(settings.scale).unwrap_or(1.0 / 255.0),
        mean: for_each("mean", options.mean()?.or(settings.mean.clone()), 0.0)?,
        std: for_each("std", options.std()?.or(settings.std.clone()), 1.0)?,
        fill: options.fill()?.unwrap_or(0),
        element: input.element,
        max_pixels: options.max_pixels()?.unwrap_or(MOST_PIXELS),
    })
}

/// An output of the graph of which something is made.
struct Chosen {
    output: String,
    head: Head,
    /// Numbers of an image, where the graph says it.
    width: Option<usize>,
    notes: Vec<String>,
}

/// Names of outputs that are a vector for each image.
const VECTORS: [&str; 5] = ["image_embeds", "image_features", "embedding", "embeddings", "pooler_output"];

/// Which output is made a label or a vector; `None` if all come as they are.
fn chosen_output(label: &str, model: &Model, settings: &Settings, options: &ModelOptions) -> Result<Option<Chosen>> {
    let outputs = &model.signature().outputs;
    let named = |name: &str| outputs.iter().find(|output| output.name.eq_ignore_ascii_case(name));
    let wanted = match &options.output {
        Some(name) => match named(name) {
            Some(output) => Some(output),
            None => return Ok(None), // which is said where outputs are selected
        },
        None => VECTORS.into_iter().chain(["logits"]).find_map(named).or(if let [only] = outputs.as_slice() {
            Some(only)
        } else {
            None
        }),
    };
    let texts = &options.texts;
    if let Some((name, _)) =
        texts.pairs().into_iter().find(|(name, _)| !["pooling", "normalize", "all_scores"].contains(name))
    {
        bail!(InvalidOption, "model '{label}' takes images (option '{name}' is for models of texts)");
    }
    let asks = texts.pooling.is_some() || texts.normalize.is_some();
    let made = |output: &&TensorSpec| output.element.is_float() && [2, 3].contains(&output.shape.len());
    let Some(output) = wanted.filter(made) else {
        if let Some((name, _)) = texts.pairs().first() {
            bail!(InvalidOption, "model '{label}' has no output that option '{name}' fits");
        }
        return Ok(None);
    };
    let width = output.shape.last().and_then(Dimension::size);
    let chosen = |head, notes| Ok(Some(Chosen { output: output.name.clone(), head, width, notes }));
    let is_pooled = output.shape.len() == 2;
    if asks || (is_pooled && VECTORS.contains(&output.name.to_lowercase().as_str())) {
        if texts.all_scores.is_some() {
            bail!(InvalidOption, "model '{label}' gives vectors, not labels (option 'all_scores')");
        }
        let pooling = match (texts.pooling, is_pooled) {
            (None | Some(Pooling::None), true) => Pooling::None,
            (Some(pooling), false) if pooling != Pooling::None => pooling,
            (Some(pooling), true) => bail!(
                InvalidOption,
                "model '{label}': its output '{}' is a vector for each image already (option pooling '{pooling}')",
                output.name
            ),
            (_, false) => bail!(
                InvalidOption,
                "model '{label}': its output '{}' is a vector for each part of an image: OPTIONS (pooling 'mean'), or cls or max",
                output.name
            ),
        };
        return chosen(Head::Embedding { pooling, normalize: texts.normalize.unwrap_or(false) }, vec![]);
    }
    let Some(names) = options.labels.as_ref().and_then(|labels| labels.names()).filter(|_| options.class.is_none())
    else {
        if texts.all_scores.is_some() {
            bail!(
                InvalidOption,
                "model '{label}': its labels have no names (option 'all_scores'): OPTIONS (labels '…') gives them"
            );
        }
        return Ok(None);
    };
    if !is_pooled || width.is_some_and(|width| width != names.len()) {
        return Ok(None);
    }
    let classifies = settings.architecture.ends_with("ForImageClassification") || output.name == "logits";
    let activation = match (classifies, settings.is_multi_label) {
        (true, true) => Activation::Sigmoid,
        (true, false) => Activation::Softmax,
        (false, _) => Activation::None,
    };
    let notes = (!classifies).then(|| "scores are as the model gives them".to_owned());
    let head = match texts.all_scores {
        Some(true) => Head::Scores(activation),
        _ => Head::Best(activation, names.to_vec()),
    };
    chosen(head, notes.into_iter().collect())
}

/// What is done with a picture, in words.
fn what_is_done(preparation: &ImagePreparation) -> String {
    let Size { height, width } = preparation.size;
    let resized = match preparation.resize {
        None => "taken as they are".to_owned(),
        Some((fit, size, resample)) => {
            let how = match fit {
                Fit::Exact => "stretched",
                Fit::Shortest => "resized by their shorter side",
                Fit::Letterbox | Fit::Pad => "fitted",
            };
            format!("{how} to {} x {} ({resample:?})", size.height, size.width).to_lowercase()
        }
    };
    format!("pictures are {resized}, and cut or filled up to {height} x {width}, {:?}", preparation.channels)
}
