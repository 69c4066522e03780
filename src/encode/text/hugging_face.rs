//! Tokenizers in the format of Hugging Face, run by their own crate.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use tokenizers::{
    Encoding, PostProcessor, Token, Tokenizer, TruncationDirection, TruncationParams, TruncationStrategy,
    truncate_encodings,
};

use super::{Tokenize, Tokenized, Tokens};

/// A tokenizer before it is known how much of a text it is to keep.
pub(super) struct File {
    /// It neither cuts nor pads: some files pad all texts to one length, but batches are padded here, to the longest of their own;
    /// and a tokenizer that cuts does not say how much there was.
    tokenizer: Tokenizer,
    /// How the file says that texts are cut.
    truncation: Option<TruncationParams>,
    /// The number that fills up shorter texts, if the file says it.
    padding: Option<u32>,
    /// The number that stands for what is not known.
    unknown: Option<u32>,
}

impl File {
    pub(super) fn read(json: &[u8]) -> Result<Self, String> {
        let mut tokenizer = Tokenizer::from_bytes(json).map_err(|cause| cause.to_string())?;
        let file: serde_json::Value = serde_json::from_slice(json).map_err(|cause| cause.to_string())?;
        let model = &file["model"];
        let number = model["unk_id"].as_u64().and_then(|id| u32::try_from(id).ok());
        let unknown = number.or_else(|| tokenizer.token_to_id(model["unk_token"].as_str()?));
        let truncation = tokenizer.get_truncation().cloned();
        let padding = tokenizer.get_padding().map(|padding| padding.pad_id);
        tokenizer.with_padding(None);
        tokenizer.with_truncation(None).map_err(|cause| cause.to_string())?;
        Ok(Self { tokenizer, truncation, padding, unknown })
    }

    pub(super) fn of_words_alone(self, max_tokens: usize) -> Arc<dyn Tokenize> {
        Arc::new(WordsAlone { tokenizer: self.tokenizer, unknown: self.unknown, max_tokens })
    }

    pub(super) fn max_tokens(&self) -> Option<usize> {
        self.truncation.as_ref().map(|truncation| truncation.max_length)
    }

    pub(super) fn with_max_tokens(self, max_tokens: usize) -> Result<Arc<dyn Tokenize>, String> {
        let tokenizer = self.tokenizer;
        let known = |token: &str| tokenizer.token_to_id(token);
        let padding = self.padding.or_else(|| known("[PAD]")).or_else(|| known("<pad>")).unwrap_or(0);
        let direction = self.truncation.map(|truncation| truncation.direction).unwrap_or_default();
        let marks = [false, true].map(|pair| tokenizer.get_post_processor().map_or(0, |it| it.added_tokens(pair)));
        if marks[0] >= max_tokens {
            return Err(format!("of {max_tokens} tokens {} mark beginning and end, so no text fits", marks[0]));
        }
        let around = Default::default();
        let mut this = HuggingFace { tokenizer, padding, max_tokens, marks, around, direction };
        // What stands around a token whose number no vocabulary has.
        let one = Encoding::from_tokens(vec![Token::new(u32::MAX, String::new(), (0, 0))], 0);
        let marked = this.with_marks(one, None)?.ids;
        let mut sides = marked.split(|id| *id == u32::MAX).map(<[u32]>::to_vec);
        this.around = [sides.next().unwrap_or_default(), sides.next().unwrap_or_default()];
        Ok(Arc::new(this))
    }
}

/// A tokenizer that keeps at most so many tokens of a text.
struct HuggingFace {
    /// It neither cuts nor pads.
    tokenizer: Tokenizer,
    padding: u32,
    max_tokens: usize,
    /// How many tokens mark beginning and end: of a text, and of a pair.
    marks: [usize; 2],
    /// The tokens that mark the beginning of a single text, and its end.
    around: [Vec<u32>; 2],
    /// Which end of a text is cut.
    direction: TruncationDirection,
}

impl fmt::Debug for HuggingFace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HuggingFace").field("max_tokens", &self.max_tokens).finish_non_exhaustive()
    }
}

/// Bytes of a text for each of the tokens that are kept of it, at first.
const BYTES_FOR_TOKEN: usize = 32;

