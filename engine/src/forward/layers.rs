//! The pass on row-major hidden states, for every tier but AMX.
//!
//! From 32 rows per thread on, each thread has rows of its own for everything but attention, which
//! reads the keys and values of all rows. This takes two barriers per layer. With fewer rows, most
//! of the time goes into reading the weights, so each thread has panels of them. This takes five
//! barriers.

#![allow(unsafe_code)]

use std::cell::RefCell;
use std::ops::Range;

use super::block::{Block, Embeddings};
use super::entry::Kernels;
use super::jobs::{Activation, Attend, Linear, Norm, Scratch};
use super::memory::{Arena, PanelMemory};
use super::number::Precision;
use super::panels::{LinearWeights, Packer};
use super::shared::{Shared, Values};
use crate::model::checkpoint::Checkpoint;
use crate::model::config::{self, ModelConfig};
use crate::model::pooling::{Pooling, mean_and_normalise};
use crate::schedule::team::{Crew, GoOn, Member};
use crate::{DIMS, Error};

/// From this many rows per thread on, rows are divided among the threads.
const ROWS_PER_THREAD: usize = 32;

/// Bytes of buffers that a thread keeps between calls. The buffers for a block of 512 rows take
/// 8 MB.
const KEPT_BYTES: usize = 16 << 20;

/// Rows of an operation between two calls of `go_on`. The portable kernels take 4 ms for a product
/// of this number of rows.
const ROWS_BETWEEN_QUESTIONS: usize = 128;

/// A packed model.
pub(super) struct GeneralPass {
    kernels: Kernels,
    norm: NormWeights,
    layers: Vec<Layer>,
    /// The panels of all layers.
    panels: PanelMemory,
    head_size: usize,
    intermediate: usize,
    activation: Activation,
    eps: f32,
    pooling: Pooling,
}

struct Layer {
    qkv: LinearWeights,
    attention_out: LinearWeights,
    attention_norm: NormWeights,
    up: LinearWeights,
    down: LinearWeights,
    norm: NormWeights,
}

struct NormWeights {
    weight: Vec<f32>,
    bias: Vec<f32>,
}

/// Hidden states of a block, and the intermediate results of a layer.
#[derive(Clone, Copy)]
struct States<'a> {
    rows: usize,
    by_rows: bool,
    /// One copy for each thread when panels are divided among the threads.
    x: Shared<'a, f32>,
    /// In a bf16 tier: `x` as the products read it, with as many copies.
    rounded: Option<Shared<'a, u16>>,
    sum: Shared<'a, f32>,
    qkv: Shared<'a, f32>,
    /// Only a product reads `context` and `inner`, so they are in the precision of the tier.
    context: Values<'a>,
    inner: Values<'a>,
}

thread_local! {
    // A pass allocates nothing once its thread has buffers from an earlier pass.
    static ARENA: RefCell<Arena> = RefCell::new(Arena::default());
    static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch::default());
}

impl GeneralPass {
    /// Packs the weights.
    pub fn new(
        config: &ModelConfig,
        checkpoint: &Checkpoint,
        kernels: Kernels,
    ) -> Result<GeneralPass, Error> {
        let head_size = DIMS / config.heads;
        let scale = 1.0 / (head_size as f32).sqrt();
        let mut layers = Vec::with_capacity(config.layers);
        // One buffer for the matrices of all layers. Fresh memory for each would cost a page fault
        // per 4 kB, which together takes as long as packing.
        let mut matrix = Vec::new();
        let shapes = [
            (3 * DIMS, DIMS),
            (DIMS, DIMS),
            (config.intermediate, DIMS),
            (DIMS, config.intermediate),
        ];
        let mut packer = Packer::new(kernels.form, config.layers, &shapes)?;
        for i in 0..config.layers {
            let layer = format!("encoder.layer.{i}");
            let mut bias = Vec::with_capacity(3 * DIMS);
            matrix.clear();
            for part in ["query", "key", "value"] {
                let name = format!("{layer}.attention.self.{part}");
                checkpoint.read(&format!("{name}.weight"), &mut matrix)?;
                checkpoint.read(&format!("{name}.bias"), &mut bias)?;
                if part == "query" {
                    matrix.iter_mut().chain(&mut bias).for_each(|value| *value *= scale);
                }
            }
            let qkv = packer.pack(&matrix, bias, DIMS)?;
            let mut linear = |name: &str, k: usize| -> Result<LinearWeights, Error> {
                matrix.clear();
                checkpoint.read(&format!("{layer}.{name}.weight"), &mut matrix)?;
                let bias = checkpoint.vector(&format!("{layer}.{name}.bias"))?;
                packer.pack(&matrix, bias, k)
            };
            let attention_norm = format!("{layer}.attention.output");
            layers.push(Layer {
                qkv,
                attention_out: linear("attention.output.dense", DIMS)?,
                up: linear("intermediate.dense", DIMS)?,
                down: linear("output.dense", config.intermediate)?,
                attention_norm: NormWeights::read(checkpoint, &attention_norm)?,
                norm: NormWeights::read(checkpoint, &format!("{layer}.output"))?,
            });
        }
        Ok(GeneralPass {
            kernels,
            norm: NormWeights::read(checkpoint, "embeddings")?,
            layers,
            panels: packer.finish(),
            head_size,
            intermediate: config.intermediate,
            activation: match config.activation {
                // In a bf16 tier, the next product rounds this result.
                config::Activation::Gelu if kernels.form.precision == Precision::Bf16 => {
                    Activation::GeluShort
                }
                config::Activation::Gelu => Activation::Gelu,
                config::Activation::GeluTanh => Activation::GeluTanh,
                config::Activation::Relu => Activation::Relu,
            },
            eps: config.layer_norm_eps as f32,
            pooling: config.pooling,
        })
    }

