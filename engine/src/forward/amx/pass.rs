//! A pass from token ids to vectors.
//!
//! From 32 rows per thread on, each thread has whole blocks of rows. Only attention reads the rows
//! of other threads. So one barrier per layer is enough if the keys and values of two layers use
//! two buffers in turn. With fewer rows, each thread has heads, and panels of everything else, with
//! four barriers.
//!
//! From 128 rows on, a single thread runs the product of queries, keys and values and the attention
//! head by head. Queries, keys and values then never leave the cache.

#![allow(unsafe_code)]

use std::cell::RefCell;
use std::ops::Range;

use super::activate::{Gelu, GeluTanh, Plain, Relu};
use super::attention;
use super::items::Attention;
use super::layout::{BLOCK, BLOCK_VALUES, HEAD, PANELS, SQUARE, TILE};
use super::product::{self, Product};
use super::rows::{self, Norm};
use super::tile::Tiles;
use super::weights::{QKV_PANELS, TileWeights};
use crate::forward::block::{Block, Embeddings};
use crate::forward::entry::avx512;
use crate::forward::jobs::{self, Attend};
use crate::forward::memory::Arena;
use crate::forward::shared::{Shared, Values};

use crate::model::checkpoint::Checkpoint;
use crate::model::config::{Activation, ModelConfig};
use crate::model::pooling::{Mean, Pooling};
use crate::schedule::team::{Crew, GoOn, Member};
use crate::{DIMS, Error};

/// From this many rows per thread on, blocks of rows are divided among the threads.
const ROWS_PER_THREAD: usize = 32;

/// From this many rows on, a single thread runs attention head by head.
const HEAD_BY_HEAD: usize = 128;

/// Bytes of buffers that a thread keeps between calls. The buffers for a block of 512 rows take
/// 5 MB.
const KEPT_BYTES: usize = 12 << 20;

/// A packed model.
pub(in crate::forward) struct AmxPass {
    weights: TileWeights,
    heads: usize,
    activation: Activation,
    pooling: Pooling,
}

/// Hidden states of a block, and the intermediate results of a layer.
#[derive(Clone, Copy)]
struct States<'a> {
    by_rows: bool,
    /// The residual stream, and the output of a normalisation. Both are the same place when rows
    /// are divided among the threads. Otherwise they differ, because all threads read the whole
    /// stream.
    streams: [Shared<'a, f32>; 2],
    /// Rounded hidden states, which products read. When panels are divided among the threads, each
    /// thread has a copy.
    activations: Shared<'a, u16>,
    /// Two buffers that are used in turn, or one twice.
    qkv: [Qkv<'a>; 2],
    context: Shared<'a, u16>,
    /// 384 columns of the intermediate size; all columns when panels are divided among the threads.
    inner: Shared<'a, u16>,
    row_major: Option<RowMajor<'a>>,
}

/// Queries, keys and values, bf16 `[head][row][32]`.
#[derive(Clone, Copy)]
struct Qkv<'a> {
    all: Shared<'a, u16>,
    /// Number of values of the queries, which is also that of the keys and that of the values.
    part: usize,
    head_stride: usize,
}

/// Buffers for heads of another size than 32: their attention runs in f32, on row-major data.
#[derive(Clone, Copy)]
struct RowMajor<'a> {
    qkv: Shared<'a, f32>,
    context: Shared<'a, f32>,
}

/// The own buffers of a thread.
#[derive(Default)]
struct Own {
    sums: product::TileSums,
    attention: attention::Workspace,
    kernels: jobs::Scratch,
}

thread_local! {
    // A pass allocates nothing once its thread has buffers from an earlier pass.
    static ARENA: RefCell<Arena> = RefCell::new(Arena::default());
    static OWN: RefCell<Option<Box<Own>>> = const { RefCell::new(None) };
}

impl AmxPass {
    /// Packs the weights.
    ///
    /// # Errors
    /// As [`TileWeights::new`].
    pub fn new(config: &ModelConfig, checkpoint: &Checkpoint) -> Result<AmxPass, Error> {
        let weights = TileWeights::new(config, checkpoint)?;
        let ModelConfig { heads, activation, pooling, .. } = *config;
        Ok(AmxPass { weights, heads, activation, pooling })
    }

