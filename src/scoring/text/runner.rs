//! Runs texts through a graph that takes tokens.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, LargeStringArray, StringArray, StringViewArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::DataType;
use datafusion_predict_native::{ElementType, Tensor, TensorData, TensorSpec};

use super::batches::batches;
use crate::call::OnLongText;
use crate::encode::{Tokenize, Tokens};
use crate::engine::{Device, Executable, RunContext};
use crate::error::{Error, Result, bail, error};
use crate::scoring::front::BeforeGraph;
use crate::scoring::head::Head;

/// What an input of the graph says of each token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Its number in the vocabulary.
    Ids,
    /// Whether it is one, and no padding.
    Mask,
    /// The text of a pair that it belongs to.
    Types,
    /// Its place.
    Positions,
}

impl Role {
    /// The role of the graph's input `input`.
    ///
    /// # Errors
    /// One that is not known, or of another type than numbers of tokens have.
    pub(super) fn of(label: &str, input: &TensorSpec) -> Result<(Self, ElementType)> {
        let role = match input.name.as_str() {
            "input_ids" => Self::Ids,
            "attention_mask" => Self::Mask,
            "token_type_ids" => Self::Types,
            "position_ids" => Self::Positions,
            name => bail!(
                InvalidModel,
                "model '{label}' has a tokenizer, but its input '{name}' is not known: expected input_ids, attention_mask, token_type_ids and position_ids, or some of them"
            ),
        };
        let fits = matches!(input.element, ElementType::Int64 | ElementType::Int32) && input.shape.len() == 2;
        if !fits {
            bail!(
                InvalidModel,
                "model '{label}': its input {input} is not the numbers of tokens: expected int64 or int32, texts by tokens"
            );
        }
        Ok((role, input.element))
    }
}

/// What makes texts the tokens that a graph takes, and its numbers those of texts.
///
/// It takes one column of texts, or two for pairs. Each text that occurs several times is scored once. What it counts stands in
/// [`RunContext::counts`].
#[derive(Debug, Clone)]
pub(super) struct TextRunner {
    /// The model's name, for errors.
    pub label: String,
    pub tokenizer: Arc<dyn Tokenize>,
    /// What the graph's inputs are, in order.
    pub roles: Vec<(Role, ElementType)>,
    /// The tokens that each text must have, those of its padding among them, if the graph says so.
    pub length: Option<usize>,
    /// Whether a run takes one text.
    pub single: bool,
    /// The place of a text's first token, where the graph is told the places.
    pub first_position: usize,
    /// The name of the graph's output.
    pub output: String,
    pub head: Head,
    /// What stands before each text.
    pub prefix: String,
    pub on_long: OnLongText,
    /// Tokens of a text, at most.
    pub max_tokens: usize,
    /// Whether a text without tokens has a vector: one of zeros.
    pub may_be_empty: bool,
}

/// A text, or a part of one.
struct Piece {
    /// Which of the texts that differ.
    text: u32,
    tokens: Tokens,
}

impl BeforeGraph for TextRunner {
    fn run_columns(
        &self,
        graph: &dyn Executable,
        inputs: &[Vec<ArrayRef>],
        rows: usize,
        context: &RunContext,
    ) -> Result<Vec<Tensor>> {
        let columns = inputs.iter().flatten().map(Texts::of).collect::<Result<Vec<_>, _>>();
        let columns = columns.map_err(|problem| self.failed(problem))?;
        let (Some(first), second) = (columns.first(), columns.get(1)) else {
            bail!(EngineFailed, "model '{}' was given no texts", self.label);
        };
        // Each text once: what is said twice is not computed twice.
        let mut places: HashMap<(&str, Option<&str>), u32> = HashMap::with_capacity(rows);
        let mut texts = vec![];
        let text_of_row: Vec<u32> = (0..rows)
            .map(|row| {
                let text = (first.value(row), second.map(|second| second.value(row)));
                *places.entry(text).or_insert_with(|| {
                    texts.push(text);
                    (texts.len() - 1) as u32 // a batch has no more rows than that
                })
            })
            .collect();
        let counts = &context.counts;
        counts.repeated.fetch_add(rows - texts.len(), Ordering::Relaxed);

        let mut pieces = self.pieces(&texts, context)?;
        pieces.sort_by_key(|piece| std::cmp::Reverse(piece.tokens.ids.len()));
        let values = self.score(graph, &pieces, texts.len(), context)?;
        let width = values.len().checked_div(texts.len()).unwrap_or(0);
        let values = if texts.len() == rows {
            values // in the order of the rows
        } else {
            let of_row = |text: &u32| &values[*text as usize * width..][..width];
            text_of_row.iter().flat_map(of_row).copied().collect()
        };
        self.head.outputs(values, rows).map_err(|problem| self.unexpected(problem))
    }
}