    /// As [`super::Forward::run`].
    pub fn run(
        &self,
        embeddings: &Embeddings,
        block: &Block,
        crew: &mut Crew,
        go_on: GoOn,
    ) -> Result<Vec<[f32; DIMS]>, Error> {
        // A panic in `go_on` loses the buffers, nothing else.
        let mut arena = ARENA.take();
        let rows = block.len();
        let by_rows = crew.members() == 1 || rows >= crew.members() * ROWS_PER_THREAD;
        let copies = if by_rows { 1 } else { crew.members() };
        let values = rows * DIMS;
        let inner = rows * self.intermediate;
        let precision = self.kernels.form.precision;
        let (bytes, rounded) = match precision {
            Precision::F32 => (4, None),
            Precision::Bf16 => (2, Some(values * copies)),
        };
        let mut carver = arena.reserve(&[
            4 * values * copies,
            2 * rounded.unwrap_or(0),
            4 * values,
            3 * 4 * values,
            bytes * values,
            bytes * inner,
        ])?;
        let states = States {
            rows,
            by_rows,
            x: carver.take(values * copies),
            rounded: rounded.map(|length| carver.take(length)),
            sum: carver.take(values),
            qkv: carver.take(3 * values),
            context: carver.take_values(precision, values),
            inner: carver.take_values(precision, inner),
        };
        crew.run(go_on, &|member| {
            let mut scratch = SCRATCH.take();
            let mut run = Run { pass: self, block, states, member, scratch: &mut scratch };
            run.layers(embeddings)?;
            if scratch.bytes() <= KEPT_BYTES {
                SCRATCH.set(scratch);
            }
            Ok(())
        })?;
        let vectors = block.rows.iter().map(|text| {
            let rows = self.pooling.rows(text);
            // SAFETY: the other threads have finished.
            mean_and_normalise(unsafe { states.x.read(rows.start * DIMS..rows.end * DIMS) })
        });
        let vectors = vectors.collect();
        if arena.bytes() <= KEPT_BYTES {
            ARENA.set(arena);
        }
        vectors
    }
}

/// The share of one thread in a pass.
struct Run<'a, 'b, 'm> {
    pass: &'a GeneralPass,
    block: &'a Block<'a>,
    states: States<'a>,
    member: &'b mut Member<'m>,
    scratch: &'b mut Scratch,
}

