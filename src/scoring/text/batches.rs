//! Cuts texts into batches by their tokens, so that little is computed for padding.

use std::ops::Range;

/// Tokens of a batch, those of its padding among them, unless one text has more. More make no run faster: a layer's products
/// are as large as the caches like them long before.
const MOST_TOKENS: usize = 1024;

/// The same on a device: what a run costs there beside its tokens is worth many of them, and it computes many at once.
const MOST_TOKENS_ON_DEVICE: usize = 32 << 10;

/// A batch with that part of the most tokens takes no text that would be padded to more than it is worth.
const ENOUGH: usize = 4;

/// One in so many tokens may be padding, once a batch has [`ENOUGH`] tokens.
const PADDING: usize = 32;

/// The batches of texts of `lengths` tokens, which fall: ranges of places that together are all of them.
///
/// A batch is as long as its first text. It ends before a text that would make it larger than it should be, or, when there is
/// enough in it, before one that is so much shorter that its padding would cost more than another run.
///
/// `on_cpu` says where they run. `padded_to` are the tokens of each text where the graph has a fixed number. Where `is_exact`, none is padded to another: a
/// graph that is not told what is padding would take it for tokens.
pub(super) fn batches(lengths: &[usize], padded_to: Option<usize>, is_exact: bool, on_cpu: bool) -> Vec<Range<usize>> {
    let most = if on_cpu { MOST_TOKENS } else { MOST_TOKENS_ON_DEVICE };
    let mut batches = vec![];
    let mut start = 0;
    while start < lengths.len() {
        let longest = padded_to.unwrap_or(lengths[start]).max(1);
        let (mut end, mut tokens) = (start + 1, lengths[start]);
        while end < lengths.len() {
            let padded = (end + 1 - start) * longest;
            let padding = padded - (tokens + lengths[end]);
            let too_short = padded_to.is_none() && padded > most / ENOUGH && padding * PADDING > padded;
            if padded > most || too_short || (is_exact && lengths[end] != lengths[start]) {
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
        let batches = batches(&lengths, None, false, true);
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
        assert_eq!(batches(&[5000, 10, 10], None, false, true), [0..1, 1..3]);
        assert_eq!(batches(&[2; 512], None, false, true).as_slice(), std::slice::from_ref(&(0..512)));
        assert_eq!(batches(&[0, 0], None, false, true).as_slice(), std::slice::from_ref(&(0..2)));
        assert!(batches(&[], None, false, true).is_empty());
        assert_eq!(batches(&[2; 4], Some(512), false, true), [0..2, 2..4]);
        assert_eq!(batches(&[2; 4], Some(512), false, false).as_slice(), std::slice::from_ref(&(0..4)));
        assert_eq!(batches(&[7, 7, 6], None, true, true), [0..2, 2..3]);
    }
}
