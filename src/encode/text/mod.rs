//! Texts → tokens, the numbers that models of texts take.

#[cfg(feature = "text")]
mod hugging_face;

use std::fmt::Debug;
use std::ops::Range;
use std::sync::Arc;

/// A text, or a pair of them, as a model of texts takes it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Tokens {
    /// The numbers of its tokens in the vocabulary, those that mark beginning and end among them.
    pub ids: Vec<u32>,
    /// For each token the text of a pair that it belongs to, 0 or 1; empty, if all are of the first.
    pub types: Vec<u32>,
}

/// A text that was made tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tokenized {
    /// What fits into the model.
    pub first: Tokens,
    /// Whether there was more.
    pub is_cut: bool,
}

/// Makes texts tokens. The crate that does lies behind this trait: no other module knows it.
pub(crate) trait Tokenize: Debug + Send + Sync {
    /// The tokens of a text, or of a pair of texts, as far as they fit; of a pair the longer text is cut first.
    ///
    /// # Errors
    /// What the tokenizer says of a text that it can't take.
    fn tokenize(&self, text: &str, pair: Option<&str>) -> Result<Tokenized, String>;

    /// All tokens of a text, in as many windows as they take.
    ///
    /// # Errors
    /// As [`tokenize`](Self::tokenize).
    fn windows(&self, text: &str) -> Result<Vec<Tokens>, String>;

    /// Gives each token of a text itself, without those that mark beginning and end: its number, and where in the text it lies, as bytes.
    ///
    /// # Errors
    /// As [`tokenize`](Self::tokenize).
    fn each_token(&self, text: &str, give: &mut dyn FnMut(u32, Range<usize>)) -> Result<(), String>;

    /// The tokens that mark the beginning of a single text, and those that mark its end.
    fn around(&self) -> [Vec<u32>; 2];

    /// How many tokens mark beginning and end of a text, or of a pair.
    fn marks(&self, is_pair: bool) -> usize;

    /// The tokens that it knows.
    fn vocabulary(&self) -> usize;

    /// The number that fills up what is shorter than others.
    fn padding(&self) -> u32;
}

/// A tokenizer as its file describes it: `tokenizer.json` in the format of Hugging Face.
pub(crate) struct TokenizerFile {
    #[cfg(feature = "text")]
    inner: hugging_face::File,
}

impl TokenizerFile {
    /// Reads the file.
    ///
    /// # Errors
    /// What is wrong with it.
    #[cfg(feature = "text")]
    pub(crate) fn read(json: &[u8]) -> Result<Self, String> {
        Ok(Self { inner: hugging_face::File::read(json)? })
    }

    /// In a build without the feature `text`.
    #[cfg(not(feature = "text"))]
    pub(crate) fn read(_json: &[u8]) -> Result<Self, String> {
        Err("this program was built without the feature 'text' of datafusion-predict".to_owned())
    }

    /// The tokens of a text after which it cuts, if it says so.
    pub(crate) fn max_tokens(&self) -> Option<usize> {
        #[cfg(feature = "text")]
        return self.inner.max_tokens();
        #[cfg(not(feature = "text"))]
        None
    }

    /// The tokenizer of static embeddings: at most `max_tokens` tokens, without those that mark beginning and end or stand for
    /// what is not known.
    pub(crate) fn of_words_alone(self, max_tokens: usize) -> Arc<dyn Tokenize> {
        #[cfg(feature = "text")]
        return self.inner.of_words_alone(max_tokens);
        #[cfg(not(feature = "text"))]
        unreachable!("no tokenizer is read without the feature 'text': {max_tokens}")
    }

    /// The tokenizer that gives at most `max_tokens` tokens.
    ///
    /// # Errors
    /// A number so small that no text fits.
    pub(crate) fn with_max_tokens(self, max_tokens: usize) -> Result<Arc<dyn Tokenize>, String> {
        #[cfg(feature = "text")]
        return self.inner.with_max_tokens(max_tokens);
        #[cfg(not(feature = "text"))]
        Err(format!("no tokenizer gives {max_tokens} tokens"))
    }
}
