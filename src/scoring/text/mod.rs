//! Models of texts: columns of words in, vectors, labels or scores out.
//!
//! ```text
//!  texts ─► equal ones once ─► tokens ─► by length ─► batches ─► engine ─► pooled ─► in the rows' order
//! ```
//!
//! To all other modules such a model is one that takes texts and gives a vector: the graph behind it takes numbers of tokens.

mod batches;
mod head;
mod runner;
mod settings;

use std::sync::Arc;

use datafusion_predict_native::{ClassLabels, Dimension, ElementType, Model, TensorSpec};

use self::head::{Activation, Head};
use self::runner::{Role, TextRunner};
use self::settings::Settings;
use super::axes::Input;
use super::outputs::SelectedOutput;
use crate::call::{GivenLabels, ModelOptions, OnLongText, Pooling, TextOptions};
use crate::encode::{OutputColumn, TokenizerFile};
use crate::engine::Executable;
use crate::error::{Result, bail, error};

/// The file beside a model that makes it a model of texts.
const TOKENIZER: &str = "tokenizer.json";

/// Texts that are looked at together, at most: among so many there are some of any length, and their tokens take little memory.
pub(super) const WINDOW: usize = 4096;

/// Tokens of a text where nothing says how many the model takes.
const USUAL_MAX: usize = 512;

/// A model of texts, before an engine has prepared its graph.
pub(super) struct TextModel {
    /// The inputs of the graph.
    pub graph_inputs: Vec<TensorSpec>,
    /// The output of the graph that is made the call's.
    pub graph_output: TensorSpec,
    /// The texts that a call gives.
    pub inputs: Vec<Input>,
    /// What a call gives back.
    pub outputs: Vec<TensorSpec>,
    /// The options, with what the files beside the model say.
    pub options: ModelOptions,
    /// What a user should know of what was chosen.
    pub notes: Vec<String>,
    runner: TextRunner,
}