    /// As [`crate::forward::Forward::run`].
    pub fn run(
        &self,
        embeddings: &Embeddings,
        block: &Block,
        crew: &mut Crew,
        go_on: GoOn,
    ) -> Result<Vec<[f32; DIMS]>, Error> {
        // A panic in `go_on` loses the buffers, nothing else.
        let mut arena = ARENA.take();
        let states = self.prepare(&mut arena, block.len(), crew.members())?;
        crew.run(go_on, &|member| {
            let mut own = OWN.take().unwrap_or_default();
            // SAFETY: the tier is chosen only if the tiles are available and permitted.
            let tiles = unsafe { Tiles::configure() };
            Run::new(self, block, states, member, &mut own, &tiles).layers(embeddings)?;
            if own.bytes() <= KEPT_BYTES {
                OWN.set(Some(own));
            }
            Ok(())
        })?;
        let stream = states.streams[0];
        let vectors = block.rows.iter().map(|text| {
            let (mut mean, mut values) = (Mean::new(), [0.0; DIMS]);
            for row in self.pooling.rows(text) {
                // SAFETY: the other threads have finished.
                unsafe { rows::read_row(stream, row, &mut values) };
                mean.add(&values);
            }
            mean.normalise()
        });
        let vectors = vectors.collect();
        if arena.bytes() <= KEPT_BYTES {
            ARENA.set(arena);
        }
        vectors
    }

    /// Buffers for this number of rows and threads.
    fn prepare<'a>(
        &self,
        arena: &'a mut Arena,
        rows: usize,
        members: usize,
    ) -> Result<States<'a>, Error> {
        let by_rows = members == 1 || rows >= members * ROWS_PER_THREAD;
        let values = rows.next_multiple_of(BLOCK) * DIMS;
        let copies = if by_rows { 1 } else { members };
        let parts = if by_rows { 1 } else { self.weights.parts };
        let second = if by_rows { 0 } else { values };
        let on_tiles = self.heads == PANELS;
        // A text may start at any row, and its queries are read 16 at a time.
        let head_stride = if on_tiles { (rows.next_multiple_of(BLOCK) + TILE) * HEAD } else { 0 };
        let part = PANELS * head_stride;
        let turns = if members > 1 && by_rows { 2 } else { 1 };
        let qkv = 3 * part * turns;
        let row_major = if on_tiles { 0 } else { values };
        let mut carver = arena.reserve(&[
            4 * values,
            4 * second,
            2 * values * copies,
            2 * values,
            2 * values * parts,
            2 * qkv,
            3 * 4 * row_major,
            4 * row_major,
        ])?;
        let (stream, other) = (carver.take(values), carver.take(second));
        let streams = [stream, if by_rows { stream } else { other }];
        let activations = carver.take(values * copies);
        let context = carver.take(values);
        let inner = carver.take(values * parts);
        let all: Shared<u16> = carver.take(qkv);
        let qkv = [0, turns - 1].map(|turn| {
            let all = all.part(3 * turn * part..3 * (turn + 1) * part);
            Qkv { all, part, head_stride }
        });
        let (qkv_rows, context_rows) = (carver.take(3 * row_major), carver.take(row_major));
        let row_major = RowMajor { qkv: qkv_rows, context: context_rows };
        let row_major = if on_tiles { None } else { Some(row_major) };
        Ok(States { by_rows, streams, activations, qkv, context, inner, row_major })
    }
}

impl Own {
    fn bytes(&self) -> usize {
        self.attention.bytes() + self.kernels.bytes()
    }
}

/// The share of one thread in a pass.
struct Run<'a, 'b, 'm> {
    pass: &'a AmxPass,
    block: &'a Block<'a>,
    states: States<'a>,
    member: &'b mut Member<'m>,
    own: &'b mut Own,
    tiles: &'b Tiles,
    /// Blocks of rows of this thread, and their rows.
    blocks: Range<usize>,
    rows: Range<usize>,
    /// The last block has at most 16 rows.
    half: bool,
    /// Panels of 12, and heads.
    panels: Range<usize>,
    /// This thread's copy of the rounded hidden states.
    activations: Shared<'a, u16>,
}