/// Bytes of a text that are looked at, at most, if they have no more tokens than are kept: one word may be endless.
const LONGEST_LOOK: usize = 1 << 20;

/// Tokens by which the last ones that are kept must be behind the place where a text was cut: what is cut there changes only
/// those beside it.
const MARGIN: usize = 8;

impl Tokenize for HuggingFace {
    fn tokenize(&self, text: &str, pair: Option<&str>) -> Result<Tokenized, String> {
        let whole = text.len().max(pair.map_or(0, str::len));
        let most = self.max_tokens.saturating_sub(self.marks[usize::from(pair.is_some())]);
        // Of a long text no more is looked at than gives the tokens that are kept: it may have megabytes.
        let cuts_end = self.direction == TruncationDirection::Right;
        let mut bytes = if cuts_end { self.max_tokens.saturating_mul(BYTES_FOR_TOKEN).max(1024) } else { whole };
        loop {
            let first = self.without_marks(start_of(text, bytes))?;
            let second = pair.map(|pair| self.without_marks(start_of(pair, bytes))).transpose()?;
            let tokens = first.len() + second.as_ref().map_or(0, Encoding::len);
            if bytes < whole && bytes < LONGEST_LOOK && tokens <= most.saturating_add(MARGIN) {
                bytes = bytes.saturating_mul(4);
                continue;
            }
            let truncation = TruncationParams {
                direction: self.direction,
                max_length: most,
                strategy: TruncationStrategy::LongestFirst,
                stride: 0,
            };
            let (mut first, mut second) =
                truncate_encodings(first, second, &truncation).map_err(|cause| cause.to_string())?;
            // What was cut off would be put together with what was cut off the other text.
            first.take_overflowing();
            second.as_mut().map(Encoding::take_overflowing);
            return Ok(Tokenized { first: self.with_marks(first, second)?, is_cut: tokens > most || bytes < whole });
        }
    }

    fn windows(&self, text: &str) -> Result<Vec<Tokens>, String> {
        let mut windows = vec![];
        let mut rest = text;
        while !rest.is_empty() || windows.is_empty() {
            // A piece at a time, cut between words: tokens take many times the bytes of their text.
            let piece = start_of(rest, LONGEST_LOOK / 4);
            rest = &rest[piece.len()..];
            let mut all = self.without_marks(piece)?;
            all.truncate(self.max_tokens - self.marks[0], 0, TruncationDirection::Right);
            let others = all.take_overflowing();
            for window in std::iter::once(all).chain(others) {
                windows.push(self.with_marks(window, None)?);
            }
        }
        Ok(windows)
    }

    fn each_token(&self, text: &str, give: &mut dyn FnMut(u32, Range<usize>)) -> Result<(), String> {
        each_token(&self.tokenizer, text, give)
    }

    fn around(&self) -> [Vec<u32>; 2] {
        self.around.clone()
    }

    fn marks(&self, is_pair: bool) -> usize {
        self.marks[usize::from(is_pair)]
    }

    fn vocabulary(&self) -> usize {
        self.tokenizer.get_vocab_size(true)
    }

    fn padding(&self) -> u32 {
        self.padding
    }
}

impl HuggingFace {
    fn without_marks(&self, text: &str) -> Result<Encoding, String> {
        self.tokenizer.encode_fast(text, false).map_err(|cause| cause.to_string())
    }

    fn with_marks(&self, first: Encoding, mut second: Option<Encoding>) -> Result<Tokens, String> {
        if let Some(second) = &mut second {
            second.set_type_ids(vec![1; second.len()]);
        }
        let encoding = self.tokenizer.post_process(first, second, true).map_err(|cause| cause.to_string())?;
        let types = encoding.get_type_ids();
        let types = if types.iter().all(|kind| *kind == 0) { vec![] } else { types.to_vec() };
        Ok(Tokens { ids: encoding.get_ids().to_vec(), types })
    }
}

/// A tokenizer of static embeddings.
struct WordsAlone {
    tokenizer: Tokenizer,
    unknown: Option<u32>,
    max_tokens: usize,
}

impl fmt::Debug for WordsAlone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WordsAlone").field("max_tokens", &self.max_tokens).finish_non_exhaustive()
    }
}

