//! Which texts share a forward pass.

use std::ops::Range;

/// Most tokens of a forward pass, padding included. One long text fills it alone. More would not
/// be faster (the matrix products are at their rate from about 256 rows on) and would make the
/// wait between two chances to interrupt, and the memory for attention scores, longer.
const MAX_BATCH_TOKENS: usize = 512;

/// A text joins a batch when it is at least this share of its longest text: below it, the work
/// wasted on padding costs more than a forward pass of its own.
const LEAST_FILL: f64 = 0.75;

/// Cuts `lengths`, sorted from long to short, into ranges that run together.
pub(crate) fn plan(lengths: &[usize]) -> Vec<Range<usize>> {
    let mut batches = Vec::new();
    let mut start = 0;
    while start < lengths.len() {
        let longest = lengths[start].max(1);
        let most = (MAX_BATCH_TOKENS / longest).max(1);
        let end = lengths[start..]
            .iter()
            .take(most)
            .take_while(|&&length| length as f64 >= LEAST_FILL * longest as f64)
            .count()
            .max(1)
            + start;
        batches.push(start..end);
        start = end;
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn covers_every_text_once_within_the_token_limit() {
        let mut lengths: Vec<usize> = (0..500).map(|i| 2 + (i * 7919) % 511).collect();
        lengths.sort_unstable_by(|a, b| b.cmp(a));
        let batches = plan(&lengths);
        let mut next = 0;
        for batch in &batches {
            assert_eq!(batch.start, next);
            assert!(!batch.is_empty());
            assert!(batch.len() == 1 || batch.len() * lengths[batch.start] <= MAX_BATCH_TOKENS);
            next = batch.end;
        }
        assert_eq!(next, lengths.len());
    }

    #[test]
    fn a_short_text_is_not_padded_to_a_long_one() {
        assert_eq!(plan(&[250, 3, 3]), vec![0..1, 1..3]);
    }

    #[test]
    fn nothing_to_plan() {
        assert!(plan(&[]).is_empty());
    }
}
