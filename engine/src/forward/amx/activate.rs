//! The functions between a product and the rounding of its result.

#![allow(unsafe_code)]

use std::arch::x86_64::*;

use crate::forward::math::{gelu_short, gelu_tanh};

/// The operation on a sum before it is rounded.
pub(super) trait Activate {
    /// # Safety
    /// The CPU must have AVX-512.
    unsafe fn apply(x: __m512) -> __m512;
}

pub(super) struct Plain;
pub(super) struct Gelu;
pub(super) struct GeluTanh;
pub(super) struct Relu;

impl Activate for Plain {
    #[inline(always)]
    unsafe fn apply(x: __m512) -> __m512 {
        x
    }
}

impl Activate for Gelu {
    #[inline(always)]
    unsafe fn apply(x: __m512) -> __m512 {
        // SAFETY: the trait's contract.
        unsafe { gelu_short(x) }
    }
}

impl Activate for GeluTanh {
    #[inline(always)]
    unsafe fn apply(x: __m512) -> __m512 {
        // SAFETY: the trait's contract.
        unsafe { gelu_tanh(x) }
    }
}

impl Activate for Relu {
    #[inline(always)]
    unsafe fn apply(x: __m512) -> __m512 {
        // SAFETY: the trait's contract.
        unsafe { _mm512_max_ps(_mm512_setzero_ps(), x) }
    }
}