impl TextRunner {
    /// The texts as tokens, in their order; of a text that is split one piece for each part.
    fn pieces(&self, texts: &[(&str, Option<&str>)], context: &RunContext) -> Result<Vec<Piece>> {
        let mut pieces = Vec::with_capacity(texts.len());
        let mut prefixed = self.prefix.clone();
        for (place, (text, pair)) in texts.iter().enumerate() {
            if place % 64 == 0 {
                self.go_on(context)?;
            }
            let text = if self.prefix.is_empty() {
                text
            } else {
                prefixed.truncate(self.prefix.len());
                prefixed.push_str(text);
                prefixed.as_str()
            };
            let unscorable = |problem: String| error!(UnscorableRow, "model '{}': {problem}", self.label);
            let tokenized = self.tokenizer.tokenize(text, *pair);
            let tokenized =
                tokenized.map_err(|problem| unscorable(format!("a text can't be made tokens: {problem}")))?;
            if tokenized.first.ids.is_empty() && !self.may_be_empty {
                return Err(unscorable("a text has no tokens".to_owned()));
            }
            let text_place = place as u32; // see above
            if tokenized.is_cut {
                match self.on_long {
                    OnLongText::Truncate => {
                        context.counts.truncated.fetch_add(1, Ordering::Relaxed);
                    }
                    OnLongText::Error => {
                        let bytes = text.len() + pair.map_or(0, str::len);
                        let most = self.max_tokens;
                        return Err(unscorable(format!(
                            "a text of {bytes} bytes has more than {most} tokens (option on_long 'error')"
                        )));
                    }
                    OnLongText::Split => {
                        let windows = self.tokenizer.windows(text);
                        let windows =
                            windows.map_err(|problem| unscorable(format!("a text can't be made tokens: {problem}")))?;
                        pieces.extend(windows.into_iter().map(|tokens| Piece { text: text_place, tokens }));
                        continue;
                    }
                }
            }
            pieces.push(Piece { text: text_place, tokens: tokenized.first });
        }
        Ok(pieces)
    }

    /// The numbers of each of `texts` texts, one after the other. `pieces` are ordered by length, the longest first.
    fn score(&self, graph: &dyn Executable, pieces: &[Piece], texts: usize, context: &RunContext) -> Result<Vec<f32>> {
        let lengths: Vec<_> = pieces.iter().map(|piece| piece.tokens.ids.len()).collect();
        let has_mask = self.roles.iter().any(|(role, _)| *role == Role::Mask);
        let batches = if self.single {
            (0..lengths.len()).map(|i| i..i + 1).collect()
        } else {
            batches(&lengths, self.length, !has_mask, graph.device() == Device::Cpu.to_string())
        };
        let mut values: Vec<f32> = vec![];
        let mut width = 0;
        // Of each text the tokens that are in its numbers already.
        let mut weights = vec![0usize; texts];
        for batch in batches {
            self.go_on(context)?;
            let lengths = &lengths[batch.clone()];
            let of_batch = self.run_batch(graph, &pieces[batch.clone()], lengths, context)?;
            width = of_batch.len() / lengths.len();
            values.resize(texts * width, 0.0);
            for (piece, (new, tokens)) in pieces[batch].iter().zip(of_batch.chunks_exact(width.max(1)).zip(lengths)) {
                let text = piece.text as usize;
                let own = &mut values[text * width..][..width];
                weights[text] += tokens;
                if *tokens == 0 {
                    continue; // no part of the mean
                }
                let share = *tokens as f32 / weights[text] as f32;
                // The mean over all of its parts, each by its tokens; the only one is itself.
                own.iter_mut().zip(new).for_each(|(mean, new)| *mean += (new - *mean) * share);
            }
        }
        values.chunks_exact_mut(width.max(1)).for_each(|values| self.head.finish(values));
        Ok(values)
    }

