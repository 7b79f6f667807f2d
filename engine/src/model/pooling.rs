//! Pooling: one vector of unit length from the hidden states of a text.

use std::ops::Range;

use crate::{DIMS, Error};

/// Which hidden states of a text make its vector, as in sentence-transformers'
/// [`Pooling`](https://github.com/UKPLab/sentence-transformers/blob/v3.0.0/sentence_transformers/models/Pooling.py).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pooling {
    /// The mean over all tokens, specials included.
    Mean,
    /// The hidden state of the first token, which is `[CLS]`.
    Cls,
}

impl Pooling {
    /// The name in `embed_model()`.
    pub fn name(self) -> &'static str {
        match self {
            Pooling::Mean => "mean",
            Pooling::Cls => "cls",
        }
    }

    /// The rows whose mean is the vector, of the rows of a text.
    pub fn rows(self, text: &Range<usize>) -> Range<usize> {
        match self {
            Pooling::Mean => text.clone(),
            Pooling::Cls => text.start..text.end.min(text.start + 1),
        }
    }
}

/// The mean of rows of 384 values, then `Normalize`. The sums are in f64. The reference adds f32
/// values in blocks, and a plain f32 sum of 512 values would lose the last bits.
pub(crate) struct Mean {
    sums: [f64; DIMS],
}

impl Mean {
    pub fn new() -> Mean {
        Mean { sums: [0.0; DIMS] }
    }

    /// Adds a row.
    pub fn add(&mut self, row: &[f32; DIMS]) {
        for (sum, &value) in self.sums.iter_mut().zip(row) {
            *sum += f64::from(value);
        }
    }

    /// The mean at unit length.
    ///
    /// # Errors
    /// [`Error::Internal`] when the mean has no direction: it is zero or not finite.
    pub fn normalise(&self) -> Result<[f32; DIMS], Error> {
        // The number of rows cancels out in the norm.
        let norm = self.sums.iter().map(|sum| sum * sum).sum::<f64>().sqrt();
        if !(norm.is_finite() && norm > 0.0) {
            return Err(Error::internal("the hidden state is not finite"));
        }
        Ok(self.sums.map(|sum| (sum / norm) as f32))
    }
}

/// The mean of the rows of `[s, 384]`, scaled to unit length.
///
/// # Errors
/// As [`Mean::normalise`].
pub(crate) fn mean_and_normalise(states: &[f32]) -> Result<[f32; DIMS], Error> {
    let mut mean = Mean::new();
    for row in states.as_chunks::<DIMS>().0 {
        mean.add(row);
    }
    mean.normalise()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vector_is_the_mean_of_all_rows_at_unit_length() {
        let mut states = vec![0.0; 2 * DIMS];
        (states[0], states[DIMS], states[DIMS + 1]) = (1.0, 5.0, 8.0);
        let mut expected = [0.0; DIMS];
        (expected[0], expected[1]) = (0.6, 0.8);
        assert_eq!(mean_and_normalise(&states).unwrap(), expected);
    }

    #[test]
    fn the_rows_of_cls_are_the_first() {
        assert_eq!(Pooling::Cls.rows(&(3..7)), 3..4);
        assert_eq!(Pooling::Mean.rows(&(3..7)), 3..7);
    }

    #[test]
    fn a_hidden_state_without_a_direction_is_an_error() {
        for value in [0.0, f32::NAN, f32::INFINITY] {
            assert!(mean_and_normalise(&[value; DIMS]).is_err(), "{value}");
        }
    }
}
