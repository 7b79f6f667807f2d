//! Mean pooling: the mean of the hidden states of all tokens, specials included, at unit length.

use crate::{DIMS, Error};

/// The mean of rows of 384 values, as sentence-transformers'
/// [`Pooling`](https://github.com/UKPLab/sentence-transformers/blob/v3.0.0/sentence_transformers/models/Pooling.py)
/// with `pooling_mode_mean_tokens`, then `Normalize`. The sums are in f64. The reference adds f32
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
    fn a_hidden_state_without_a_direction_is_an_error() {
        for value in [0.0, f32::NAN, f32::INFINITY] {
            assert!(mean_and_normalise(&[value; DIMS]).is_err(), "{value}");
        }
    }
}
