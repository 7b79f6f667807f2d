//! The packed layout of a linear layer's weights, for kernels on row-major hidden states.
//!
//! A panel contains some columns of the result over the whole of `k`, in the order in which the
//! kernel reads them: `[n / width][packed depth][width]` words, zero beyond `n`. A word is a float,
//! or in a bf16 tier two neighbours along `k`. Packing is done once, at load time. Stock candle
//! packs on each call, which takes 63 % of its time for 12 tokens.

use std::ops::Range;

use super::memory::PanelMemory;
use super::number::{Precision, pair};
use crate::Error;

/// A linear layer's weights: their place among the panels, and the bias padded to whole panels.
pub(super) struct LinearWeights {
    pub panels: Range<usize>,
    pub bias: Vec<f32>,
    pub n: usize,
    pub k: usize,
}

/// The form of a tier's panels.
#[derive(Clone, Copy)]
pub(super) struct PanelForm {
    pub precision: Precision,
    /// Columns of a panel.
    pub width: usize,
}

impl PanelForm {
    /// 32-bit words of one column of a panel with `k` values.
    pub fn packed_depth(self, k: usize) -> usize {
        match self.precision {
            Precision::F32 => k,
            Precision::Bf16 => k / 2,
        }
    }

    /// Words of a matrix `[n, k]` in panels, padding included.
    fn words(self, n: usize, k: usize) -> usize {
        n.next_multiple_of(self.width) * self.packed_depth(k)
    }
}

/// Fills the panels, layer by layer.
pub(super) struct Packer {
    form: PanelForm,
    panels: PanelMemory,
    packed: usize,
}

impl Packer {
    /// Reserves memory for matrices `[n, k]` of these shapes, `layers` times.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn new(form: PanelForm, layers: usize, shapes: &[(usize, usize)]) -> Result<Packer, Error> {
        let words: usize = shapes.iter().map(|&(n, k)| form.words(n, k)).sum();
        let panels = PanelMemory::new(layers.saturating_mul(words))?;
        Ok(Packer { form, panels, packed: 0 })
    }

    /// Packs `[n, k]`.
    ///
    /// # Errors
    /// [`Error::Internal`] for more matrices than were reserved.
    pub fn pack(
        &mut self,
        weight: &[f32],
        mut bias: Vec<f32>,
        k: usize,
    ) -> Result<LinearWeights, Error> {
        let (n, width) = (bias.len(), self.form.width);
        assert_eq!(weight.len(), n * k);
        let panels = self.packed..self.packed + self.form.words(n, k);
        self.packed = panels.end;
        let to = self
            .panels
            .as_mut_slice()
            .get_mut(panels.clone())
            .ok_or_else(|| Error::internal("more weights than the configuration has"))?;
        let depth = self.form.packed_depth(k);
        for (panel, to) in to.chunks_exact_mut(depth * width).enumerate() {
            let rows: Vec<&[f32]> =
                weight.chunks_exact(k).skip(panel * width).take(width).collect();
            for (i, to) in to.chunks_exact_mut(width).enumerate() {
                for (to, row) in to.iter_mut().zip(&rows) {
                    *to = match self.form.precision {
                        Precision::F32 => row[i].to_bits(),
                        Precision::Bf16 => pair(row[2 * i], row[2 * i + 1]),
                    };
                }
            }
        }
        bias.resize(n.next_multiple_of(width), 0.0);
        Ok(LinearWeights { panels, bias, n, k })
    }

    pub fn finish(self) -> PanelMemory {
        self.panels
    }
}
