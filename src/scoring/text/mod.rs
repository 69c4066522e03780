//! Models of texts: columns of words in, vectors, labels or scores out.
//!
//! ```text
//!  texts ─► equal ones once ─► tokens ─► by length ─► batches ─► engine ─► pooled ─► in the rows' order
//! ```
//!
//! To all other modules such a model is one that takes texts and gives a vector: the graph behind it takes numbers of tokens.

mod batches;
mod choice;
mod runner;
mod settings;
mod tokens;

use std::sync::Arc;

use datafusion_predict_native::{ClassLabels, Dimension, ElementType, Model, TensorSpec, TokenTable};
use datafusion_predict_udfs::Tokenizer;

use self::choice::{chosen_head, graph_output};
use self::runner::{Role, TextRunner};
use self::settings::Settings;
use self::tokens::TokensOf;
use super::axes::Input;
use super::front::{BeforeGraph, refuse_options};
use super::head::{self, Head, outputs_of};
use super::outputs::SelectedOutput;
use crate::call::{GivenLabels, ModelOptions, OnLongText, Pooling, TextOptions};
use crate::encode::{OutputColumn, Tokenize, TokenizerFile};
use crate::error::{Result, bail, error};

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
        let Some(json) = model.companion(Model::TOKENIZER) else {
            if model.token_table().is_some() {
                bail!(
                    InvalidModel,
                    "model '{label}' is a vector for each token of a vocabulary, but no file {} beside it says which tokens a text has",
                    Model::TOKENIZER
                );
            }
            return refuse_options(label, options).map(|()| None);
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
        let broken = |problem: String| {
            error!(InvalidModel, "model '{label}': its file {} can't be used: {problem}", Model::TOKENIZER)
        };
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
        let table = model.token_table();
        let tokenizer = match table {
            Some(_) => file.of_words_alone(max_tokens),
            None => file.with_max_tokens(max_tokens).map_err(broken)?,
        };
        if let Some(rows) =
            table.map(TokenTable::tokens).or(settings.vocabulary).filter(|rows| *rows < tokenizer.vocabulary())
        {
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
        let prefix = options.texts.prefix.clone().unwrap_or_default();
        let of_prefix = tokens_of(&*tokenizer, &prefix).map_err(broken)?;
        if of_prefix + tokenizer.marks(pair) >= max_tokens {
            bail!(
                InvalidOption,
                "model '{label}' takes {max_tokens} tokens, of which {of_prefix} are its prefix '{prefix}' and {} mark beginning and end, so no text fits",
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
        let with_prefix = if of_prefix > 0 { format!(", {of_prefix} of them its prefix") } else { String::new() };
        notes.push(format!("a text is {max_tokens} tokens at most{with_prefix}; {}", what_becomes(on_long)));
        if let Head::Embedding { pooling, normalize } = &head.head {
            let length = if *normalize { ", divided by its length" } else { "" };
            notes.push(match pooling {
                Pooling::None => format!("a vector is what the graph gives for a text{length}"),
                pooling => format!("a vector is made of those of the tokens (pooling '{pooling}'){length}"),
            });
        }
        Ok(Some(Self {
            graph_inputs: signature.inputs.clone(),
            inputs: names.iter().map(text).collect(),
            outputs: outputs_of(&head.head, head.width, rows),
            options: effective,
            notes,
            runner: TextRunner {
                label: label.split_once('/').map_or(label, |(name, _)| name).to_owned(),
                tokenizer,
                roles,
                length,
                single,
                first_position: settings.first_position,
                output: graph_output.name.clone(),
                head: head.head,
                prefix,
                on_long,
                max_tokens,
                may_be_empty: table.is_some(),
            },
            graph_output,
        }))
    }

    /// The columns that `outputs`, which are those of this model as runs have shown them, become.
    pub(super) fn columns(&self, outputs: &[SelectedOutput]) -> Vec<OutputColumn> {
        let labels = self.options.labels.as_ref().and_then(|labels| labels.names());
        let labels = labels.map(|names| ClassLabels::from(names.to_vec()));
        outputs.iter().map(|output| head::column(&self.runner.head, output, labels.as_ref())).collect()
    }

    /// The tokens of texts, for who asks for them alone.
    pub(super) fn tokenizer(&self) -> Arc<dyn Tokenizer> {
        let TextRunner { label, tokenizer, prefix, max_tokens, .. } = &self.runner;
        Arc::new(TokensOf::new(label.clone(), tokenizer.clone(), prefix.clone(), *max_tokens))
    }

    /// What stands before the graph when it runs.
    pub(super) fn runner(&self) -> Arc<dyn BeforeGraph> {
        Arc::new(self.runner.clone())
    }
}

/// Tokens of a text itself.
fn tokens_of(tokenizer: &dyn Tokenize, text: &str) -> Result<usize, String> {
    let mut tokens = 0;
    tokenizer.each_token(text, &mut |_, _| tokens += 1)?;
    Ok(tokens)
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
