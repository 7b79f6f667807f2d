//! Products of activations with panels.

use std::ops::Range;

use super::{ROWS, in_activations, in_stream, tiles};
use crate::DIMS;
use crate::forward::amx::activate::{Activate, Gelu, GeluTanh, Plain, Relu};
use crate::forward::amx::layout::{BLOCK, BLOCK_VALUES, PANEL_WORDS, SQUARE, TILE};
use crate::forward::amx::product::{self, Product, TileSums};
use crate::forward::guarded::Guarded;
use crate::forward::jobs::Activation;
use crate::forward::number::pair;
use crate::forward::shared::Shared;
use crate::forward::tests::{
    UNTOUCHED, activated, bf16, dot, float, near, random, refuses, rounded,
};

const UNTOUCHED_HALF: u16 = 0x1234;

/// Panels of queries, keys and values, the largest number of a product.
const PANELS: usize = 36;

/// Values or words by which each buffer is too short. They fill a cache line.
#[derive(Clone, Copy, Default)]
struct Missing {
    a: usize,
    weights: usize,
    bias: usize,
    out: usize,
}

/// Factors of a product, and the product in f64.
struct Case {
    /// Activations, with NaN in missing rows.
    a: Vec<u16>,
    weights: Vec<u32>,
    bias: Vec<f32>,
    rows: usize,
    sums: Vec<f64>,
}

impl Case {
    fn new(rows: usize) -> Case {
        let round = |values: Vec<f32>| -> Vec<f32> { values.into_iter().map(rounded).collect() };
        let (a, weight) =
            (round(random(11, rows * DIMS)), round(random(12, PANELS * BLOCK * DIMS)));
        let mut activations = vec![bf16(f32::NAN); rows.div_ceil(BLOCK) * BLOCK_VALUES];
        for (i, &value) in a.iter().enumerate() {
            activations[in_activations(i / DIMS, i % DIMS)] = bf16(value);
        }
        let mut weights = vec![0; PANELS * PANEL_WORDS];
        for (column, weight) in weight.chunks_exact(DIMS).enumerate() {
            for (k, pairs) in weight.as_chunks::<2>().0.iter().enumerate() {
                let (step, k, tile) = (k / TILE, k % TILE, column % BLOCK / TILE);
                let place = column / BLOCK * PANEL_WORDS + (step * 2 + tile) * TILE * TILE;
                weights[place + k * TILE + column % TILE] = pair(pairs[0], pairs[1]);
            }
        }
        let sums = a.chunks_exact(DIMS).flat_map(|a| weight.chunks_exact(DIMS).map(|w| dot(a, w)));
        let sums = sums.collect();
        Case { a: activations, weights, bias: random(13, PANELS * BLOCK), rows, sums }
    }

    fn blocks(&self) -> usize {
        self.rows.div_ceil(BLOCK)
    }

    /// Calls `run` with a product of these panels and with the biases. The product starts at the
    /// second block if there is one.
    fn with(&self, panels: Range<usize>, missing: Missing, run: &mut dyn FnMut(&Product, &[f32])) {
        let words = panels.end * PANEL_WORDS - missing.weights;
        let biases = panels.end * BLOCK - missing.bias;
        let values = self.a.len() - missing.a;
        let mut weights = Guarded::holding(&self.weights[..words]);
        let mut bias = Guarded::holding(&self.bias[..biases]);
        let mut a = Guarded::holding(&self.a[..values]);
        let job = Product {
            a: Shared::new(a.last(values)),
            blocks: self.first_block()..self.blocks(),
            half: (self.rows - 1) % BLOCK < TILE,
            weights: weights.last(words),
            panels,
        };
        run(&job, bias.last(biases));
    }

    fn first_block(&self) -> usize {
        usize::from(self.rows > 2 * BLOCK)
    }

    /// Rows of the product.
    fn product_rows(&self) -> Range<usize> {
        self.first_block() * BLOCK..self.rows
    }

    fn activations<A: Activate>(&self, panels: Range<usize>, missing: Missing) -> Vec<u16> {
        let first = panels.start;
        let place = |panel: usize, block: usize| block * BLOCK_VALUES + (panel - first) * SQUARE;
        let length = place(panels.end - 1, self.blocks() - 1) + SQUARE - missing.out;
        let mut out = Guarded::holding(&vec![UNTOUCHED_HALF; length]);
        let shared = Shared::new(out.last(length));
        self.with(panels, missing, &mut |job, bias| {
            // SAFETY: the tiles are configured; no other thread uses the buffers.
            unsafe {
                product::to_activations::<A>(job, bias, shared, place, &mut TileSums::default());
            }
        });
        out.last::<u16>(length).to_vec()
    }