    fn run_batch(
        &self,
        graph: &dyn Executable,
        pieces: &[Piece],
        lengths: &[usize],
        context: &RunContext,
    ) -> Result<Vec<f32>> {
        let (rows, longest) = (pieces.len(), lengths.iter().copied().max().unwrap_or(0));
        let length = self.length.unwrap_or(longest).max(1);
        let inputs: Vec<_> =
            self.roles.iter().map(|(role, element)| self.input(*role, *element, pieces, length)).collect();
        let tokens: usize = lengths.iter().sum();
        context.counts.tokens.fetch_add(tokens, Ordering::Relaxed);
        context.counts.padding.fetch_add(rows * length - tokens, Ordering::Relaxed);
        let outputs = graph.run(&inputs, context)?;
        let [output] = outputs.as_slice() else {
            return Err(self.unexpected(format!("is one of {} outputs, expected one", outputs.len())));
        };
        self.head.of_batch(output, lengths).map_err(|problem| self.unexpected(problem))
    }

    /// What the input of this role says of the tokens of `pieces`, each padded to `length`.
    fn input(&self, role: Role, element: ElementType, pieces: &[Piece], length: usize) -> Tensor {
        let mut values: Vec<i64> = Vec::with_capacity(pieces.len() * length);
        for (row, Piece { tokens, .. }) in pieces.iter().enumerate() {
            match role {
                Role::Ids => values.extend(tokens.ids.iter().map(|id| i64::from(*id))),
                Role::Mask => values.extend(tokens.ids.iter().map(|_| 1)),
                Role::Types => values.extend(tokens.types.iter().map(|kind| i64::from(*kind))),
                Role::Positions => values.extend((self.first_position as i64..).take(tokens.ids.len())),
            }
            let padding = if role == Role::Ids { i64::from(self.tokenizer.padding()) } else { 0 };
            values.resize((row + 1) * length, padding);
        }
        let data = match element {
            ElementType::Int32 => TensorData::Int32(values.iter().map(|value| *value as i32).collect()), // small numbers
            _ => TensorData::Int64(values.into()),
        };
        Tensor { shape: vec![pieces.len(), length], data }
    }

    fn go_on(&self, context: &RunContext) -> Result<()> {
        if context.cancel.is_cancelled() {
            bail!(Cancelled, "model '{}': the query was cancelled", self.label);
        }
        Ok(())
    }

    fn failed(&self, problem: String) -> Error {
        error!(EngineFailed, "model '{}': its texts can't be read: {problem}", self.label)
    }

    fn unexpected(&self, problem: String) -> Error {
        error!(InvalidOutput, "model '{}': output '{}' {problem}", self.label, self.output)
    }
}

/// A column of texts, of any of their types.
enum Texts {
    Small(StringArray),
    Large(LargeStringArray),
    View(StringViewArray),
}

impl Texts {
    fn of(column: &ArrayRef) -> Result<Self, String> {
        match column.data_type() {
            DataType::Utf8 => Ok(Self::Small(column.as_string::<i32>().clone())),
            DataType::LargeUtf8 => Ok(Self::Large(column.as_string::<i64>().clone())),
            DataType::Utf8View => Ok(Self::View(column.as_string_view().clone())),
            // As views, so that a text stands once however often it occurs.
            _ => {
                let views = cast(column, &DataType::Utf8View).map_err(|cause| cause.to_string())?;
                Ok(Self::View(views.as_string_view().clone()))
            }
        }
    }

    fn value(&self, row: usize) -> &str {
        match self {
            Self::Small(texts) => texts.value(row),
            Self::Large(texts) => texts.value(row),
            Self::View(texts) => texts.value(row),
        }
    }
}
