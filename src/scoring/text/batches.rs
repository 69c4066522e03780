//! Cuts texts into batches by their tokens, so that little is computed for padding.

use std::ops::Range;

/// Tokens of a batch, those of its padding among them, unless one text has more. More make no run faster: a layer's products
/// are as large as the caches like them long before.
const MOST_TOKENS: usize = 1024;

/// A batch with that many tokens takes no text that would be padded to more than it is worth.
const ENOUGH_TOKENS: usize = 256;

/// One in so many tokens may be padding, once a batch has [`ENOUGH_TOKENS`].
const PADDING: usize = 32;

/// The batches of texts of `lengths` tokens, which fall: ranges of places that together are all of them.
///
/// A batch is as long as its first text. It ends before a text that would make it larger than it should be, or, when there is
/// enough in it, before one that is so much shorter that its padding would cost more than another run.
///
/// `padded_to` are the tokens of each text where the graph has a fixed number. Where `is_exact`, none is padded to another: a
/// graph that is not told what is padding would take it for tokens.
pub(super) fn batches(lengths: &[usize], padded_to: Option<usize>, is_exact: bool) -> Vec<Range<usize>> {
    let mut batches = vec![];
    let mut start = 0;
    while start < lengths.len() {
        let longest = padded_to.unwrap_or(lengths[start]).max(1);
        let (mut end, mut tokens) = (start + 1, lengths[start]);
        while end < lengths.len() {
            let padded = (end + 1 - start) * longest;
            let padding = padded - (tokens + lengths[end]);
            let too_short = padded_to.is_none() && padded > ENOUGH_TOKENS && padding * PADDING > padded;
            if padded > MOST_TOKENS || too_short || (is_exact && lengths[end] != lengths[start]) {
                break;
            }
            tokens += lengths[end];
            end += 1;
        }
        batches.push(start..end);
        start = end;
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_hold_all_texts_and_little_padding() {
        let mut lengths: Vec<usize> = (0..5000).map(|i: usize| 2 + (i * 7919) % 509).collect();
        lengths.sort_by(|a, b| b.cmp(a));
        let batches = batches(&lengths, None, false);
        let places: Vec<_> = batches.iter().cloned().flatten().collect();
        assert_eq!(places, (0..5000).collect::<Vec<_>>());
        let padded: usize = batches.iter().map(|batch| batch.len() * lengths[batch.start]).sum();
        let tokens: usize = lengths.iter().sum();
        assert!(padded as f64 / tokens as f64 <= 1.03, "{padded} for {tokens}");
        let most = batches.iter().map(|batch| batch.len() * lengths[batch.start]).max();
        assert!(most <= Some(MOST_TOKENS), "{most:?}");
    }

    #[test]
    fn a_text_that_is_too_long_is_alone_and_short_ones_are_many() {
        assert_eq!(batches(&[5000, 10, 10], None, false), [0..1, 1..3]);
        assert_eq!(batches(&[2; 512], None, false).as_slice(), std::slice::from_ref(&(0..512)));
        assert_eq!(batches(&[0, 0], None, false).as_slice(), std::slice::from_ref(&(0..2)));
        assert!(batches(&[], None, false).is_empty());
        assert_eq!(batches(&[2; 4], Some(512), false), [0..2, 2..4]);
        assert_eq!(batches(&[7, 7, 6], None, true), [0..2, 2..3]);
    }
}