impl<'a, 'b, 'm> Run<'a, 'b, 'm> {
    fn new(
        pass: &'a AmxPass,
        block: &'a Block<'a>,
        states: States<'a>,
        member: &'b mut Member<'m>,
        own: &'b mut Own,
        tiles: &'b Tiles,
    ) -> Run<'a, 'b, 'm> {
        let rows = block.len();
        let all = rows.div_ceil(BLOCK);
        let (blocks, panels) = match states.by_rows {
            true => (member.share(all), 0..PANELS),
            false => (0..all, member.share(PANELS)),
        };
        let copy = if states.by_rows { 0 } else { member.index };
        let values = all * BLOCK_VALUES;
        Run {
            pass,
            block,
            states,
            own,
            tiles,
            rows: blocks.start * BLOCK..(blocks.end * BLOCK).min(rows),
            half: blocks.end == all && (rows - 1) % BLOCK < TILE,
            blocks,
            panels,
            activations: states.activations.part(copy * values..(copy + 1) * values),
            member,
        }
    }

    /// The whole pass; the hidden states of the last layer are in the first stream.
    fn layers(&mut self, embeddings: &Embeddings) -> Result<(), Error> {
        let weights = &self.pass.weights;
        let [x, y] = self.states.streams;
        let rows = self.rows_of_its_own();
        embeddings.read(self.block, rows, &mut |row, values| {
            // SAFETY: this row belongs to this thread.
            unsafe { rows::write_row(values, y, row) };
        })?;
        self.meet_unless_by_rows()?;
        self.normalise(&weights.embedding_norm, y, x, self.panels.clone());
        for (i, layer) in weights.layers.iter().enumerate() {
            self.attend(i)?;
            self.meet_unless_by_rows()?;
            self.to_stream(self.states.context, weights.output(i), x);
            self.meet_unless_by_rows()?;
            self.ask()?;
            self.normalise(&layer.attention_norm, x, y, self.panels.clone());
            self.feed_forward(i, y)?;
            self.meet_unless_by_rows()?;
            let last = i + 1 == weights.layers.len();
            // When panels are divided among the threads, the calling thread needs all hidden states
            // of the last layer.
            let keep = if last { 0..PANELS } else { self.panels.clone() };
            if !last || self.states.by_rows || self.member.index == 0 {
                self.normalise(&layer.norm, y, x, keep);
            }
        }
        self.ask()
    }

    /// Rows that no other thread has, also when panels are divided among the threads.
    fn rows_of_its_own(&self) -> Range<usize> {
        match self.states.by_rows {
            true => self.rows.clone(),
            false => self.member.share(self.block.len()),
        }
    }

    /// Waits for the other threads. The calling thread calls `go_on` while it waits.
    fn meet(&mut self) -> Result<(), Error> {
        self.member.meet()?;
        self.reconfigure();
        Ok(())
    }

    fn meet_unless_by_rows(&mut self) -> Result<(), Error> {
        if self.states.by_rows { Ok(()) } else { self.meet() }
    }

    /// Calls `go_on`, see [`Member::ask`].
    fn ask(&mut self) -> Result<(), Error> {
        self.member.ask()?;
        self.reconfigure();
        Ok(())
    }

    /// Configures the tiles again, because `go_on` may have used them. No tile holds data at this
    /// point.
    fn reconfigure(&self) {
        if self.member.index == 0 {
            self.tiles.again();
        }
    }

    fn product(&self, a: Shared<'a, u16>, weights: &'a [u32]) -> Product<'a> {
        let (blocks, panels) = (self.blocks.clone(), self.panels.clone());
        Product { a, blocks, half: self.half, weights, panels }
    }

    fn normalise(&self, norm: &Norm, from: Shared<f32>, to: Shared<f32>, keep: Range<usize>) {
        // SAFETY: the CPU has the instructions. The rows of `from` were written by this thread or
        // before the last barrier. The rows, or the panels, and the activations belong to this
        // thread.
        unsafe { rows::normalise(norm, from, to, self.activations, self.rows.clone(), keep) };
    }

    fn to_stream(&self, a: Shared<'a, u16>, weights: &'a [u32], x: Shared<f32>) {
        // SAFETY: the tiles are configured. `a` was written by this thread or before the last
        // barrier. The blocks or the panels of the stream belong to this thread.
        unsafe { product::to_stream(&self.product(a, weights), x) };
    }

    /// Queries, keys and values, and the attention.
    fn attend(&mut self, i: usize) -> Result<(), Error> {
        if let Some(row_major) = self.states.row_major {
            return self.attend_on_rows(i, row_major);
        }
        let rows = self.block.len();
        if self.member.members == 1 && rows >= HEAD_BY_HEAD {
            for head in 0..PANELS {
                self.ask()?;
                self.attend_heads(i, head..head + 1, true)?;
            }
            Ok(())
        } else {
            self.ask()?;
            self.attend_heads(i, self.panels.clone(), false)
        }
    }

    /// Heads of 32 columns. With `in_place`, all heads use the same place for queries, keys and
    /// values.
    fn attend_heads(&mut self, i: usize, heads: Range<usize>, in_place: bool) -> Result<(), Error> {
        let weights = &self.pass.weights;
        let Qkv { all, part, head_stride } = self.states.qkv[i % 2];
        let head_stride = if in_place { 0 } else { head_stride };
        let product = Product {
            panels: 3 * heads.start..3 * heads.end,
            ..self.product(self.activations, weights.qkv(i))
        };
        let bias = weights.layers[i].qkv_bias.as_slice();
        let place = |panel: usize, block: usize| {
            panel % 3 * part + panel / 3 * head_stride + block * SQUARE
        };
        // SAFETY: the tiles are configured. The rounded hidden states belong to this thread, and so
        // do the rows or the heads of queries, keys and values.
        unsafe {
            product::to_activations::<Plain>(&product, bias, all, place, &mut self.own.sums);
        }
        if self.states.by_rows {
            self.meet()?;
            self.ask()?;
        }
        let job = Attention {
            queries: all.part(0..part),
            keys: all.part(part..2 * part),
            values: all.part(2 * part..3 * part),
            head_stride,
            context: self.states.context,
            texts: &self.block.rows,
            heads,
            rows: self.rows.clone(),
        };
        // SAFETY: the tiles are configured. Queries, keys and values were written by this thread or
        // before the last barrier. These rows and heads of the context belong to this thread. The
        // next layer writes its queries, keys and values elsewhere, and the layer after that writes
        // after the next barrier.
        unsafe { attention::attend(&job, &mut self.own.attention) }
    }

    /// Heads of any other size, in f32.
    fn attend_on_rows(&mut self, i: usize, row_major: RowMajor) -> Result<(), Error> {
        let weights = &self.pass.weights;
        let panels = match self.states.by_rows {
            true => 0..QKV_PANELS,
            false => self.member.share(QKV_PANELS),
        };
        let product = Product { panels, ..self.product(self.activations, weights.qkv(i)) };
        let bias = weights.layers[i].qkv_bias.as_slice();
        self.ask()?;
        let sums = &mut self.own.sums;
        // SAFETY: as in `attend_heads`. Heads are divided among the threads between two barriers.
        unsafe { product::to_rows(&product, bias, row_major.qkv, 3 * DIMS, sums) };
        self.meet()?;
        let head_size = DIMS / self.pass.heads;
        for text in &self.block.rows {
            for head in self.member.share(self.pass.heads) {
                self.ask()?;
                let job = Attend {
                    qkv: row_major.qkv,
                    out: Values::F32(row_major.context),
                    rows: text.clone(),
                    head_size,
                    heads: head..head + 1,
                };
                // SAFETY: as above; every CPU with the tiles has AVX-512.
                unsafe { avx512::attend(&job, &mut self.own.kernels) }?;
            }
        }
        self.meet()?;
        let rows = self.rows_of_its_own();
        // SAFETY: the context was written before the last barrier, and these rows of the rounded
        // context belong to this thread.
        unsafe { rows::round_rows(row_major.context, self.states.context, rows) };
        Ok(())
    }

    /// The feed-forward part, 384 columns of the intermediate size at a time.
    fn feed_forward(&mut self, i: usize, y: Shared<f32>) -> Result<(), Error> {
        let weights = &self.pass.weights;
        let bias = weights.layers[i].up_bias.as_slice();
        let values = self.block.len().next_multiple_of(BLOCK) * DIMS;
        for part in 0..weights.parts {
            self.ask()?;
            let bias = &bias[part * DIMS..][..DIMS];
            // Rows of this thread stay in the cache. When panels are divided among the threads, the
            // next product needs the columns of all threads.
            let inner = match self.states.by_rows {
                true => self.states.inner,
                false => self.states.inner.part(part * values..(part + 1) * values),
            };
            self.activate(weights.up(i, part), bias, inner);
            if self.states.by_rows {
                self.to_stream(inner, weights.down(i, part), y);
            }
        }
        if !self.states.by_rows {
            self.meet()?;
            for part in 0..weights.parts {
                let inner = self.states.inner.part(part * values..(part + 1) * values);
                self.to_stream(inner, weights.down(i, part), y);
            }
        }
        Ok(())
    }

    fn activate(&mut self, weights: &'a [u32], bias: &[f32], inner: Shared<u16>) {
        let product = self.product(self.activations, weights);
        let place = |panel: usize, block: usize| block * BLOCK_VALUES + panel * SQUARE;
        let sums = &mut self.own.sums;
        // SAFETY: the tiles are configured. The rounded hidden states belong to this thread, and so
        // do the blocks or the panels of `inner`.
        unsafe {
            match self.pass.activation {
                Activation::Gelu => {
                    product::to_activations::<Gelu>(&product, bias, inner, place, sums);
                }
                Activation::GeluTanh => {
                    product::to_activations::<GeluTanh>(&product, bias, inner, place, sums);
                }
                Activation::Relu => {
                    product::to_activations::<Relu>(&product, bias, inner, place, sums);
                }
            }
        }
    }
}
