//! exp and GELU on vectors.

#![allow(unsafe_code)]

use super::simd::Simd;

/// `e^x` for `x <= 0`, to 1.2e-7 relative; 1.2e-38 below -87.3, where f32 has no smaller normal
/// number.
///
/// `x = n ln 2 + r` with `|r| <= ln 2 / 2`, then the Taylor polynomial of degree 7 (its remainder
/// is 5e-9 there) times `2^n`. ln 2 in two parts, so that `n ln 2` is exact (Cody and Waite).
///
/// # Safety
/// As [`Simd`].
#[inline(always)]
pub(super) unsafe fn exp_of_negative<V: Simd>(x: V) -> V {
    // SAFETY: the caller's word on the instruction set.
    unsafe {
        let x = x.max(V::splat(-87.3));
        // Adding and taking away 1.5 * 2^23 leaves the nearest whole number.
        let magic = V::splat(12_582_912.0);
        let n = x.mul_add(V::splat(std::f32::consts::LOG2_E), magic).sub(magic);
        let r = n.mul_add(V::splat(-0.693_359_4), x);
        let r = n.mul_add(V::splat(2.121_944_4e-4), r);
        let mut p = V::splat(1.0 / 5040.0);
        for coefficient in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
            p = p.mul_add(r, V::splat(coefficient));
        }
        p.mul(n.exp2_of_whole())
    }
}

/// `-ln(erfc(z)) / z` on 0 ≤ z ≤ 5 as a polynomial: a minimax fit made for this file, weighted by
/// what an error does to GELU, whose largest absolute error in f32 is then 2.5e-7 on [-8, 8].
const MINUS_LOG_ERFC: [f32; 9] = [
    -8.393_477e-6,
    1.095_153_9e-4,
    -6.021_182e-4,
    1.607_047e-3,
    -9.559_08e-5,
    -1.919_154e-2,
    1.027_895e-1,
    6.366_179e-1,
    std::f32::consts::FRAC_2_SQRT_PI,
];

/// GELU in its erf form, `x Φ(x)` with the normal distribution Φ.
///
/// `1 - Φ(|x|) = erfc(|x|/√2) / 2 = exp(-z g(z)) / 2` keeps its relative accuracy in the tail,
/// which `1 + erf` does not.
///
/// # Safety
/// As [`Simd`].
#[inline(always)]
pub(super) unsafe fn gelu<V: Simd>(x: V) -> V {
    // SAFETY: the caller's word on the instruction set.
    unsafe {
        let magnitude = x.max(V::splat(0.0).sub(x));
        let z = magnitude.mul(V::splat(std::f32::consts::FRAC_1_SQRT_2)).min(V::splat(5.0));
        let mut g = V::splat(MINUS_LOG_ERFC[0]);
        for coefficient in &MINUS_LOG_ERFC[1..] {
            g = g.mul_add(z, V::splat(*coefficient));
        }
        let tail = exp_of_negative(V::splat(0.0).sub(g.mul(z))).mul(V::splat(0.5));
        let lower = x.mul(tail);
        x.select_by_sign(x.sub(lower), lower)
    }
}

/// GELU by tanh, `x / (1 + e^(-2u))` with `u = √(2/π) (x + 0.044715 x³)`.
///
/// # Safety
/// As [`Simd`].
#[inline(always)]
pub(super) unsafe fn gelu_tanh<V: Simd>(x: V) -> V {
    // SAFETY: the caller's word on the instruction set.
    unsafe {
        let magnitude = x.max(V::splat(0.0).sub(x)).min(V::splat(10.0));
        let square = magnitude.mul(magnitude);
        let u = square.mul_add(V::splat(0.044_715), V::splat(1.0)).mul(magnitude);
        let e = exp_of_negative(u.mul(V::splat(-1.595_769)));
        // 1 - σ(2u) = e / (1 + e), without a division instruction in the trait.
        let tail = e.mul(reciprocal_of_one_to_two(e.add(V::splat(1.0))));
        let lower = x.mul(tail);
        x.select_by_sign(x.sub(lower), lower)
    }
}

/// `1 / y` for `1 <= y <= 2`: a line, then three Newton steps.
///
/// # Safety
/// As [`Simd`].
#[inline(always)]
unsafe fn reciprocal_of_one_to_two<V: Simd>(y: V) -> V {
    // SAFETY: the caller's word on the instruction set.
    unsafe {
        let mut r = y.mul_add(V::splat(-0.470_588_24), V::splat(1.411_764_7));
        for _ in 0..3 {
            let error = V::splat(0.0).sub(y).mul_add(r, V::splat(1.0));
            r = r.mul_add(error, r);
        }
        r
    }
}