impl TextModel {
    /// `model` as a model of texts; `None` if it is none.
    ///
    /// # Errors
    /// Files beside it that can't be read, that do not fit the graph or each other; options that do not fit it.
    pub(super) fn of(label: &str, model: &Model, options: &ModelOptions) -> Result<Option<Self>> {
        let Some(json) = model.companion(TOKENIZER) else {
            if let Some((name, _)) = options.texts.pairs().first() {
                bail!(
                    InvalidOption,
                    "model '{label}' is no model of texts (option '{name}'): such a model takes 'input_ids', and has a file {TOKENIZER} beside it"
                );
            }
            return Ok(None);
        };
        let signature = model.signature();
        if let Some(input) = signature.inputs.iter().find(|input| input.name.starts_with("past_key_values")) {
            bail!(
                InvalidModel,
                "model '{label}' generates text, token by token (its input '{}'): that is not what predict does; use a model that gives vectors or labels",
                input.name
            );
        }
        let roles = match signature.inputs.iter().map(|input| Role::of(label, input)).collect::<Result<Vec<_>>>() {
            Ok(roles) if cfg!(feature = "text") || options.texts != TextOptions::default() => roles,
            // A graph that takes more than texts is called with numbers, as others are.
            Err(error) if options.texts != TextOptions::default() => return Err(error),
            _ => return Ok(None),
        };
        if !options.constants.is_empty() || !options.sizes.is_empty() {
            bail!(
                InvalidOption,
                "model '{label}' takes texts: options 'constant.…' and 'size.…' are for models of numbers"
            );
        }
        let settings = Settings::of(label, model, options)?;
        let broken =
            |problem: String| error!(InvalidModel, "model '{label}': its file {TOKENIZER} can't be used: {problem}");
        let file = TokenizerFile::read(json).map_err(broken)?;
        let (length, single) = sizes(label, &signature.inputs)?;
        let known = settings.max_tokens.or(file.max_tokens()).or(settings.positions).unwrap_or(USUAL_MAX);
        let limit = [settings.positions, length].into_iter().flatten().min();
        if let (Some(asked), Some(limit)) = (options.texts.max_tokens, limit)
            && asked > limit
        {
            bail!(InvalidOption, "model '{label}': option 'max_tokens' is {asked}, but the model takes {limit}");
        }
        let max_tokens = options.texts.max_tokens.unwrap_or(known).min(limit.unwrap_or(usize::MAX));
        let tokenizer = file.with_max_tokens(max_tokens).map_err(broken)?;
        if let Some(rows) = settings.vocabulary.filter(|rows| *rows < tokenizer.vocabulary()) {
            bail!(
                InvalidModel,
                "model '{label}': its tokenizer gives {} tokens, but the model knows {rows}: they are not of one model",
                tokenizer.vocabulary()
            );
        }
        let graph_output = graph_output(label, model, options)?;
        let head = chosen_head(label, &graph_output, &settings, options)?;
        let pair = options.texts.pair.unwrap_or(matches!(&head.head, Head::Scores(_)) && head.width == Some(1));
        if tokenizer.marks(pair) >= max_tokens {
            bail!(
                InvalidModel,
                "model '{label}' takes {max_tokens} tokens, of which {} mark beginning and end, so no text fits",
                tokenizer.marks(pair)
            );
        }
        let on_long = options.texts.on_long.unwrap_or_default();
        if on_long == OnLongText::Split && (pair || !matches!(head.head, Head::Embedding { .. })) {
            bail!(InvalidOption, "model '{label}': option on_long 'split' is for embeddings of single texts");
        }
        let names: &[&str] = if pair { &["text", "text_pair"] } else { &["text"] };
        let rows = Dimension::Dynamic(Some("texts".to_owned()));
        let text = |name: &&str| Input {
            spec: TensorSpec { name: (*name).to_owned(), element: ElementType::String, shape: vec![rows.clone()] },
            constant: None,
        };
        let mut effective = options.clone();
        effective.output = None;
        if let (Head::Scores(_), Some(labels)) = (&head.head, head.labels) {
            effective.labels = effective.labels.or(Some(GivenLabels::Names(labels)));
        }
        let mut notes = head.notes;
        notes.push(format!("a text is {max_tokens} tokens at most; {}", what_becomes(on_long)));
        Ok(Some(Self {
            graph_inputs: signature.inputs.clone(),
            inputs: names.iter().map(text).collect(),
            outputs: outputs(&head.head, head.width, rows),
            options: effective,
            notes,
            runner: TextRunner {
                inner: None,
                label: label.split_once('/').map_or(label, |(name, _)| name).to_owned(),
                tokenizer,
                roles,
                length,
                single,
                output: graph_output.name.clone(),
                head: head.head,
                prefix: options.texts.prefix.clone().unwrap_or_default(),
                on_long,
                max_tokens,
            },
            graph_output,
        }))
    }

    /// The columns that `outputs`, which are those of this model as runs have shown them, become.
    pub(super) fn columns(&self, outputs: &[SelectedOutput]) -> Vec<OutputColumn> {
        let labels = self.options.labels.as_ref().and_then(|labels| labels.names());
        let labels = labels.map(|names| ClassLabels::from(names.to_vec()));
        let column = |output: &SelectedOutput| {
            let spec = output.spec();
            match self.runner.head {
                Head::Embedding { .. } => OutputColumn::vector(&spec),
                _ => {
                    let labels = labels.as_ref().filter(|labels| OutputColumn::takes_labels(&spec, labels));
                    OutputColumn::new(&spec, labels)
                }
            }
        };
        outputs.iter().map(column).collect()
    }

    /// What runs texts through `graph`, which an engine has prepared.
    pub(super) fn runner(&self, graph: Arc<dyn Executable>) -> Arc<dyn Executable> {
        Arc::new(TextRunner { inner: Some(graph), ..self.runner.clone() })
    }
}

fn what_becomes(on_long: OnLongText) -> &'static str {
    match on_long {
        OnLongText::Truncate => "the rest of a longer one is left out (option 'on_long')",
        OnLongText::Split => "a longer one is the mean of its parts",
        OnLongText::Error => "a longer one can't be scored",
    }
}

/// The number of tokens that all texts must have, and whether a run takes one text, where the graph says so.
fn sizes(label: &str, inputs: &[TensorSpec]) -> Result<(Option<usize>, bool)> {
    let size = |place: usize| inputs.iter().find_map(|input| input.shape.get(place)?.size());
    match size(0) {
        None | Some(1) => Ok((size(1), size(0).is_some())),
        Some(rows) => bail!(InvalidModel, "model '{label}' takes {rows} texts at a time: export it with a free number"),
    }
}