impl Run<'_, '_, '_> {
    /// The whole pass, on `x`.
    fn layers(&mut self, embeddings: &Embeddings) -> Result<(), Error> {
        let States { rows, by_rows, mut x, mut rounded, sum, qkv, context, inner } = self.states;
        // The rows of this thread. It has their hidden states in `x`.
        let own = if by_rows { self.rows_of(rows) } else { 0..rows };
        if !by_rows {
            let copy = self.member.index * rows * DIMS..(self.member.index + 1) * rows * DIMS;
            x = x.part(copy.clone());
            rounded = rounded.map(|rounded| rounded.part(copy));
        }
        let factors = rounded.map_or(Values::F32(x), Values::Bf16);
        let (qkv_out, sum_out) = (Values::F32(qkv), Values::F32(sum));
        embeddings.read(self.block, own.clone(), &mut |row, values| {
            // SAFETY: this row belongs to this thread.
            unsafe { row_of(x, row) }.copy_from_slice(values);
        })?;
        let pass = self.pass;
        self.normalise(&pass.norm, x, x, rounded, &own);
        for layer in &pass.layers {
            self.linear(&layer.qkv, factors, qkv_out, Activation::None, None, &own)?;
            self.member.meet()?;
            self.attend(qkv, context)?;
            self.member.meet()?;
            self.linear(&layer.attention_out, context, sum_out, Activation::None, Some(x), &own)?;
            self.meet_unless_by_rows()?;
            self.normalise(&layer.attention_norm, sum, x, rounded, &own);
            self.linear(&layer.up, factors, inner, pass.activation, None, &own)?;
            self.meet_unless_by_rows()?;
            self.linear(&layer.down, inner, sum_out, Activation::None, Some(x), &own)?;
            self.meet_unless_by_rows()?;
            self.normalise(&layer.norm, sum, x, rounded, &own);
        }
        self.member.ask()
    }

    /// A share of the rows, in whole register tiles.
    fn rows_of(&self, rows: usize) -> Range<usize> {
        let unit = self.pass.kernels.tile_rows;
        let share = self.member.share(rows.div_ceil(unit));
        share.start * unit..(share.end * unit).min(rows)
    }

    fn meet_unless_by_rows(&mut self) -> Result<(), Error> {
        if self.states.by_rows { Ok(()) } else { self.member.meet() }
    }

    fn linear(
        &mut self,
        weights: &LinearWeights,
        a: Values,
        out: Values,
        activation: Activation,
        residual: Option<Shared<f32>>,
        rows: &Range<usize>,
    ) -> Result<(), Error> {
        let kernels = &self.pass.kernels;
        let panels = &self.pass.panels.as_slice()[weights.panels.clone()];
        let all = weights.n.div_ceil(kernels.form.width);
        let own = if self.states.by_rows { 0..all } else { self.member.share(all) };
        let (k, rows) = (weights.k, rows.clone());
        // All rows are multiplied with a panel while it is in the cache. With many rows, `go_on` is
        // called after each panel.
        let step = (ROWS_BETWEEN_QUESTIONS * own.len()).div_ceil(rows.len().max(1)).max(1);
        let mut job =
            Linear { a, k, weights, panels, activation, residual, out, rows, columns: 0..0 };
        for first in own.clone().step_by(step) {
            self.member.ask()?;
            job.columns = first..(first + step).min(own.end);
            // SAFETY: the tier was detected on this CPU. The rows or the panels belong to this
            // thread. All that the kernel reads was written before the last barrier or by this
            // thread.
            unsafe { (kernels.linear)(&job) };
        }
        Ok(())
    }

    /// Each thread has some heads of each text.
    fn attend(&mut self, qkv: Shared<f32>, out: Values) -> Result<(), Error> {
        let head_size = self.pass.head_size;
        let heads = self.member.share(DIMS / head_size);
        for rows in &self.block.rows {
            // One head at a time if a head takes long.
            let together = if rows.len() > ROWS_BETWEEN_QUESTIONS { 1 } else { heads.len().max(1) };
            for first in heads.clone().step_by(together) {
                self.member.ask()?;
                let heads = first..(first + together).min(heads.end);
                let job = Attend { qkv, out, rows: rows.clone(), head_size, heads };
                // SAFETY: the tier was detected on this CPU. `qkv` was written before the last
                // barrier, and these heads belong to this thread.
                unsafe { (self.pass.kernels.attend)(&job, self.scratch) }?;
            }
        }
        Ok(())
    }

    fn normalise(
        &self,
        weights: &NormWeights,
        from: Shared<f32>,
        to: Shared<f32>,
        rounded: Option<Shared<u16>>,
        rows: &Range<usize>,
    ) {
        let (weight, bias, eps) = (&weights.weight, &weights.bias, self.pass.eps);
        let job = Norm { from, to, rounded, weight, bias, eps, rows: rows.clone() };
        // SAFETY: the tier was detected on this CPU. These rows of `to` and `rounded` belong to this
        // thread, and `from` was written by this thread or before the last barrier.
        unsafe { (self.pass.kernels.normalise)(&job) }
    }
}

/// A row of hidden states.
///
/// # Safety
/// As [`Shared::write`].
unsafe fn row_of<'a>(x: Shared<'a, f32>, row: usize) -> &'a mut [f32] {
    // SAFETY: the caller guarantees it.
    unsafe { x.write(row * DIMS..(row + 1) * DIMS) }
}

impl NormWeights {
    fn read(checkpoint: &Checkpoint, name: &str) -> Result<NormWeights, Error> {
        Ok(NormWeights {
            weight: checkpoint.vector(&format!("{name}.LayerNorm.weight"))?,
            bias: checkpoint.vector(&format!("{name}.LayerNorm.bias"))?,
        })
    }
}
