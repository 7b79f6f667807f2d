//! The weights of a model as panels of tiles, in the order in which a pass reads them.
//!
//! A layer has 36 panels of queries, keys and values and 12 of the attention's output. For each 384
//! columns of the intermediate size it has 12 panels of the first linear layer and 12 of the
//! second, for those 384 of its `k`. An intermediate size that is not a multiple of 384 is padded
//! with zeros: every activation of 0 is 0.

use super::layout::{BLOCK, HEAD, PANEL_WORDS, PANELS};
use super::pack::value_column;
use super::rows::Norm;
use crate::forward::memory::{Buffer, PanelMemory};
use crate::forward::number::pair;
use crate::model::checkpoint::Checkpoint;
use crate::model::config::ModelConfig;
use crate::{DIMS, Error};

/// Panels of queries, keys and values.
pub(super) const QKV_PANELS: usize = 3 * PANELS;
/// Panels before those of the feed-forward part.
const ATTENTION_PANELS: usize = QKV_PANELS + PANELS;

/// The layers of a model.
pub(super) struct TileWeights {
    panels: PanelMemory,
    pub embedding_norm: Norm,
    pub layers: Vec<Layer>,
    /// How many times 384 the intermediate size is, rounded up.
    pub parts: usize,
}

/// The parameters that are not in the panels.
pub(super) struct Layer {
    pub qkv_bias: Biases,
    pub up_bias: Biases,
    pub attention_norm: Norm,
    pub norm: Norm,
}

/// Floats that start at a cache line, so that a tile's row of them is one line.
pub(super) struct Biases(Buffer, usize);

impl Biases {
    fn new(values: &[f32]) -> Result<Biases, Error> {
        let mut buffer = Buffer::default();
        buffer.of(values.len())?.copy_from_slice(values);
        Ok(Biases(buffer, values.len()))
    }

    pub fn as_slice(&self) -> &[f32] {
        self.0.values(self.1)
    }
}

/// Panels of one layer.
fn panels_per_layer(parts: usize) -> usize {
    ATTENTION_PANELS + 2 * PANELS * parts
}

impl TileWeights {
    /// Reads and packs the weights.
    ///
    /// # Errors
    /// As [`Checkpoint::read`]; [`Error::OutOfMemory`].
    pub fn new(config: &ModelConfig, checkpoint: &Checkpoint) -> Result<TileWeights, Error> {
        let parts = config.intermediate.div_ceil(DIMS);
        let per_layer = panels_per_layer(parts) * PANEL_WORDS;
        let mut panels = PanelMemory::new(config.layers.saturating_mul(per_layer))?;
        let eps = config.layer_norm_eps as f32;
        let vector = |name: String| checkpoint.vector(&name);
        let norm = |name: &str, next_bias: &[f32]| -> Result<Norm, Error> {
            let weight = vector(format!("{name}.LayerNorm.weight"))?;
            Ok(Norm::new(weight, vector(format!("{name}.LayerNorm.bias"))?, next_bias, eps))
        };
        // The bias of the attention's output of a layer. The norm before it adds this bias.
        let output_bias = |layer: usize| match layer < config.layers {
            true => vector(format!("encoder.layer.{layer}.attention.output.dense.bias")),
            false => Ok(vec![0.0; DIMS]),
        };
        let mut layers = Vec::with_capacity(config.layers);
        // One buffer for the matrices of all layers, as large as the largest.
        let mut matrix = Vec::new();
        let places = panels.as_mut_slice().chunks_exact_mut(per_layer);
        for (i, to) in places.enumerate().take(config.layers) {
            let layer = format!("encoder.layer.{i}");
            let (qkv, rest) = to.split_at_mut(QKV_PANELS * PANEL_WORDS);
            let qkv_bias = read_qkv(checkpoint, &layer, config.heads, &mut matrix, qkv)?;
            let (output, feed_forward) = rest.split_at_mut(PANELS * PANEL_WORDS);
            matrix.clear();
            checkpoint.read(&format!("{layer}.attention.output.dense.weight"), &mut matrix)?;
            pack_straight(&matrix, DIMS, 0, 0, output);

            matrix.clear();
            checkpoint.read(&format!("{layer}.intermediate.dense.weight"), &mut matrix)?;
            let mut up_bias = vector(format!("{layer}.intermediate.dense.bias"))?;
            up_bias.resize(parts * DIMS, 0.0);
            let part_words = 2 * PANELS * PANEL_WORDS;
            for (part, to) in feed_forward.chunks_exact_mut(part_words).enumerate() {
                pack_straight(&matrix, DIMS, part * DIMS, 0, &mut to[..part_words / 2]);
            }
            matrix.clear();
            checkpoint.read(&format!("{layer}.output.dense.weight"), &mut matrix)?;
            for (part, to) in feed_forward.chunks_exact_mut(part_words).enumerate() {
                let to = &mut to[part_words / 2..];
                pack_straight(&matrix, config.intermediate, 0, part * DIMS, to);
            }
            let down_bias = vector(format!("{layer}.output.dense.bias"))?;
            layers.push(Layer {
                qkv_bias: Biases::new(&qkv_bias)?,
                up_bias: Biases::new(&up_bias)?,
                attention_norm: norm(&format!("{layer}.attention.output"), &down_bias)?,
                norm: norm(&format!("{layer}.output"), &output_bias(i + 1)?)?,
            });
        }
        let embedding_norm = norm("embeddings", &output_bias(0)?)?;
        Ok(TileWeights { panels, embedding_norm, layers, parts })
    }

