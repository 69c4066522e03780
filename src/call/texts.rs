//! The options of models of texts.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result, bail, error};

/// How the vectors of a text's tokens become that of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Pooling {
    /// Their mean.
    Mean,
    /// That of the first token, which stands for all.
    Cls,
    /// The largest of each of their values.
    Max,
    /// That of the last token.
    Last,
    /// The model has done it.
    None,
}

impl fmt::Display for Pooling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Mean => "mean",
            Self::Cls => "cls",
            Self::Max => "max",
            Self::Last => "last",
            Self::None => "none",
        })
    }
}

impl FromStr for Pooling {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Ok(match text.to_lowercase().as_str() {
            "mean" => Self::Mean,
            "cls" => Self::Cls,
            "max" => Self::Max,
            "last" => Self::Last,
            "none" => Self::None,
            _ => bail!(InvalidOption, "option 'pooling' is '{text}': expected mean, cls, max, last or none"),
        })
    }
}

/// The ways to score a text that has more tokens than the model takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OnLongText {
    /// Its end is left out.
    #[default]
    Truncate,
    /// Parts of it are embedded, and the mean of them is taken.
    Split,
    /// It can't be scored.
    Error,
}

impl fmt::Display for OnLongText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Truncate => "truncate",
            Self::Split => "split",
            Self::Error => "error",
        })
    }
}

impl FromStr for OnLongText {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Ok(match text.to_lowercase().as_str() {
            "truncate" => Self::Truncate,
            "split" => Self::Split,
            "error" => Self::Error,
            _ => bail!(InvalidOption, "option 'on_long' is '{text}': expected truncate, split or error"),
        })
    }
}

/// How a model of texts is called. What is not given is read from the files beside the model.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct TextOptions {
    /// The largest number of tokens that a text is made of.
    pub max_tokens: Option<usize>,
    /// How the vectors of tokens become that of a text.
    pub pooling: Option<Pooling>,
    /// Gives vectors of length 1: each is divided by its own length.
    pub normalize: Option<bool>,
    /// A text that is put before each text, as some models want it: `query: `.
    pub prefix: Option<String>,
    /// How a text is scored that has more tokens than `max_tokens`.
    pub on_long: Option<OnLongText>,
    /// Makes calls take two texts, which the model compares, in place of one.
    pub pair: Option<bool>,
    /// Makes a classifier give the scores of all labels, in place of the best label and its score.
    pub all_scores: Option<bool>,
}

impl TextOptions {
    /// The names of these options.
    pub(super) const NAMES: [&str; 7] =
        ["max_tokens", "pooling", "normalize", "prefix", "on_long", "pair", "all_scores"];

    /// Takes the option, if it is one of these.
    ///
    /// # Errors
    /// A value that it can't have.
    pub(super) fn take(&mut self, name: &str, value: &str) -> Result<bool> {
        let yes_or_no = || match value.to_lowercase().as_str() {
            "true" => Ok(Some(true)),
            "false" => Ok(Some(false)),
            _ => bail!(InvalidOption, "option '{name}' is '{value}': expected true or false"),
        };
        match name {
            "max_tokens" => {
                let tokens = value.parse().ok().filter(|tokens| (1..=1 << 20).contains(tokens));
                self.max_tokens = Some(tokens.ok_or_else(|| {
                    error!(InvalidOption, "option 'max_tokens' is '{value}': expected a number of tokens from 1 on")
                })?);
            }
            "pooling" => self.pooling = Some(value.parse()?),
            "normalize" => self.normalize = yes_or_no()?,
            "prefix" => self.prefix = Some(value.to_owned()),
            "on_long" => self.on_long = Some(value.parse()?),
            "pair" => self.pair = yes_or_no()?,
            "all_scores" => self.all_scores = yes_or_no()?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// The options that are given, with their values.
    pub(crate) fn pairs(&self) -> Vec<(&'static str, String)> {
        let Self { max_tokens, pooling, normalize, prefix, on_long, pair, all_scores } = self;
        let values = [
            max_tokens.map(|tokens| tokens.to_string()),
            pooling.map(|pooling| pooling.to_string()),
            normalize.map(|normalize| normalize.to_string()),
            prefix.clone(),
            on_long.map(|on_long| on_long.to_string()),
            pair.map(|pair| pair.to_string()),
            all_scores.map(|all| all.to_string()),
        ];
        Self::NAMES.into_iter().zip(values).filter_map(|(name, value)| Some((name, value?))).collect()
    }
}
