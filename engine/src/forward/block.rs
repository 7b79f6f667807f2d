//! Texts that share a pass, and the embeddings of their tokens.

use std::ops::Range;

use crate::model::checkpoint::Checkpoint;
use crate::{DIMS, Error};

/// Texts end to end, without padding.
pub(super) struct Block<'a> {
    pub texts: &'a [&'a [u32]],
    /// The rows of each text.
    pub rows: Vec<Range<usize>>,
}

impl<'a> Block<'a> {
    pub fn new(texts: &'a [&'a [u32]]) -> Block<'a> {
        let mut rows = Vec::with_capacity(texts.len());
        let mut start = 0;
        for ids in texts {
            rows.push(start..start + ids.len());
            start += ids.len();
        }
        Block { texts, rows }
    }

    /// Rows of all texts.
    pub fn len(&self) -> usize {
        self.rows.last().map_or(0, |rows| rows.end)
    }
}

/// The tables for the embedding of a token.
pub(super) struct Embeddings {
    /// The file stays open for the word embeddings.
    pub checkpoint: Checkpoint,
    positions: Vec<f32>,
    /// Row 0 of the token type table. All tokens of a single text have type 0.
    token_type: Vec<f32>,
}

impl Embeddings {
    pub fn new(checkpoint: Checkpoint) -> Result<Embeddings, Error> {
        let positions = checkpoint.vector("embeddings.position_embeddings.weight")?;
        let mut token_type = checkpoint.vector("embeddings.token_type_embeddings.weight")?;
        token_type.truncate(DIMS);
        Ok(Embeddings { checkpoint, positions, token_type })
    }

    /// Word + position + type embedding of each row in `rows`, before the normalisation.
    ///
    /// # Errors
    /// As [`Checkpoint::word`].
    pub fn read(
        &self,
        block: &Block,
        rows: Range<usize>,
        write: &mut dyn FnMut(usize, &[f32; DIMS]),
    ) -> Result<(), Error> {
        let (mut bytes, mut values) = ([0; 4 * DIMS], [0.0; DIMS]);
        for (ids, text) in block.texts.iter().zip(&block.rows) {
            for row in text.start.max(rows.start)..text.end.min(rows.end) {
                let position = row - text.start;
                self.checkpoint.word(ids[position], &mut bytes, &mut values)?;
                let place = &self.positions[position * DIMS..][..DIMS];
                for (i, value) in values.iter_mut().enumerate() {
                    *value = *value + self.token_type[i] + place[i];
                }
                write(row, &values);
            }
        }
        Ok(())
    }
}
