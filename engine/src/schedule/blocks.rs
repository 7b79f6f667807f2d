//! Decides which texts share a forward pass.

use std::ops::Range;

/// Most tokens of a forward pass. A text with more tokens has a pass of its own. Matrix products
/// reach their full speed at about 50 rows. Above 512 rows the hidden states of a block do not fit
/// into the cache.
const MAX_BLOCK_TOKENS: usize = 512;

/// Fewest tokens of a block when blocks are made smaller to give work to every thread.
const MIN_BLOCK_TOKENS: usize = 64;

/// Divides texts of these lengths into ranges. The texts of a range share a forward pass. Each
/// thread gets two blocks if there is enough work. Threads with separate blocks never wait for one
/// another; threads that share a block do.
pub(crate) fn plan(lengths: &[usize], threads: usize) -> Vec<Range<usize>> {
    let limit = if threads == 1 {
        MAX_BLOCK_TOKENS
    } else {
        let share = lengths.iter().sum::<usize>().div_ceil(2 * threads);
        share.clamp(MIN_BLOCK_TOKENS, MAX_BLOCK_TOKENS)
    };
    let mut blocks = Vec::new();
    let mut start = 0;
    let mut tokens = 0;
    for (i, &length) in lengths.iter().enumerate() {
        if i > start && tokens + length > limit {
            blocks.push(start..i);
            (start, tokens) = (i, 0);
        }
        tokens += length;
    }
    if start < lengths.len() {
        blocks.push(start..lengths.len());
    }
    blocks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn covers_every_text_once_within_the_token_limit() {
        let lengths: Vec<usize> = (0..500).map(|i| 2 + (i * 7919) % 700).collect();
        let mut next = 0;
        for block in plan(&lengths, 1) {
            assert_eq!(block.start, next);
            assert!(!block.is_empty());
            let tokens: usize = lengths[block.clone()].iter().sum();
            assert!(block.len() == 1 || tokens <= MAX_BLOCK_TOKENS);
            next = block.end;
        }
        assert_eq!(next, lengths.len());
    }

    #[test]
    fn short_texts_fill_a_block() {
        assert_eq!(plan(&[128; 9], 1), vec![0..4, 4..8, 8..9]);
        assert_eq!(plan(&[600, 2], 1), vec![0..1, 1..2]);
    }

    #[test]
    fn nothing_to_plan() {
        assert!(plan(&[], 2).is_empty());
    }
}
