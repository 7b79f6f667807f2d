//! The kernels compiled for each instruction set.

#![allow(unsafe_code)]

use super::jobs::{Attend, Linear, Norm, Scratch};
use super::kernels;
use super::number::Precision;
use super::panels::PanelForm;
use super::simd::{Four, Simd};
use crate::Error;

/// The entry points of one instruction set.
#[derive(Clone, Copy)]
pub(super) struct Kernels {
    pub form: PanelForm,
    /// Rows of a register tile.
    pub tile_rows: usize,
    pub linear: unsafe fn(&Linear),
    pub attend: unsafe fn(&Attend, &mut Scratch) -> Result<(), Error>,
    pub normalise: unsafe fn(&Norm),
}

impl Kernels {
    pub const fn of<V: Simd>(
        linear: unsafe fn(&Linear),
        attend: unsafe fn(&Attend, &mut Scratch) -> Result<(), Error>,
        normalise: unsafe fn(&Norm),
    ) -> Kernels {
        Kernels {
            form: PanelForm { precision: Precision::F32, width: kernels::panel_width::<V>() },
            tile_rows: V::MR,
            linear,
            attend,
            normalise,
        }
    }
}

/// Compiles the kernels for one instruction set.
macro_rules! tier {
    ($module:ident, $vector:ty $(, $feature:literal)?) => {
        pub(super) mod $module {
            use super::*;

            /// # Safety
            /// As [`kernels::linear`].
            $(#[target_feature(enable = $feature)])?
            pub unsafe fn linear(job: &Linear) {
                // SAFETY: the caller guarantees it; the features are enabled here.
                unsafe { kernels::linear::<$vector>(job) }
            }

            /// # Safety
            /// As [`kernels::attend`].
            $(#[target_feature(enable = $feature)])?
            pub unsafe fn attend(job: &Attend, scratch: &mut Scratch) -> Result<(), Error> {
                // SAFETY: the caller guarantees it; the features are enabled here.
                unsafe { kernels::attend::<$vector, f32>(job, scratch) }
            }

            /// # Safety
            /// As [`kernels::normalise`].
            $(#[target_feature(enable = $feature)])?
            pub unsafe fn normalise(job: &Norm) {
                // SAFETY: the caller guarantees it; the features are enabled here.
                unsafe { kernels::normalise::<$vector>(job) }
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
tier!(avx512, std::arch::x86_64::__m512, "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma");
#[cfg(target_arch = "x86_64")]
tier!(avx2, std::arch::x86_64::__m256, "avx2,fma");
tier!(baseline, Four);
