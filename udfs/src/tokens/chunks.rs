//! Texts in parts.

use std::ops::Range;

use datafusion::common::{DataFusionError, Result, plan_datafusion_err, plan_err};
use text_splitter::{ChunkConfig, TextSplitter, TryChunkSizer};
use unicode_segmentation::UnicodeSegmentation;

use crate::model::Tokenizer;

/// Bytes of a text that are looked at together, at least.
const SMALLEST_WINDOW: usize = 1 << 14;

/// The same for each token of a part: some parts are in a window.
const BYTES_IN_WINDOW: usize = 64;

/// Cuts texts into parts of at most so many tokens of a model; without a model, of so many words and marks.
///
/// Where a text is cut is the choice of the crate `text-splitter`: between paragraphs where a part has room for one, else between sentences,
/// else between words. What is counted is ours: a text is made tokens once, and each part that is tried is counted
/// by the places of these.
pub(super) struct Chunker<'a> {
    tokenizer: Option<&'a dyn Tokenizer>,
    /// Tokens of a part beside those that mark its beginning and its end.
    capacity: usize,
    /// Of those, what two neighbours may share.
    overlap: usize,
    /// The tokens that mark beginning and end.
    marks: usize,
}

impl<'a> Chunker<'a> {
    /// For parts of `max_tokens` tokens, or of as many as the model takes.
    ///
    /// # Errors
    /// More tokens than the model takes, so few that no text fits, or that neighbours would share all of them.
    pub(super) fn new(tokenizer: Option<&'a dyn Tokenizer>, max_tokens: Option<usize>, overlap: usize) -> Result<Self> {
        let limit = tokenizer.map_or(usize::MAX, Tokenizer::max_tokens);
        let max_tokens = max_tokens.unwrap_or(limit);
        if max_tokens > limit {
            return plan_err!(
                "chunk_text: a part of {max_tokens} tokens does not fit into the model, which takes {limit}"
            );
        }
        let marks = match tokenizer {
            Some(tokenizer) => tokenizer.tokens("")?.len(),
            None => 0,
        };
        let capacity = max_tokens.saturating_sub(marks);
        let unit = if tokenizer.is_some() { "token" } else { "word" };
        if capacity == 0 && marks == 0 {
            return plan_err!("chunk_text: a part must have at least 1 {unit}, found {max_tokens}");
        }
        if capacity == 0 {
            return plan_err!(
                "chunk_text: of {max_tokens} tokens {marks} stand before and behind a text, so no text fits"
            );
        }
        if overlap >= capacity {
            return plan_err!("chunk_text: the overlap must be less than a part's {capacity} {unit}s, found {overlap}");
        }
        Ok(Self { tokenizer, capacity, overlap, marks })
    }

    /// Gives the parts of `text` in order, without the spaces at their ends; none for a text of spaces alone.
    ///
    /// A part has more than the largest number of tokens only if it is one character.
    ///
    /// # Errors
    /// What the tokenizer says of the text; those of `give`.
    pub(super) fn chunks(&self, text: &str, give: &mut dyn FnMut(&str) -> Result<()>) -> Result<()> {
        // The time to find one part grows with what is looked at, so that is a window. Its last part may go on behind its end, and
        // begins the next window.
        let usual = SMALLEST_WINDOW.max(self.capacity.saturating_mul(BYTES_IN_WINDOW));
        let (mut start, mut size) = (0, usual);
        loop {
            let window = beginning(&text[start..], size);
            let is_last = start + window.len() == text.len();
            let places = match self.tokenizer {
                Some(tokenizer) => tokenizer.places(window)?,
                None => words(window),
            };
            let mut last: Option<(usize, &str)> = None;
            self.cut(window, Places { text: window, places }, &mut |at, chunk| match last.replace((at, chunk)) {
                Some((_, before)) => self.checked(before, give),
                None => Ok(()),
            })?;
            match last {
                Some((_, chunk)) if is_last => return self.checked(chunk, give),
                None if is_last => return Ok(()),
                Some((at, _)) if at > 0 => (start, size) = (start + at, usual),
                // Spaces alone, or no more than one part.
                _ => size = size.saturating_mul(2),
            }
        }
    }

    /// Gives a part: in smaller ones, if it has too many tokens. Without the word that stood before it, its first word may have others.
    fn checked(&self, chunk: &str, give: &mut dyn FnMut(&str) -> Result<()>) -> Result<()> {
        let Some(tokenizer) = self.tokenizer else { return give(chunk) };
        if tokenizer.tokens(chunk)?.len() <= self.capacity.saturating_add(self.marks) {
            return give(chunk);
        }
        self.cut(chunk, Recount { tokenizer, marks: self.marks }, &mut |_, chunk| give(chunk))
    }

    /// Gives the parts of `text`, and where they begin.
    fn cut<'t, S>(&self, text: &'t str, sizer: S, give: &mut dyn FnMut(usize, &'t str) -> Result<()>) -> Result<()>
    where
        S: TryChunkSizer<Error = DataFusionError>,
    {
        let config = ChunkConfig::new(self.capacity).with_overlap(self.overlap);
        let config = config.map_err(|cause| plan_datafusion_err!("chunk_text: {cause}"))?;
        let splitter = TextSplitter::new(config.with_sizer(sizer));
        splitter.try_chunk_indices(text).try_for_each(|chunk| {
            let (at, chunk) = chunk?;
            give(at, chunk)
        })
    }
}

/// About `bytes` bytes of the beginning of a text: up to the end of a line, or of a word, if there is one.
fn beginning(text: &str, bytes: usize) -> &str {
    if text.len() <= bytes {
        return text;
    }
    let start = &text[..text.floor_char_boundary(bytes)];
    let end = start.rfind('\n').or_else(|| start.rfind(char::is_whitespace));
    match end {
        Some(end) if end > bytes / 2 => &start[..end],
        // What begins with a character of many bytes is at least that.
        _ if start.is_empty() => text,
        _ => start,
    }
}

/// Words and marks, as Unicode divides a text, without the spaces between them.
fn words(text: &str) -> Vec<Range<usize>> {
    let parts = text.split_word_bound_indices().filter(|(_, part)| !part.chars().all(char::is_whitespace));
    parts.map(|(start, part)| start..start + part.len()).collect()
}

/// Counts the tokens of a part by their places in the whole text.
struct Places<'a> {
    text: &'a str,
    /// In the order of their starts.
    places: Vec<Range<usize>>,
}

