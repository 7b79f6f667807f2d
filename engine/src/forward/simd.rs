//! A vector of f32 lanes, one type per instruction set, so that the kernels are written once.
//!
//! The methods are `#[inline(always)]` and have no `target_feature` of their own. They are fast and
//! permitted only inside an entry point of [`super::tier`] that has the feature.

#![allow(unsafe_code)]

/// Lanes of f32.
pub(super) trait Simd: Copy {
    /// Number of lanes.
    const LANES: usize;
    /// Vectors of a weight panel's width, 2 or 3.
    const PANEL: usize;
    /// Rows of a register tile, at most 8. `MR × PANEL` accumulators, a row of the panel and two
    /// broadcasts must fit into the registers: 32 with AVX-512, otherwise 16. One accumulator that
    /// does not fit halves the rate: with AVX2, 4 × 3 ran at 47 GFLOP/s and 6 × 2 at 116.
    const MR: usize;

    /// All lanes are `value`.
    ///
    /// # Safety
    /// This holds for all methods below too: the CPU must have the instruction set.
    unsafe fn splat(value: f32) -> Self;
    /// Loads the lanes from memory.
    ///
    /// # Safety
    /// As [`Simd::splat`]; `from` must have `LANES` floats.
    unsafe fn load(from: *const f32) -> Self;
    /// Stores the lanes to memory.
    ///
    /// # Safety
    /// As [`Simd::splat`]; `to` must have space for `LANES` floats.
    unsafe fn store(self, to: *mut f32);
    /// Sum, lane by lane.
    ///
    /// # Safety
    /// As [`Simd::splat`].
    unsafe fn add(self, other: Self) -> Self;
    /// Difference, lane by lane.
    ///
    /// # Safety
    /// As [`Simd::splat`].
    unsafe fn sub(self, other: Self) -> Self;
    /// Product, lane by lane.
    ///
    /// # Safety
    /// As [`Simd::splat`].
    unsafe fn mul(self, other: Self) -> Self;
    /// The larger, lane by lane.
    ///
    /// # Safety
    /// As [`Simd::splat`].
    unsafe fn max(self, other: Self) -> Self;
    /// The smaller, lane by lane.
    ///
    /// # Safety
    /// As [`Simd::splat`].
    unsafe fn min(self, other: Self) -> Self;
    /// `self * factor + addend`, fused where the instruction exists.
    ///
    /// # Safety
    /// As [`Simd::splat`].
    unsafe fn mul_add(self, factor: Self, addend: Self) -> Self;
    /// `2^self` for whole numbers from -126 to 127.
    ///
    /// # Safety
    /// As [`Simd::splat`].
    unsafe fn exp2_of_whole(self) -> Self;
    /// `positive` where `self >= 0`, otherwise `negative`.
    ///
    /// # Safety
    /// As [`Simd::splat`].
    unsafe fn select_by_sign(self, positive: Self, negative: Self) -> Self;
    /// Sum of the lanes, in one fixed order.
    ///
    /// # Safety
    /// As [`Simd::splat`].
    unsafe fn sum(self) -> f32;
    /// Largest lane.
    ///
    /// # Safety
    /// As [`Simd::splat`].
    unsafe fn largest(self) -> f32;
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::Simd;

    impl Simd for __m512 {
        const LANES: usize = 16;
        const PANEL: usize = 3;
        const MR: usize = 8;

