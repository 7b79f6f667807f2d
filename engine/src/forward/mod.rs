//! The engine's own forward pass: weights packed once, operations fused, batches unpadded.
//!
//! Stock candle runs at 0.3 to 0.5 of ONNX Runtime: it packs the weights again on each call (63 %
//! of the time of 12 tokens), calls scalar `expf` and `erff`, allocates for every operation and
//! multiplies with the padding. Here Q, K and V are one product with the attention's scale in the
//! weights; bias, GELU and residual are done while a tile is in the cache; sequences lie end to end
//! without padding; buffers are kept.
//!
//! Maths as in Hugging Face's
//! [`modeling_bert.py`](https://github.com/huggingface/transformers/blob/v4.40.0/src/transformers/models/bert/modeling_bert.py).

#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod bf16;
mod kernels;
mod math;
mod memory;
mod parallel;
mod prefetch;
mod simd;
pub(crate) mod tier;

use std::cell::RefCell;
use std::ops::Range;

use crate::model::checkpoint::Checkpoint;
use crate::model::config::{self, ModelConfig};
use crate::{DIMS, Error};

use kernels::{Activation, Attend, Norm, Scratch};
use memory::Words;
use parallel::Shared;
use tier::{Precision, Tier};

/// A packed model.
pub(crate) struct Forward {
    tier: Tier,
    /// Kept open for the word embeddings.
    weights: Checkpoint,
    positions: Vec<f32>,
    /// Row 0 of the token type table: a single text is all of type 0.
    token_type: Vec<f32>,
    norm: NormWeights,
    layers: Vec<Layer>,
    /// The panels of all layers.
    panels: Words,
    head_size: usize,
    intermediate: usize,
    activation: Activation,
    eps: f32,
}

struct Layer {
    qkv: LinearWeights,
    attention_out: LinearWeights,
    attention_norm: NormWeights,
    up: LinearWeights,
    down: LinearWeights,
    norm: NormWeights,
}

/// A linear layer's weights, their place among the panels, its bias padded to whole panels.
struct LinearWeights {
    panels: Range<usize>,
    bias: Vec<f32>,
    n: usize,
    k: usize,
}

struct NormWeights {
    weight: Vec<f32>,
    bias: Vec<f32>,
}

/// Hidden states of a block of texts, laid end to end, and what a layer computes on the way.
#[derive(Default)]
struct Workspace {
    x: Vec<f32>,
    qkv: Vec<f32>,
    context: Vec<f32>,
    inner: Vec<f32>,
}

thread_local! {
    // Per thread that runs the model, so that a forward pass allocates nothing once it is warm:
    // 7 MB for 512 tokens, 28 MB for the 2048 that are the most.
    static WORKSPACE: RefCell<Workspace> = RefCell::new(Workspace::default());
    static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch::default());
}

impl Forward {
    /// Packs the weights for a tier.
    pub fn new(config: &ModelConfig, weights: Checkpoint, tier: Tier) -> Result<Forward, Error> {
        let head_size = DIMS / config.heads;
        let scale = 1.0 / (head_size as f32).sqrt();
        let mut layers = Vec::with_capacity(config.layers);
        // One buffer for the matrices of all layers: fresh memory for each costs a page fault per
        // 4 kB, together as much as packing.
        let mut matrix = Vec::new();
        let shapes = [
            (3 * DIMS, DIMS),
            (DIMS, DIMS),
            (config.intermediate, DIMS),
            (DIMS, config.intermediate),
        ];
        let per_layer: usize = shapes.map(|(n, k)| packed_words(n, k, tier)).iter().sum();
        let mut packer = Packer { tier, panels: Words::new(config.layers * per_layer)?, packed: 0 };
        for i in 0..config.layers {
            let layer = format!("encoder.layer.{i}");
            let mut bias = Vec::with_capacity(3 * DIMS);
            matrix.clear();
            for part in ["query", "key", "value"] {
                let name = format!("{layer}.attention.self.{part}");
                weights.read(&format!("{name}.weight"), &mut matrix)?;
                weights.read(&format!("{name}.bias"), &mut bias)?;
                if part == "query" {
                    matrix.iter_mut().chain(&mut bias).for_each(|value| *value *= scale);
                }
            }
            let qkv = packer.pack(&matrix, bias, DIMS)?;
            let mut linear = |name: &str, k: usize| -> Result<LinearWeights, Error> {
                matrix.clear();
                weights.read(&format!("{layer}.{name}.weight"), &mut matrix)?;
                let bias = weights.vector(&format!("{layer}.{name}.bias"))?;
                packer.pack(&matrix, bias, k)
            };
            layers.push(Layer {
                qkv,
                attention_out: linear("attention.output.dense", DIMS)?,
                up: linear("intermediate.dense", DIMS)?,
                down: linear("output.dense", config.intermediate)?,
                attention_norm: NormWeights::read(&weights, &format!("{layer}.attention.output"))?,
                norm: NormWeights::read(&weights, &format!("{layer}.output"))?,
            });
        }
        Ok(Forward {
            tier,
            positions: weights.vector("embeddings.position_embeddings.weight")?,
            token_type: weights.vector("embeddings.token_type_embeddings.weight")?[..DIMS].to_vec(),
            norm: NormWeights::read(&weights, "embeddings")?,
            weights,
            layers,
            panels: packer.panels,
            head_size,
            intermediate: config.intermediate,
            activation: match config.activation {
                config::Activation::Gelu => Activation::Gelu,
                config::Activation::GeluTanh => Activation::GeluTanh,
                config::Activation::Relu => Activation::Relu,
            },
            eps: config.layer_norm_eps as f32,
        })
    }

