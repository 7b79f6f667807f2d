//! exp and GELU on vectors: precise to the last bits of f32, and short versions for results that
//! are rounded to bf16.

#![allow(unsafe_code)]

use super::simd::Simd;

/// `e^x` for `x <= 0`, with a relative error of 1.2e-7. Below -87.3 it is 1.2e-38, because f32 has
/// no smaller normal number.
///
/// `x = n ln 2 + r` with `|r| <= ln 2 / 2`, then the Taylor polynomial of degree 7 (its remainder
/// is 5e-9 there) times `2^n`. ln 2 is split into two parts, so that `n ln 2` is exact (Cody and
/// Waite).
///
/// # Safety
/// As [`Simd`].
#[inline(always)]
pub(super) unsafe fn exp_of_negative<V: Simd>(x: V) -> V {
    // SAFETY: the caller guarantees the instruction set.
    unsafe {
        // `max` returns its second operand when one operand is NaN, so NaN stays NaN.
        let x = V::splat(-87.3).max(x);
        // Adding and subtracting 1.5 * 2^23 rounds to the nearest whole number.
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

/// `-ln(erfc(z)) / z` on 0 ≤ z ≤ 5 as a polynomial. It is a minimax fit made for this file,
/// weighted by the effect of an error on GELU. The largest absolute error of GELU in f32 is then
/// 2.5e-7 on [-8, 8].
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

/// GELU in its erf form, `x Φ(x)` with the distribution function Φ of the normal distribution.
///
/// `1 - Φ(|x|) = erfc(|x|/√2) / 2 = exp(-z g(z)) / 2` keeps its relative accuracy in the tail;
/// `1 + erf` does not.
///
/// # Safety
/// As [`Simd`].
#[inline(always)]
pub(super) unsafe fn gelu<V: Simd>(x: V) -> V {
    // SAFETY: the caller guarantees the instruction set.
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
    // SAFETY: the caller guarantees the instruction set.
    unsafe {
        let magnitude = x.max(V::splat(0.0).sub(x)).min(V::splat(10.0));
        let square = magnitude.mul(magnitude);
        let u = square.mul_add(V::splat(0.044_715), V::splat(1.0)).mul(magnitude);
        let e = exp_of_negative(u.mul(V::splat(-1.595_769)));
        // 1 - σ(2u) = e / (1 + e), computed without division, because the trait has no division.
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
    // SAFETY: the caller guarantees the instruction set.
    unsafe {
        let mut r = y.mul_add(V::splat(-0.470_588_24), V::splat(1.411_764_7));
        for _ in 0..3 {
            let error = V::splat(0.0).sub(y).mul_add(r, V::splat(1.0));
            r = r.mul_add(error, r);
        }
        r
    }
}

/// Functions whose results are rounded to bf16. Cheaper versions are used where they exist.
pub(super) trait Short: Simd {
    /// GELU in its erf form.
    ///
    /// # Safety
    /// As [`Simd`].
    #[inline(always)]
    unsafe fn gelu_short(self) -> Self {
        // SAFETY: the trait's contract.
        unsafe { gelu(self) }
    }
    /// `e^self` for `self <= 0`.
    ///
    /// # Safety
    /// As [`Simd`].
    #[inline(always)]
    unsafe fn exp_of_negative_short(self) -> Self {
        // SAFETY: the trait's contract.
        unsafe { exp_of_negative(self) }
    }
}

impl Short for super::simd::Four {}

#[cfg(target_arch = "x86_64")]
impl Short for std::arch::x86_64::__m256 {}

#[cfg(target_arch = "x86_64")]
impl Short for std::arch::x86_64::__m512 {
    #[inline(always)]
    unsafe fn gelu_short(self) -> Self {
        // SAFETY: the trait's contract; every tier of AVX-512 has AVX512DQ.
        unsafe { gelu_short(self) }
    }
    #[inline(always)]
    unsafe fn exp_of_negative_short(self) -> Self {
        // SAFETY: as above.
        unsafe { exp2_short(self.mul(Self::splat(std::f32::consts::LOG2_E))) }
    }
}

/// GELU in its erf form with an absolute error of at most 1.9e-4, for results that are rounded to
/// bf16: `x (0.5 + c Q(c²))`, with c = x clamped to ±3.9, where the polynomial gives ±0.5.
///
/// Q is a minimax fit of `erf(x/√2) / 2x` made for this file, weighted by the effect of an error on
/// GELU.
///
/// # Safety
/// The CPU must have AVX512DQ.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(super) unsafe fn gelu_short(x: std::arch::x86_64::__m512) -> std::arch::x86_64::__m512 {
    use std::arch::x86_64::*;
    const Q: [f32; 6] =
        [-1.888_663e-6, 5.379_206e-5, -8.721_119e-4, 9.068_2e-3, -0.065_282_81, 0.398_481_9];
    // SAFETY: the caller guarantees it.
    unsafe {
        // The smaller magnitude, with the sign of x.
        let c = _mm512_range_ps::<0b0010>(x, _mm512_set1_ps(3.9));
        let square = _mm512_mul_ps(c, c);
        let mut q = _mm512_set1_ps(2.843_186e-8);
        for coefficient in Q {
            q = _mm512_fmadd_ps(q, square, _mm512_set1_ps(coefficient));
        }
        _mm512_mul_ps(x, _mm512_fmadd_ps(c, q, _mm512_set1_ps(0.5)))
    }
}

/// `2^x` with a relative error of at most 7.5e-5, for results that are rounded to bf16. NaN gives
/// NaN. Too large values give infinity.
///
/// `2^floor(x)` times a minimax polynomial of the fraction, made for this file.
///
/// # Safety
/// The CPU must have AVX512DQ.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(super) unsafe fn exp2_short(x: std::arch::x86_64::__m512) -> std::arch::x86_64::__m512 {
    use std::arch::x86_64::*;
    // SAFETY: the caller guarantees it.
    unsafe {
        // x - floor(x)
        let fraction = _mm512_reduce_ps::<0b0001>(x);
        let p = _mm512_set1_ps(0.078_024_56);
        let p = _mm512_fmadd_ps(p, fraction, _mm512_set1_ps(0.226_067_46));
        let p = _mm512_fmadd_ps(p, fraction, _mm512_set1_ps(0.695_833_24));
        let p = _mm512_fmadd_ps(p, fraction, _mm512_set1_ps(0.999_925_3));
        _mm512_scalef_ps(p, x)
    }
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use std::arch::x86_64::*;

    use super::*;
    use crate::forward::tests::erf;

    type Lanes = [f32; 16];

    #[target_feature(enable = "avx512f,avx512dq")]
    unsafe fn short(x: &Lanes) -> (Lanes, Lanes) {
        let (mut gelu, mut power) = ([0.0; 16], [0.0; 16]);
        // SAFETY: both have 16 floats; the caller guarantees the instruction set.
        unsafe {
            let x = _mm512_loadu_ps(x.as_ptr());
            _mm512_storeu_ps(gelu.as_mut_ptr(), gelu_short(x));
            _mm512_storeu_ps(power.as_mut_ptr(), exp2_short(x));
        }
        (gelu, power)
    }

    #[test]
    fn short_functions_keep_their_errors() {
        if !is_x86_feature_detected!("avx512f") || !is_x86_feature_detected!("avx512dq") {
            return;
        }
        for i in -8000..8000 {
            let x = [i as f32 / 1000.0; 16];
            // SAFETY: the CPU has the instructions.
            let (gelu, power) = unsafe { short(&x) };
            let exact = f64::from(x[0]);
            let wanted = exact / 2.0 * (1.0 + erf(exact / 2f64.sqrt()));
            assert!((f64::from(gelu[0]) - wanted).abs() <= 1.9e-4, "gelu({exact}) = {}", gelu[0]);
            assert!((f64::from(power[0]) / exact.exp2() - 1.0).abs() <= 7.5e-5, "2^{exact}");
        }
    }

    #[test]
    fn short_functions_hold_far_out() {
        if !is_x86_feature_detected!("avx512f") || !is_x86_feature_detected!("avx512dq") {
            return;
        }
        let infinity = f32::INFINITY;
        let mut x = [0.0; 16];
        x[..8].copy_from_slice(&[1e4, -1e4, 1e30, -1e30, 200.0, -200.0, infinity, -infinity]);
        x[8] = f32::NAN;
        // SAFETY: the CPU has the instructions.
        let (gelu, power) = unsafe { short(&x) };
        for i in [0, 2] {
            assert!((gelu[i] / x[i] - 1.0).abs() < 1e-6 && (gelu[i + 1] / x[i]).abs() < 1e-6);
        }
        assert_eq!((gelu[6], power[4], power[5]), (infinity, infinity, 0.0));
        assert_eq!((power[6], power[7]), (infinity, 0.0));
        assert!(gelu[8].is_nan() && power[8].is_nan());
    }
}
