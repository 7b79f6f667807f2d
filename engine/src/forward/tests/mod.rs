//! Runs every kernel on buffers that are exactly as long as its job needs and end at a page that
//! cannot be accessed. The results are compared with plain loops in f64.

#![allow(clippy::unwrap_used)]

mod attend;
mod linear;
mod normalise;

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::entry::Kernels;
use super::guarded::Guarded;
use super::jobs::Activation;
use super::number::{Precision, pair};
use super::shared::{Shared, Values};
use super::tier::general;

/// Lengths around the tiles of every tier.
pub(super) const ROWS: [usize; 12] = [1, 2, 5, 8, 15, 16, 17, 31, 32, 33, 48, 97];

/// A value that marks places that a kernel must not write. It is a bf16 too.
pub(super) const UNTOUCHED: f32 = 776.0;

/// Numbers between -1 and 1, the same in each run.
pub(super) fn random(seed: u64, length: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 40) as f32 / (1 << 23) as f32) - 1.0
    };
    std::iter::repeat_with(next).take(length).collect()
}

/// A float rounded to bf16.
pub(super) fn rounded(value: f32) -> f32 {
    f32::from_bits(pair(value, 0.0) << 16)
}

/// The bits of a float as bf16.
pub(super) fn bf16(value: f32) -> u16 {
    pair(value, 0.0) as u16
}

/// The float of the bits of a bf16.
pub(super) fn float(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// Guarded memory for values in the format of a precision.
pub(super) struct GuardedValues {
    memory: Guarded,
    length: usize,
    precision: Precision,
}

impl GuardedValues {
    /// These values, rounded if the format is bf16.
    pub fn holding(precision: Precision, values: &[f32]) -> GuardedValues {
        let memory = match precision {
            Precision::F32 => Guarded::holding(values),
            Precision::Bf16 => {
                Guarded::holding(&values.iter().map(|&value| bf16(value)).collect::<Vec<u16>>())
            }
        };
        GuardedValues { memory, length: values.len(), precision }
    }

    /// The buffer, for a job.
    pub fn values(&mut self) -> Values<'_> {
        match self.precision {
            Precision::F32 => Values::F32(Shared::new(self.memory.last(self.length))),
            Precision::Bf16 => Values::Bf16(Shared::new(self.memory.last(self.length))),
        }
    }

    /// The values that the buffer has now.
    pub fn floats(&mut self) -> Vec<f32> {
        match self.precision {
            Precision::F32 => self.memory.last(self.length).to_vec(),
            Precision::Bf16 => {
                self.memory.last(self.length).iter().map(|&bits| float(bits)).collect()
            }
        }
    }
}

/// The kernels of every bf16 tier of this CPU that has row-major hidden states.
pub(super) fn general_in_bf16() -> impl Iterator<Item = (&'static str, Kernels)> {
    general().into_iter().filter(|(_, kernels)| kernels.form.precision == Precision::Bf16)
}

/// The sum of the products of two lists.
pub(super) fn dot(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
}

/// The activation in f64.
pub(super) fn activated(activation: Activation, x: f64) -> f64 {
    match activation {
        Activation::None => x,
        Activation::Gelu | Activation::GeluShort => x / 2.0 * (1.0 + erf(x / 2f64.sqrt())),
        Activation::GeluTanh => {
            let u = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x * x * x);
            x / 2.0 * (1.0 + u.tanh())
        }
        Activation::Relu => x.max(0.0),
    }
}

/// `erf(x)` by its series. From 4 on the series loses precision, and `erf(x)` is 1 to 1e-8 there.
pub(super) fn erf(x: f64) -> f64 {
    if x.abs() > 4.0 {
        return x.signum();
    }
    let (mut term, mut sum) = (x, x);
    for n in 1..200 {
        let n = f64::from(n);
        term *= -x * x / n;
        sum += term / (2.0 * n + 1.0);
    }
    sum * std::f64::consts::FRAC_2_SQRT_PI
}

/// `(x - mean) / sqrt(variance + eps)` in f64.
pub(super) fn standardised(row: &[f32], eps: f32) -> Vec<f64> {
    let count = row.len() as f64;
    let mean = row.iter().map(|&x| f64::from(x)).sum::<f64>() / count;
    let variance = row.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / count;
    row.iter().map(|&x| (f64::from(x) - mean) / (variance + f64::from(eps)).sqrt()).collect()
}

/// Asserts that a job panics.
pub(super) fn refuses(what: &str, job: impl FnOnce()) {
    assert!(catch_unwind(AssertUnwindSafe(job)).is_err(), "{what} is taken");
}

/// Asserts that two values are close to each other.
pub(super) fn near(found: f32, wanted: f64, tolerance: f64, place: impl std::fmt::Debug) {
    let distance = (f64::from(found) - wanted).abs();
    // A distance that is NaN fails too.
    assert!(distance <= tolerance, "{found} instead of {wanted} at {place:?}");
}

#[test]
#[cfg(target_os = "linux")]
fn nobody_may_touch_what_is_behind_guarded_memory() {
    let mut guarded = Guarded::holding(&[1.0_f32; 5]);
    let end = guarded.last::<f32>(5).as_ptr_range().end.addr();
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let behind = maps.lines().find(|line| line.starts_with(&format!("{end:x}-"))).unwrap();
    assert!(behind.contains("---p"), "{behind}");
}