    /// Embeds the token ids of some texts: `[b]` lists of ids → `[b, 384]` unit vectors. The
    /// work inside each operation is shared among `threads` threads of the current pool; with one
    /// thread it is the caller's. `go_on` is asked before each operation, which is at most a few
    /// milliseconds of work.
    ///
    /// # Errors
    /// The first of `go_on`; [`Error::Internal`] for a result that is not finite.
    pub fn run(
        &self,
        texts: &[&[u32]],
        threads: usize,
        go_on: &mut dyn FnMut() -> Result<(), Error>,
    ) -> Result<Vec<[f32; DIMS]>, Error> {
        // Taken, not borrowed: while this thread waits for the others it may be given another
        // caller's block to run, which then has a workspace of its own. A panic in `go_on` costs it.
        let mut workspace = WORKSPACE.take();
        let lengths: Vec<usize> = texts.iter().map(|ids| ids.len()).collect();
        self.run_layers(texts, &lengths, threads, go_on, &mut workspace)?;
        let mut start = 0;
        let vectors = lengths
            .iter()
            .map(|length| {
                let states = &workspace.x[start * DIMS..(start + length) * DIMS];
                start += length;
                crate::model::pooling::mean_and_normalise(states)
            })
            .collect();
        WORKSPACE.set(workspace);
        vectors
    }

    fn run_layers(
        &self,
        texts: &[&[u32]],
        lengths: &[usize],
        threads: usize,
        go_on: &mut dyn FnMut() -> Result<(), Error>,
        workspace: &mut Workspace,
    ) -> Result<(), Error> {
        let rows: usize = lengths.iter().sum();
        let Workspace { x, qkv, context, inner } = workspace;
        x.resize(rows * DIMS, 0.0);
        qkv.resize(rows * 3 * DIMS, 0.0);
        context.resize(rows * DIMS, 0.0);
        inner.resize(rows * self.intermediate, 0.0);

        self.embed_tokens(texts, x)?;
        self.normalise(&self.norm, x, threads);
        for layer in &self.layers {
            go_on()?;
            self.linear(&layer.qkv, x, qkv, Activation::None, None, threads);
            go_on()?;
            self.attend(lengths, qkv, context, threads);
            go_on()?;
            // context is spent once multiplied, x once added: the sum goes into a third buffer and
            // they change places.
            let sum = &mut qkv[..rows * DIMS];
            self.linear(&layer.attention_out, context, sum, Activation::None, Some(x), threads);
            x.copy_from_slice(sum);
            self.normalise(&layer.attention_norm, x, threads);
            go_on()?;
            self.linear(&layer.up, x, inner, self.activation, None, threads);
            go_on()?;
            let sum = &mut qkv[..rows * DIMS];
            self.linear(&layer.down, inner, sum, Activation::None, Some(x), threads);
            x.copy_from_slice(sum);
            self.normalise(&layer.norm, x, threads);
        }
        go_on()
    }

    /// Word + position + type, before the normalisation.
    fn embed_tokens(&self, texts: &[&[u32]], x: &mut [f32]) -> Result<(), Error> {
        let tokens = texts.iter().flat_map(|ids| ids.iter().enumerate());
        for (row, (position, &id)) in x.as_chunks_mut::<DIMS>().0.iter_mut().zip(tokens) {
            self.weights.word(id, row)?;
            let place = &self.positions[position * DIMS..][..DIMS];
            for (i, value) in row.iter_mut().enumerate() {
                *value = *value + self.token_type[i] + place[i];
            }
        }
        Ok(())
    }