    fn panels(&self, layer: usize, first: usize, count: usize) -> &[u32] {
        let first = layer * panels_per_layer(self.parts) + first;
        &self.panels.as_slice()[first * PANEL_WORDS..(first + count) * PANEL_WORDS]
    }

    /// Queries, keys and values of head 0, of head 1 and so on, if heads have 32 columns. Otherwise
    /// all queries, all keys, all values.
    pub fn qkv(&self, layer: usize) -> &[u32] {
        self.panels(layer, 0, QKV_PANELS)
    }

    /// The attention's output.
    pub fn output(&self, layer: usize) -> &[u32] {
        self.panels(layer, QKV_PANELS, PANELS)
    }

    /// 384 columns of the first linear layer of the feed-forward part.
    pub fn up(&self, layer: usize, part: usize) -> &[u32] {
        self.panels(layer, ATTENTION_PANELS + 2 * PANELS * part, PANELS)
    }

    /// The same 384 of the `k` of the second linear layer.
    pub fn down(&self, layer: usize, part: usize) -> &[u32] {
        self.panels(layer, ATTENTION_PANELS + 2 * PANELS * part + PANELS, PANELS)
    }
}

/// Packs queries, keys and values; returns their biases in the same order.
fn read_qkv(
    checkpoint: &Checkpoint,
    layer: &str,
    heads: usize,
    matrix: &mut Vec<f32>,
    to: &mut [u32],
) -> Result<Vec<f32>, Error> {
    let head_size = DIMS / heads;
    let by_heads = head_size == HEAD;
    let scale = 1.0 / (head_size as f32).sqrt();
    // 2^x instead of e^x, because attention on tiles uses the cheaper 2^x.
    let scale = if by_heads { scale * std::f32::consts::LOG2_E } else { scale };
    let mut biases = vec![0.0; 3 * DIMS];
    for (which, name) in ["query", "key", "value"].into_iter().enumerate() {
        let name = format!("{layer}.attention.self.{name}");
        matrix.clear();
        checkpoint.read(&format!("{name}.weight"), matrix)?;
        let mut bias = checkpoint.vector(&format!("{name}.bias"))?;
        if which == 0 {
            matrix.iter_mut().chain(&mut bias).for_each(|value| *value *= scale);
        }
        for head in 0..PANELS {
            let panel = if by_heads { 3 * head + which } else { which * PANELS + head };
            let permuted = by_heads && which == 2;
            let column = |i| head * BLOCK + if permuted { value_column(i) } else { i };
            pack(matrix, DIMS, 0, column, &mut to[panel * PANEL_WORDS..][..PANEL_WORDS]);
            for (i, to) in biases[panel * BLOCK..][..BLOCK].iter_mut().enumerate() {
                *to = bias[column(i)];
            }
        }
    }
    Ok(biases)
}

/// Packs panels of the columns from `first` on, for 384 of `k` from `from` on.
fn pack_straight(matrix: &[f32], k: usize, first: usize, from: usize, to: &mut [u32]) {
    for (panel, to) in to.chunks_exact_mut(PANEL_WORDS).enumerate() {
        pack(matrix, k, from, |i| first + panel * BLOCK + i, to);
    }
}

/// Packs a panel of the matrix `[n, k]`. Its column `i` is row `column(i)` of the matrix. It is
/// zero beyond `n` and `k`.
fn pack(matrix: &[f32], k: usize, from: usize, column: impl Fn(usize) -> usize, to: &mut [u32]) {
    for (i, word) in to.iter_mut().enumerate() {
        let (step, tile, row, place) = (i / 512, i / 256 % 2, i / 16 % 16, i % 16);
        let at = from + step * BLOCK + 2 * row;
        let start = column(tile * 16 + place) * k;
        // `k` is even, so a pair lies inside or outside as a whole.
        *word = match matrix.get(start + at..start + at + 2) {
            Some(&[first, second]) if at < k => pair(first, second),
            _ => 0,
        };
    }
}