impl WordsAlone {
    /// All tokens of a text, a piece of it at a time, until there are `enough`.
    fn tokens(&self, text: &str, enough: usize) -> Result<Vec<u32>, String> {
        let (mut rest, mut tokens) = (text, vec![]);
        while !rest.is_empty() && tokens.len() < enough {
            let piece = start_of(rest, LONGEST_LOOK / 4);
            rest = &rest[piece.len()..];
            let encoded = self.tokenizer.encode_fast(piece, false).map_err(|cause| cause.to_string())?;
            tokens.extend(encoded.get_ids().iter().filter(|id| Some(**id) != self.unknown));
        }
        Ok(tokens)
    }
}

impl Tokenize for WordsAlone {
    fn tokenize(&self, text: &str, _: Option<&str>) -> Result<Tokenized, String> {
        let mut ids = self.tokens(text, self.max_tokens.saturating_add(1))?;
        let is_cut = ids.len() > self.max_tokens;
        ids.truncate(self.max_tokens);
        Ok(Tokenized { first: Tokens { ids, types: vec![] }, is_cut })
    }

    fn windows(&self, text: &str) -> Result<Vec<Tokens>, String> {
        let ids = self.tokens(text, usize::MAX)?;
        let windows = ids.chunks(self.max_tokens.max(1));
        Ok(windows.map(|ids| Tokens { ids: ids.to_vec(), types: vec![] }).collect())
    }

    fn each_token(&self, text: &str, give: &mut dyn FnMut(u32, Range<usize>)) -> Result<(), String> {
        each_token(&self.tokenizer, text, &mut |id, place| {
            if Some(id) != self.unknown {
                give(id, place);
            }
        })
    }

    fn around(&self) -> [Vec<u32>; 2] {
        [vec![], vec![]]
    }

    fn marks(&self, _: bool) -> usize {
        0
    }

    fn vocabulary(&self) -> usize {
        self.tokenizer.get_vocab_size(true)
    }

    fn padding(&self) -> u32 {
        0
    }
}

/// Gives all tokens of a text itself, and their places, a piece of the text at a time.
fn each_token(tokenizer: &Tokenizer, text: &str, give: &mut dyn FnMut(u32, Range<usize>)) -> Result<(), String> {
    let mut start = 0;
    while start < text.len() {
        let piece = start_of(&text[start..], LONGEST_LOOK / 4);
        let encoded = tokenizer.encode(piece, false).map_err(|cause| cause.to_string())?;
        for (id, (from, to)) in encoded.get_ids().iter().zip(encoded.get_offsets()) {
            give(*id, start + from..start + to);
        }
        start += piece.len();
    }
    Ok(())
}