    fn stream(&self, panels: Range<usize>, missing: Missing) -> Vec<f32> {
        let length = (self.blocks() - 1) * BLOCK_VALUES + panels.end * SQUARE - missing.out;
        let mut out = Guarded::holding(&vec![UNTOUCHED; length]);
        let shared = Shared::new(out.last(length));
        self.with(panels, missing, &mut |job, _| {
            // SAFETY: as above.
            unsafe { product::to_stream(job, shared) };
        });
        out.last::<f32>(length).to_vec()
    }

    fn rows(&self, panels: Range<usize>, columns: usize, missing: Missing) -> Vec<f32> {
        let length = (self.blocks() * BLOCK - 1) * columns + panels.end * BLOCK - missing.out;
        let mut out = Guarded::holding(&vec![UNTOUCHED; length]);
        let shared = Shared::new(out.last(length));
        self.with(panels, missing, &mut |job, bias| {
            // SAFETY: as above.
            unsafe { product::to_rows(job, bias, shared, columns, &mut TileSums::default()) };
        });
        out.last::<f32>(length).to_vec()
    }

    /// Compares activations of 12 panels from `first` on.
    fn compare<A: Activate>(&self, panels: Range<usize>, activation: Activation) {
        let out = self.activations::<A>(panels.clone(), Missing::default());
        for row in self.product_rows() {
            for column in 0..panels.len() * BLOCK {
                let found = float(out[in_activations(row, column)]);
                let place = panels.start * BLOCK + column;
                let sum = self.sums[row * PANELS * BLOCK + place] + f64::from(self.bias[place]);
                let wanted = activated(activation, sum);
                // Half a unit of bf16, plus the error of gelu_short and of the sum in f32.
                let tolerance = wanted.abs() / 256.0 + 2.5e-4;
                near(found, wanted, tolerance, (self.rows, row, column, activation));
            }
        }
        let before = self.first_block() * BLOCK_VALUES;
        assert!(out[..before].iter().all(|&half| half == UNTOUCHED_HALF));
    }
}

#[test]
fn products_stay_inside_their_buffers_and_are_right() {
    let Some(_tiles) = tiles() else { return };
    let none = Missing::default();
    for rows in ROWS {
        let case = Case::new(rows);
        case.compare::<Plain>(0..12, Activation::None);
        case.compare::<Plain>(33..36, Activation::None);
        case.compare::<Gelu>(0..12, Activation::Gelu);
        case.compare::<GeluTanh>(1..2, Activation::GeluTanh);
        case.compare::<Relu>(7..12, Activation::Relu);

        for panels in [0..12, 3..4, 5..12] {
            let out = case.stream(panels.clone(), none);
            for (i, value) in case.sums.iter().enumerate() {
                let (row, column) = (i / (PANELS * BLOCK), i % (PANELS * BLOCK));
                let ours = case.product_rows().contains(&row) && panels.contains(&(column / BLOCK));
                if column < DIMS && (ours || in_stream(row, column) < out.len()) {
                    let wanted = f64::from(UNTOUCHED) + if ours { *value } else { 0.0 };
                    let tolerance = if ours { 2e-3 } else { 0.0 };
                    near(out[in_stream(row, column)], wanted, tolerance, (rows, row, column));
                }
            }
            // The rows of a missing tile.
            for row in rows.next_multiple_of(TILE)..rows.next_multiple_of(BLOCK) {
                for column in panels.start * BLOCK..panels.end * BLOCK {
                    assert_eq!(out[in_stream(row, column)], UNTOUCHED, "{rows}, {row}, {column}");
                }
            }
        }

        for (panels, columns) in [(0..PANELS, 3 * DIMS), (9..12, DIMS), (35..36, 3 * DIMS)] {
            let out = case.rows(panels.clone(), columns, none);
            for (i, &found) in out.iter().enumerate().take(rows * columns) {
                let (row, column) = (i / columns, i % columns);
                let ours = case.product_rows().contains(&row) && panels.contains(&(column / BLOCK));
                let sum = case.sums[row * PANELS * BLOCK + column] + f64::from(case.bias[column]);
                let (wanted, tolerance) = if ours { (sum, 1e-4) } else { (UNTOUCHED.into(), 0.0) };
                near(found, wanted, tolerance, (rows, row, column));
            }
        }
    }
}

#[test]
fn a_product_that_is_too_large_for_a_buffer_is_refused() {
    let Some(_tiles) = tiles() else { return };
    let none = Missing::default();
    for rows in [16, 33, 64] {
        let case = Case::new(rows);
        for (name, missing) in [
            ("a", Missing { a: 32, ..none }),
            ("weights", Missing { weights: 16, ..none }),
            ("bias", Missing { bias: 16, ..none }),
            ("out", Missing { out: 32, ..none }),
        ] {
            refuses(&format!("activations: {name}"), || {
                case.activations::<Gelu>(0..12, missing);
            });
            if missing.bias == 0 {
                refuses(&format!("stream: {name}"), || {
                    case.stream(0..12, missing);
                });
            }
            refuses(&format!("rows: {name}"), || {
                case.rows(0..12, DIMS, missing);
            });
        }
    }
}