    /// The file the model was read from.
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.weights
    }

    fn linear(
        &self,
        weights: &LinearWeights,
        a: &[f32],
        out: &mut [f32],
        activation: Activation,
        residual: Option<&[f32]>,
        threads: usize,
    ) {
        let rows = a.len() / weights.k;
        assert_eq!(a.len(), rows * weights.k);
        assert_eq!(out.len(), rows * weights.n);
        assert!(residual.is_none_or(|residual| residual.len() == out.len()));
        let job = kernels::Linear {
            a: a.as_ptr(),
            k: weights.k,
            weight: self.panels.as_slice()[weights.panels.clone()].as_ptr(),
            bias: weights.bias.as_ptr(),
            n: weights.n,
            activation,
            residual: residual.map_or(std::ptr::null(), <[f32]>::as_ptr),
            out: out.as_mut_ptr(),
            rows: 0..rows,
            panels: 0..weights.n.div_ceil(self.tier.panel_width),
        };
        parallel::linear(self.tier, Shared(job), threads);
    }

    fn attend(&self, lengths: &[usize], qkv: &[f32], context: &mut [f32], threads: usize) {
        let rows: usize = lengths.iter().sum();
        assert_eq!(qkv.len(), rows * 3 * DIMS);
        assert_eq!(context.len(), rows * DIMS);
        let mut start = 0;
        let mut jobs = Vec::with_capacity(lengths.len());
        for &length in lengths {
            jobs.push(Shared(Attend {
                qkv: qkv[start * 3 * DIMS..].as_ptr(),
                out: context[start * DIMS..].as_mut_ptr(),
                length,
                hidden: DIMS,
                head_size: self.head_size,
                heads: 0..DIMS / self.head_size,
            }));
            start += length;
        }
        parallel::attend(self.tier, jobs, threads);
    }

    fn normalise(&self, weights: &NormWeights, x: &mut [f32], threads: usize) {
        let job = Norm {
            x: x.as_mut_ptr(),
            hidden: DIMS,
            weight: weights.weight.as_ptr(),
            bias: weights.bias.as_ptr(),
            eps: self.eps,
            rows: 0..x.len() / DIMS,
        };
        parallel::normalise(self.tier, Shared(job), threads);
    }
}

impl NormWeights {
    fn read(weights: &Checkpoint, name: &str) -> Result<NormWeights, Error> {
        Ok(NormWeights {
            weight: weights.vector(&format!("{name}.LayerNorm.weight"))?,
            bias: weights.vector(&format!("{name}.LayerNorm.bias"))?,
        })
    }
}

/// Fills the panels, layer by layer.
struct Packer {
    tier: Tier,
    panels: Words,
    packed: usize,
}

impl Packer {
    /// Packs `[n, k]` as panels, see [`kernels::Linear::weight`].
    fn pack(
        &mut self,
        weight: &[f32],
        mut bias: Vec<f32>,
        k: usize,
    ) -> Result<LinearWeights, Error> {
        let (n, width) = (bias.len(), self.tier.panel_width);
        assert_eq!(weight.len(), n * k);
        let panels = self.packed..self.packed + packed_words(n, k, self.tier);
        self.packed = panels.end;
        let to = self
            .panels
            .as_mut_slice()
            .get_mut(panels.clone())
            .ok_or_else(|| Error::internal("more weights than the configuration has"))?;
        let filled = match self.tier.precision {
            Precision::F32 => k,
            Precision::Bf16 => k / 2,
        };
        for (panel, to) in to.chunks_exact_mut((self.tier.words)(k) * width).enumerate() {
            let rows: Vec<&[f32]> =
                weight.chunks_exact(k).skip(panel * width).take(width).collect();
            for (i, to) in to.chunks_exact_mut(width).take(filled).enumerate() {
                for (to, row) in to.iter_mut().zip(&rows) {
                    *to = match self.tier.precision {
                        Precision::F32 => row[i].to_bits(),
                        Precision::Bf16 => pair(row[2 * i], row[2 * i + 1]),
                    };
                }
            }
        }
        bias.resize(n.next_multiple_of(width), 0.0);
        Ok(LinearWeights { panels, bias, n, k })
    }
}

/// Words of a matrix `[n, k]` in panels, what they are filled up with included.
fn packed_words(n: usize, k: usize, tier: Tier) -> usize {
    n.next_multiple_of(tier.panel_width) * (tier.words)(k)
}

/// Two bf16 in one 32-bit word, the first in the low half.
fn pair(first: f32, second: f32) -> u32 {
    // To nearest even, and to zero what has no normal number, as vcvtneps2bf16 does. Weights and
    // hidden states are finite, so NaN needs no care.
    let round = |value: f32| {
        let bits = if value.is_subnormal() { 0 } else { value.to_bits() };
        bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16
    };
    round(first) | round(second) << 16
}