/// The first `bytes` bytes of a text, about: up to the end of a word, if there is one.
fn start_of(text: &str, bytes: usize) -> &str {
    if text.len() <= bytes {
        return text;
    }
    let start = &text[..text.floor_char_boundary(bytes)];
    match start.rfind(char::is_whitespace) {
        // What has no spaces is cut anywhere.
        Some(end) if end > bytes / 2 => &start[..end],
        _ => start,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Words of one letter, between marks.
    fn file() -> File {
        let json = r###"{
            "version": "1.0", "truncation": null, "padding": {"strategy": {"Fixed": 128}, "direction": "Right",
                "pad_to_multiple_of": null, "pad_id": 3, "pad_type_id": 0, "pad_token": "[PAD]"},
            "added_tokens": [], "normalizer": null, "pre_tokenizer": {"type": "WhitespaceSplit"},
            "post_processor": {"type": "BertProcessing", "sep": ["[SEP]", 1], "cls": ["[CLS]", 0]}, "decoder": null,
            "model": {"type": "WordLevel", "vocab": {"[CLS]": 0, "[SEP]": 1, "[UNK]": 2, "[PAD]": 3, "a": 4, "b": 5},
                "unk_token": "[UNK]"}}"###;
        File::read(json.as_bytes()).expect("a tokenizer")
    }

    fn tokenizer(max_tokens: usize) -> Arc<dyn Tokenize> {
        file().with_max_tokens(max_tokens).expect("it fits")
    }

    #[test]
    fn texts_are_cut_and_pairs_longest_first() {
        let tokenizer = tokenizer(6);
        assert_eq!(tokenizer.padding(), 3);
        let whole = tokenizer.tokenize("a b c", None).expect("tokens");
        assert_eq!(whole, Tokenized { first: Tokens { ids: vec![0, 4, 5, 2, 1], types: vec![] }, is_cut: false });
        let cut = tokenizer.tokenize("a a a a a a", None).expect("tokens");
        assert_eq!(cut, Tokenized { first: Tokens { ids: vec![0, 4, 4, 4, 4, 1], types: vec![] }, is_cut: true });
        let pair = tokenizer.tokenize("a", Some("b b b b b b b")).expect("tokens");
        assert_eq!(pair.first, Tokens { ids: vec![0, 4, 1, 5, 5, 1], types: vec![0, 0, 0, 1, 1, 1] });
        assert!(pair.is_cut);
    }

    #[test]
    fn words_alone_are_neither_cut_nor_padded_by_their_file() {
        let words = file().of_words_alone(3);
        let whole = words.tokenize("a b", None).expect("tokens");
        assert_eq!(whole, Tokenized { first: Tokens { ids: vec![4, 5], types: vec![] }, is_cut: false });
        let cut = words.tokenize("a c b a b", None).expect("tokens");
        assert_eq!(cut, Tokenized { first: Tokens { ids: vec![4, 5, 4], types: vec![] }, is_cut: true });
        assert!(words.tokenize("c c", None).expect("tokens").first.ids.is_empty());
    }

    #[test]
    fn all_tokens_have_places() {
        let found = |tokenizer: &dyn Tokenize, text: &str| {
            let mut found = vec![];
            tokenizer.each_token(text, &mut |id, place| found.push((id, &text[place]))).expect("tokens");
            found.into_iter().map(|(id, word)| (id, word.to_owned())).collect::<Vec<_>>()
        };
        let word = |id, word: &str| (id, word.to_owned());
        let marked = tokenizer(3);
        assert_eq!(found(&*marked, "a  ü b"), [word(4, "a"), word(2, "ü"), word(5, "b")]);
        assert_eq!(marked.around(), [vec![0], vec![1]]);
        let alone = file().of_words_alone(3);
        assert_eq!(found(&*alone, "a  ü b"), [word(4, "a"), word(5, "b")]);
        assert!(alone.around().concat().is_empty());
        let long = "b a\n".repeat(100_000);
        let all = found(&*marked, &long);
        assert_eq!(all.len(), 200_000);
        assert!(all.chunks(2).all(|pair| pair == [word(5, "b"), word(4, "a")]));
    }

    #[test]
    fn what_follows_is_in_windows() {
        let windows = tokenizer(4).windows("a b a b a").expect("windows");
        let ids: Vec<_> = windows.into_iter().map(|tokens| tokens.ids).collect();
        assert_eq!(ids, [vec![0, 4, 5, 1], vec![0, 4, 5, 1], vec![0, 4, 1]]);
        assert_eq!(tokenizer(4).windows("").expect("a window").len(), 1);
    }

    #[test]
    fn long_texts_are_cut_as_if_all_of_them_was_looked_at() {
        let tokenizer = tokenizer(100);
        for filler in [" ", "\n\n", " b b b "] {
            let text = format!("a{filler}").repeat(50_000);
            let cut = tokenizer.tokenize(&text, None).expect("tokens");
            let short = tokenizer.tokenize(&text[..400 * filler.len()], None).expect("tokens");
            assert_eq!((cut.first.ids, cut.is_cut), (short.first.ids, true));
        }
        // A text without spaces behind a word is not lost.
        let cut = tokenizer.tokenize(&format!("a {}", "x".repeat(8 << 20)), None).expect("tokens");
        assert_eq!((cut.first.ids, cut.is_cut), (vec![0, 4, 2, 1], true));
        let word = "x".repeat(10 << 20);
        let cut = tokenizer.tokenize(&word, None).expect("tokens");
        assert_eq!((cut.first.ids, cut.is_cut), (vec![0, 2, 1], true));
    }

    #[test]
    fn what_is_no_tokenizer_or_keeps_nothing_is_refused() {
        assert!(File::read(br#"{"version": "1.0"}"#).is_err());
        for max_tokens in [0, 1, 2] {
            let refused = file().with_max_tokens(max_tokens).map(drop);
            assert!(refused.is_err_and(|problem| problem.contains("so no text fits")), "{max_tokens}");
        }
    }
}