/// The graph's output that calls are to have: the one that is named, else the one that has most been done to.
fn graph_output(label: &str, model: &Model, options: &ModelOptions) -> Result<TensorSpec> {
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
struct ChosenHead {
    head: Head,
    /// Numbers of a text, where the graph says it.
    width: Option<usize>,
    labels: Option<Vec<String>>,
    notes: Vec<String>,
}

fn chosen_head(label: &str, output: &TensorSpec, settings: &Settings, options: &ModelOptions) -> Result<ChosenHead> {
    let width = output.shape.last().and_then(Dimension::size);
    let texts = &options.texts;
    let kind = settings.architecture.as_deref().unwrap_or_default();
    let is_classifier = output.name == "logits" || kind.ends_with("ForSequenceClassification");
    let mut notes = vec![];
    if is_classifier && output.shape.len() == 3 {
        bail!(
            InvalidModel,
            "model '{label}' gives scores for each token ({}): it {}, and only vectors and labels of whole texts are known",
            output.type_line(),
            if kind.ends_with("ForTokenClassification") { "labels words" } else { "generates or fills in text" }
        );
    }
    if is_classifier {
        if let Some((name, _)) = texts.pairs().into_iter().find(|(name, _)| ["pooling", "normalize"].contains(name)) {
            bail!(InvalidOption, "model '{label}' gives labels, not vectors (option '{name}')");
        }
        let of_files = settings.labels.as_ref().map(Vec::len);
        let width = width.or(of_files);
        let one = width == Some(1);
        if let Some(class) = &options.class {
            bail!(
                InvalidOption,
                "model '{label}' labels texts (option class '{class}'): OPTIONS (all_scores true) gives a map, of which ['{class}'] is the score"
            );
        }
        let activation = if settings.is_regression {
            Activation::None
        } else if one || settings.is_multi_label {
            Activation::Sigmoid
        } else {
            Activation::Softmax
        };
        if let (Some(names), Some(width)) = (options.labels.as_ref().and_then(|labels| labels.names()), width)
            && names.len() != width
        {
            bail!(InvalidOption, "model '{label}': option 'labels' names {} labels, but it has {width}", names.len());
        }
        let given = options.labels.as_ref().and_then(|labels| labels.names()).map(<[String]>::to_vec);
        let labels = given.or_else(|| settings.labels.clone());
        let labels = labels.filter(|labels| !one && width.is_none_or(|width| width == labels.len()));
        let all = texts.all_scores == Some(true);
        let head = match &labels {
            Some(labels) if !all => Head::Best(activation, labels.clone()),
            _ => Head::Scores(activation),
        };
        if labels.is_none() && !one {
            notes.push("its labels have no names: OPTIONS (labels '…') gives them".to_owned());
        }
        return Ok(ChosenHead { head, width, labels, notes });
    }
    if texts.all_scores.is_some() {
        bail!(InvalidOption, "model '{label}' gives vectors, not labels (option 'all_scores')");
    }
    let is_pooled = output.shape.len() == 2;
    if let Some(step) = settings.unknown_step.as_ref().filter(|_| !is_pooled) {
        bail!(
            InvalidModel,
            "model '{label}': its modules.json has a step '{step}' after the graph, which is not known: export the model with that step in it"
        );
    }
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
    Ok(ChosenHead { head: Head::Embedding { pooling, normalize }, width, labels: None, notes })
}

/// The outputs of a call.
fn outputs(head: &Head, width: Option<usize>, rows: Dimension) -> Vec<TensorSpec> {
    let output = |name: &str, element, width: Option<Dimension>| TensorSpec {
        name: name.to_owned(),
        element,
        shape: [rows.clone()].into_iter().chain(width).collect(),
    };
    let free = || Some(width.map_or(Dimension::Dynamic(None), Dimension::Fixed));
    match head {
        Head::Embedding { .. } => vec![output("embedding", ElementType::Float32, free())],
        Head::Scores(_) if width == Some(1) => vec![output("score", ElementType::Float32, None)],
        Head::Scores(_) => vec![output("scores", ElementType::Float32, free())],
        Head::Best(..) => {
            vec![output("label", ElementType::String, None), output("score", ElementType::Float32, None)]
        }
    }
}