        #[inline(always)]
        unsafe fn splat(value: f32) -> Self {
            // SAFETY: the trait's contract, here and in the methods below.
            unsafe { _mm512_set1_ps(value) }
        }
        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            // SAFETY: the trait's contract.
            unsafe { _mm512_loadu_ps(from) }
        }
        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            // SAFETY: the trait's contract.
            unsafe { _mm512_storeu_ps(to, self) }
        }
        #[inline(always)]
        unsafe fn add(self, other: Self) -> Self {
            // SAFETY: the trait's contract.
            unsafe { _mm512_add_ps(self, other) }
        }
        #[inline(always)]
        unsafe fn sub(self, other: Self) -> Self {
            // SAFETY: the trait's contract.
            unsafe { _mm512_sub_ps(self, other) }
        }
        #[inline(always)]
        unsafe fn mul(self, other: Self) -> Self {
            // SAFETY: the trait's contract.
            unsafe { _mm512_mul_ps(self, other) }
        }
        #[inline(always)]
        unsafe fn max(self, other: Self) -> Self {
            // SAFETY: the trait's contract.
            unsafe { _mm512_max_ps(self, other) }
        }
        #[inline(always)]
        unsafe fn min(self, other: Self) -> Self {
            // SAFETY: the trait's contract.
            unsafe { _mm512_min_ps(self, other) }
        }
        #[inline(always)]
        unsafe fn mul_add(self, factor: Self, addend: Self) -> Self {
            // SAFETY: the trait's contract.
            unsafe { _mm512_fmadd_ps(self, factor, addend) }
        }
        #[inline(always)]
        unsafe fn exp2_of_whole(self) -> Self {
            // SAFETY: the trait's contract.
            unsafe { _mm512_scalef_ps(_mm512_set1_ps(1.0), self) }
        }
        #[inline(always)]
        unsafe fn select_by_sign(self, positive: Self, negative: Self) -> Self {
            // SAFETY: the trait's contract.
            unsafe {
                let at_least_zero = _mm512_cmp_ps_mask::<_CMP_GE_OQ>(self, _mm512_setzero_ps());
                _mm512_mask_blend_ps(at_least_zero, negative, positive)
            }
        }
        #[inline(always)]
        unsafe fn sum(self) -> f32 {
            // SAFETY: the trait's contract.
            unsafe { _mm512_reduce_add_ps(self) }
        }
        #[inline(always)]
        unsafe fn largest(self) -> f32 {
            // SAFETY: the trait's contract.
            unsafe { _mm512_reduce_max_ps(self) }
        }
    }

    impl Simd for __m256 {
        const LANES: usize = 8;
        const PANEL: usize = 2;
        const MR: usize = 6;

        #[inline(always)]
        unsafe fn splat(value: f32) -> Self {
            // SAFETY: the trait's contract, here and in the methods below.
            unsafe { _mm256_set1_ps(value) }
        }
        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            // SAFETY: the trait's contract.
            unsafe { _mm256_loadu_ps(from) }
        }
        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            // SAFETY: the trait's contract.
            unsafe { _mm256_storeu_ps(to, self) }
        }
        #[inline(always)]
        unsafe fn add(self, other: Self) -> Self {
            // SAFETY: the trait's contract.
            unsafe { _mm256_add_ps(self, other) }
        }
        #[inline(always)]
        unsafe fn sub(self, other: Self) -> Self {
            // SAFETY: the trait's contract.
            unsafe { _mm256_sub_ps(self, other) }
        }
        #[inline(always)]
        unsafe fn mul(self, other: Self) -> Self {
            // SAFETY: the trait's contract.
            unsafe { _mm256_mul_ps(self, other) }
        }
        #[inline(always)]
        unsafe fn max(self, other: Self) -> Self {
            // SAFETY: the trait's contract.
            unsafe { _mm256_max_ps(self, other) }
        }
        #[inline(always)]
        unsafe fn min(self, other: Self) -> Self {
            // SAFETY: the trait's contract.
            unsafe { _mm256_min_ps(self, other) }
        }
        #[inline(always)]
        unsafe fn mul_add(self, factor: Self, addend: Self) -> Self {
            // SAFETY: the trait's contract.
            unsafe { _mm256_fmadd_ps(self, factor, addend) }
        }
        #[inline(always)]
        unsafe fn exp2_of_whole(self) -> Self {
            // SAFETY: the trait's contract.
            unsafe {
                let biased = _mm256_add_epi32(_mm256_cvtps_epi32(self), _mm256_set1_epi32(127));
                _mm256_castsi256_ps(_mm256_slli_epi32::<23>(biased))
            }
        }
        #[inline(always)]
        unsafe fn select_by_sign(self, positive: Self, negative: Self) -> Self {
            // SAFETY: the trait's contract.
            unsafe {
                let at_least_zero = _mm256_cmp_ps::<_CMP_GE_OQ>(self, _mm256_setzero_ps());
                _mm256_blendv_ps(negative, positive, at_least_zero)
            }
        }
        #[inline(always)]
        unsafe fn sum(self) -> f32 {
            let mut lanes = [0.0; 8];
            // SAFETY: the trait's contract; `lanes` has space for 8 floats.
            unsafe { self.store(lanes.as_mut_ptr()) };
            lanes.iter().sum()
        }
        #[inline(always)]
        unsafe fn largest(self) -> f32 {
            let mut lanes = [0.0; 8];
            // SAFETY: the trait's contract; `lanes` has space for 8 floats.
            unsafe { self.store(lanes.as_mut_ptr()) };
            lanes.iter().copied().fold(f32::NEG_INFINITY, f32::max)
        }
    }
}

/// Four lanes. The compiler uses the vectors that the target always has (SSE2, NEON).
#[derive(Clone, Copy)]
pub(super) struct Four([f32; 4]);

impl Four {
    #[inline(always)]
    fn zip(self, other: Four, f: impl Fn(f32, f32) -> f32) -> Four {
        Four(std::array::from_fn(|i| f(self.0[i], other.0[i])))
    }
}

impl Simd for Four {
    const LANES: usize = 4;
    const PANEL: usize = 2;
    const MR: usize = 6;

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        Four([value; 4])
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the trait's contract; an array of f32 has the alignment of f32.
        unsafe { Four(from.cast::<[f32; 4]>().read()) }
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the trait's contract; an array of f32 has the alignment of f32.
        unsafe { to.cast::<[f32; 4]>().write(self.0) }
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        self.zip(other, |a, b| a + b)
    }
    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        self.zip(other, |a, b| a - b)
    }
    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        self.zip(other, |a, b| a * b)
    }
    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        self.zip(other, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    unsafe fn min(self, other: Self) -> Self {
        self.zip(other, |a, b| if a < b { a } else { b })
    }
    #[inline(always)]
    unsafe fn mul_add(self, factor: Self, addend: Self) -> Self {
        // Two roundings: f32::mul_add is a library call if the target has no such instruction.
        Four(std::array::from_fn(|i| self.0[i] * factor.0[i] + addend.0[i]))
    }
    #[inline(always)]
    unsafe fn exp2_of_whole(self) -> Self {
        Four(self.0.map(|whole| f32::from_bits(((whole as i32 + 127) << 23) as u32)))
    }
    #[inline(always)]
    unsafe fn select_by_sign(self, positive: Self, negative: Self) -> Self {
        Four(std::array::from_fn(|i| if self.0[i] >= 0.0 { positive.0[i] } else { negative.0[i] }))
    }
    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        (self.0[0] + self.0[2]) + (self.0[1] + self.0[3])
    }
    #[inline(always)]
    unsafe fn largest(self) -> f32 {
        self.0.iter().copied().fold(f32::NEG_INFINITY, f32::max)
    }
}
