//! The tokens that a model reads, for the functions that ask for them.

use std::ops::Range;
use std::sync::Arc;

use datafusion::common::Result;
use datafusion_predict_udfs::Tokenizer;

use crate::encode::Tokenize;
use crate::error::error;

/// A model's tokenizer, with what the model puts before each text.
#[derive(Debug)]
pub(super) struct TokensOf {
    /// The model's name, for errors.
    label: String,
    tokenizer: Arc<dyn Tokenize>,
    /// The tokens before and behind those of a text.
    around: [Vec<u32>; 2],
    prefix: String,
    /// Tokens that the model takes.
    max_tokens: usize,
}

impl TokensOf {
    pub(super) fn new(label: String, tokenizer: Arc<dyn Tokenize>, prefix: String, max_tokens: usize) -> Self {
        Self { around: tokenizer.around(), label, tokenizer, prefix, max_tokens }
    }

    fn each(&self, text: &str, give: &mut dyn FnMut(u32, Range<usize>)) -> Result<()> {
        let tokens = self.tokenizer.each_token(text, give);
        Ok(tokens.map_err(|problem| error!(UnscorableRow, "model '{}': {problem}", self.label))?)
    }
}

impl Tokenizer for TokensOf {
    fn tokens(&self, text: &str) -> Result<Vec<u32>> {
        let [before, behind] = &self.around;
        let mut tokens = before.clone();
        let mut add = |token, _| tokens.push(token);
        if self.prefix.is_empty() {
            self.each(text, &mut add)?;
        } else {
            self.each(&format!("{}{text}", self.prefix), &mut add)?;
        }
        tokens.extend(behind);
        Ok(tokens)
    }

    fn max_tokens(&self) -> usize {
        self.max_tokens
    }

    fn places(&self, text: &str) -> Result<Vec<Range<usize>>> {
        let mut places = vec![];
        self.each(text, &mut |_, place| places.push(place))?;
        Ok(places)
    }
}
