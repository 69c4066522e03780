//! Chooses which output of a graph a call is made of, and what is made of it.

use datafusion_predict_native::{Dimension, Model, TensorSpec};

use super::settings::Settings;
use crate::call::{ModelOptions, Pooling};
use crate::error::{Result, bail, error};
use crate::scoring::head::{Activation, Head};

/// The graph's output that calls are to have: the one that is named, else the one that has most been done to.
pub(super) fn graph_output(label: &str, model: &Model, options: &ModelOptions) -> Result<TensorSpec> {
    let outputs = &model.signature().outputs;
    let named = |name: &str| outputs.iter().find(|output| output.name.eq_ignore_ascii_case(name));
    let names = || outputs.iter().map(|output| output.name.as_str()).collect::<Vec<_>>().join(", ");
    let found = match &options.output {
        Some(name) => Some(named(name).ok_or_else(|| {
            error!(InvalidOption, "model '{label}' has no output '{name}' (option 'output'): there are {}", names())
        })?),
        None => {
            let usual = ["sentence_embedding", "logits", "last_hidden_state", "token_embeddings"];
            let of_rank = |rank| outputs.iter().find(move |it| it.shape.len() == rank && it.element.is_float());
            usual.into_iter().find_map(named).or_else(|| of_rank(3)).or_else(|| of_rank(2))
        }
    };
    match found {
        Some(output) if output.element.is_float() && [2, 3].contains(&output.shape.len()) => Ok(output.clone()),
        Some(output) => bail!(InvalidModel, "model '{label}': its output {output} is no vector for each text or token"),
        None => {
            bail!(InvalidModel, "model '{label}': none of its outputs ({}) is a vector for each text or token", names())
        }
    }
}

/// What a call makes of the graph's output.
pub(super) struct ChosenHead {
    pub head: Head,
    /// Numbers of a text, where the graph says it.
    pub width: Option<usize>,
    pub labels: Option<Vec<String>>,
    /// What a user should know of the choice.
    pub notes: Vec<String>,
}

/// Chooses by the graph's output, what the files beside the model say, and the options.
///
/// # Errors
/// Options that do not fit; an output that is neither vectors nor labels of whole texts.
pub(super) fn chosen_head(
    label: &str,
    output: &TensorSpec,
    settings: &Settings,
    options: &ModelOptions,
) -> Result<ChosenHead> {
    let kind = settings.architecture.as_deref().unwrap_or_default();
    let is_pooled = output.shape.len() == 2;
    let labels_texts = kind.ends_with("ForSequenceClassification") && is_pooled && options.output.is_none();
    if output.name != "logits" && !labels_texts {
        return encoder(label, output, settings, options);
    }
    if !is_pooled {
        bail!(
            InvalidModel,
            "model '{label}' gives scores for each token ({}): it {}, and only vectors and labels of whole texts are known",
            output.type_line(),
            if kind.ends_with("ForTokenClassification") { "labels words" } else { "generates or fills in text" }
        );
    }
    classifier(label, output, settings, options)
}

/// The head of a model that labels texts.
fn classifier(label: &str, output: &TensorSpec, settings: &Settings, options: &ModelOptions) -> Result<ChosenHead> {
    let texts = &options.texts;
    if let Some((name, _)) = texts.pairs().into_iter().find(|(name, _)| ["pooling", "normalize"].contains(name)) {
        bail!(InvalidOption, "model '{label}' gives labels, not vectors (option '{name}')");
    }
    if let Some(class) = &options.class {
        bail!(
            InvalidOption,
            "model '{label}' labels texts (option class '{class}'): OPTIONS (all_scores true) gives a map, of which ['{class}'] is the score"
        );
    }
    let given = options.labels.as_ref().and_then(|labels| labels.names());
    let of_files = settings.labels.as_ref().map(Vec::len);
    let width = output.shape.last().and_then(Dimension::size).or(of_files);
    if let (Some(names), Some(width)) = (given, width)
        && names.len() != width
    {
        bail!(InvalidOption, "model '{label}': option 'labels' names {} labels, but it has {width}", names.len());
    }
    let one = width == Some(1);
    let activation = if settings.is_regression {
        Activation::None
    } else if one || settings.is_multi_label {
        Activation::Sigmoid
    } else {
        Activation::Softmax
    };
    let labels = given.map(<[String]>::to_vec).or_else(|| settings.labels.clone());
    let labels = labels.filter(|labels| !one && width.is_none_or(|width| width == labels.len()));
    let head = match &labels {
        Some(labels) if texts.all_scores != Some(true) => Head::Best(activation, labels.clone()),
        _ => Head::Scores(activation),
    };
    let unnamed = labels.is_none() && !one;
    let notes = unnamed.then(|| "its labels have no names: OPTIONS (labels '…') gives them".to_owned());
    Ok(ChosenHead { head, width, labels, notes: notes.into_iter().collect() })
}

/// The head of a model that makes texts vectors.
fn encoder(label: &str, output: &TensorSpec, settings: &Settings, options: &ModelOptions) -> Result<ChosenHead> {
    let (texts, is_pooled) = (&options.texts, output.shape.len() == 2);
    if texts.all_scores.is_some() {
        bail!(InvalidOption, "model '{label}' gives vectors, not labels (option 'all_scores')");
    }
    if let Some(step) = settings.unknown_step.as_ref().filter(|_| !is_pooled) {
        bail!(
            InvalidModel,
            "model '{label}': its modules.json has a step '{step}' after the graph, which is not known: export the model with that step in it"
        );
    }
    let mut notes = vec![];
    let pooling = match (texts.pooling, is_pooled) {
        (Some(Pooling::None) | None, true) => Pooling::None,
        (Some(pooling), true) => bail!(
            InvalidOption,
            "model '{label}': its output '{}' is a vector for each text already (option pooling '{pooling}')",
            output.name
        ),
        (Some(Pooling::None), false) => bail!(
            InvalidOption,
            "model '{label}': its output '{}' is a vector for each token: pooling must be mean, cls, max or last",
            output.name
        ),
        (Some(pooling), false) => pooling,
        (None, false) => settings.pooling.unwrap_or_else(|| {
            notes.push(
                "the vector of a text is the mean of its tokens' (option 'pooling'): no file says how it is made"
                    .to_owned(),
            );
            Pooling::Mean
        }),
    };
    // What a graph pools it also normalizes, if that is to be.
    let normalize = texts.normalize.or(settings.normalize.filter(|_| !is_pooled)).unwrap_or(false);
    let width = output.shape.last().and_then(Dimension::size);
    Ok(ChosenHead { head: Head::Embedding { pooling, normalize }, width, labels: None, notes })
}