impl TryChunkSizer for Places<'_> {
    type Error = DataFusionError;

    /// A token that lies across an end of the part counts.
    fn try_size(&self, chunk: &str) -> Result<usize> {
        // A part is a slice of the text.
        let start = (chunk.as_ptr() as usize).wrapping_sub(self.text.as_ptr() as usize);
        let end = start.saturating_add(chunk.len());
        if end > self.text.len() {
            return plan_err!("chunk_text: a part that is none of the text");
        }
        let first = self.places.partition_point(|place| place.end <= start);
        let behind = self.places.partition_point(|place| place.start < end);
        Ok(behind.saturating_sub(first))
    }
}

/// Counts the tokens of a part by making it tokens.
struct Recount<'a> {
    tokenizer: &'a dyn Tokenizer,
    marks: usize,
}

impl TryChunkSizer for Recount<'_> {
    type Error = DataFusionError;

    fn try_size(&self, chunk: &str) -> Result<usize> {
        Ok(self.tokenizer.tokens(chunk)?.len().saturating_sub(self.marks))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two marks, and a token for each two letters of a word.
    #[derive(Debug)]
    struct Pairs;

    impl Tokenizer for Pairs {
        fn tokens(&self, text: &str) -> Result<Vec<u32>> {
            Ok(vec![0; self.places(text)?.len() + 2])
        }

        fn max_tokens(&self) -> usize {
            1000
        }

        fn places(&self, text: &str) -> Result<Vec<Range<usize>>> {
            let words = text.split_word_bound_indices().filter(|(_, part)| part.trim() == *part);
            let halves = words.flat_map(|(start, word)| {
                (0..word.len()).step_by(2).map(move |at| start + at..start + word.len().min(at + 2))
            });
            Ok(halves.collect())
        }
    }

    fn chunks(tokenizer: Option<&dyn Tokenizer>, text: &str, max_tokens: usize, overlap: usize) -> Vec<String> {
        let mut found = vec![];
        let chunker = Chunker::new(tokenizer, Some(max_tokens), overlap).expect("it fits");
        let taken = chunker.chunks(text, &mut |chunk| {
            found.push(chunk.to_owned());
            Ok(())
        });
        taken.expect("a text");
        found
    }

    #[test]
    fn texts_are_cut_between_sentences_and_words() {
        assert_eq!(chunks(None, "One two. Three four five.", 4, 0), ["One two.", "Three four five."]);
        assert_eq!(chunks(None, "one two three four", 2, 1), ["one two", "two three", "three four"]);
        assert_eq!(chunks(None, "short", 100, 0), ["short"]);
        assert!(chunks(None, " \n ", 3, 0).is_empty() && chunks(None, "", 3, 0).is_empty());
    }

    #[test]
    fn no_part_has_more_tokens_than_it_may() {
        let text = "abcdef gh ijkl. Mno, pqrstuvwxyz! ".repeat(50);
        for max_tokens in 3..12 {
            for overlap in [0, max_tokens - 3] {
                let parts = chunks(Some(&Pairs), &text, max_tokens, overlap);
                let longest = parts.iter().map(|part| Pairs.tokens(part).expect("a text").len()).max();
                assert!(longest.is_some_and(|longest| longest <= max_tokens), "{max_tokens}, {overlap}: {longest:?}");
                let letters = |text: &str| text.chars().filter(|letter| !letter.is_whitespace()).count();
                let found: usize = parts.iter().map(|part| letters(part)).sum();
                assert!(if overlap == 0 { found == letters(&text) } else { found >= letters(&text) });
            }
        }
    }

    #[test]
    fn long_texts_are_cut_as_short_ones_are() {
        let sentence = "One two three four. ";
        let long = chunks(None, &sentence.repeat(40_000), 5, 0);
        assert!(long.len() == 40_000 && long.iter().all(|part| part == sentence.trim()));
        // Neither spaces nor sentences, or spaces alone.
        let word = "x".repeat(1 << 17);
        assert_eq!(chunks(Some(&Pairs), &word, 102, 0).concat(), word);
        assert!(chunks(None, &" \n".repeat(1 << 18), 5, 0).is_empty());
        let spaced = format!("{}end", " ".repeat(1 << 18));
        assert_eq!(chunks(None, &spaced, 5, 0), ["end"]);
    }

    #[test]
    fn numbers_that_do_not_fit_are_refused() {
        let problem = |tokenizer, max_tokens, overlap| {
            Chunker::new(tokenizer, Some(max_tokens), overlap).err().expect("refused").strip_backtrace()
        };
        assert!(problem(None, 0, 0).contains("at least 1 word"));
        assert!(problem(Some(&Pairs), 1001, 0).contains("does not fit into the model, which takes 1000"));
        assert_eq!(Chunker::new(Some(&Pairs), None, 0).expect("it fits").capacity, 998);
        assert!(problem(Some(&Pairs), 2, 0).contains("of 2 tokens 2 stand before and behind a text"));
        assert!(problem(None, 3, 3).contains("less than a part's 3 words, found 3"));
    }
}
