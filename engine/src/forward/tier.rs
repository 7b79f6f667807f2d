//! Chooses the kernels for this CPU, once, at run time.
//!
//! One binary serves every CPU. Each tier is the same code of [`super::kernels`], compiled for one
//! instruction set behind entry points with that `target_feature`.

#![allow(unsafe_code)]

use once_cell::sync::Lazy;

#[cfg(target_arch = "x86_64")]
use super::bf16;
use super::entry::{Kernels, baseline};
#[cfg(target_arch = "x86_64")]
use super::entry::{avx2, avx512};
use super::number::Precision;
use super::panels::PanelForm;
use super::simd::Four;
use crate::Error;

/// A way to run the model on this CPU.
#[derive(Clone, Copy)]
pub(crate) struct Tier {
    /// The name in `embed_model()`.
    pub name: &'static str,
    pub precision: Precision,
    /// Whether this process may run the tier. It is called when the tier is chosen.
    permitted: fn() -> bool,
    pub(super) pass: PassKind,
}

/// The kind of pass of a tier.
#[derive(Clone, Copy)]
pub(super) enum PassKind {
    /// Row-major hidden states and these kernels.
    General(Kernels),
    /// Tiles from end to end.
    #[cfg(target_arch = "x86_64")]
    Amx,
}

/// The fastest tier of a precision, or the tier with this name. Without either, the fastest tier of
/// this CPU. In any case its vectors have a cosine of at least 0.9999 to those of the reference.
pub(crate) fn choose(precision: Option<Precision>, kernels: Option<&str>) -> Result<Tier, Error> {
    let tiers: &[Tier] = &TIERS;
    let fits = |tier: &&Tier| {
        precision.is_none_or(|precision| tier.precision == precision)
            && kernels.is_none_or(|kernels| tier.name == kernels)
            && (tier.permitted)()
    };
    tiers.iter().find(fits).copied().ok_or_else(|| Error::NoKernels {
        wanted: kernels.or(precision.map(Precision::name)).unwrap_or_default().to_owned(),
        available: tiers.iter().map(|tier| tier.name).collect::<Vec<_>>().join(", "),
    })
}

/// The tiers that this CPU can run, fastest first. They are detected once.
static TIERS: Lazy<Vec<Tier>> = Lazy::new(available);

/// A tier with these kernels. Every process may run it.
fn tier_of(kernels: Kernels, name: &'static str) -> Tier {
    let (precision, pass) = (kernels.form.precision, PassKind::General(kernels));
    Tier { name, precision, permitted: || true, pass }
}

fn available() -> Vec<Tier> {
    let mut tiers = Vec::new();
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{__m256, __m512};
        let fma = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
        if fma
            && is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl")
        {
            let f32 = Kernels::of::<__m512>(avx512::linear, avx512::attend, avx512::normalise);
            tiers.push(tier_of(f32, "avx512-f32"));
            if is_x86_feature_detected!("avx512bf16") {
                let precision = Precision::Bf16;
                let bf16 = Kernels {
                    form: PanelForm { precision, ..f32.form },
                    ..Kernels::of::<__m512>(bf16::linear, bf16::attend, bf16::normalise)
                };
                // vdpbf16ps has twice the rate of an f32 FMA on AMD's CPUs, and half of it on
                // Intel's.
                tiers.insert(if is_amd() { 0 } else { 1 }, tier_of(bf16, "avx512-bf16"));
                if super::amx::available() {
                    let name = "amx-bf16";
                    let (permitted, pass) = (super::amx::permitted, PassKind::Amx);
                    tiers.insert(0, Tier { name, precision, permitted, pass });
                }
            }
        }
        if fma {
            let f32 = Kernels::of::<__m256>(avx2::linear, avx2::attend, avx2::normalise);
            tiers.push(tier_of(f32, "avx2-f32"));
        }
    }
    let f32 = Kernels::of::<Four>(baseline::linear, baseline::attend, baseline::normalise);
    tiers.push(tier_of(f32, "portable-f32"));
    tiers
}

/// The kernels of every tier of this CPU that has row-major hidden states.
#[cfg(test)]
pub(super) fn general() -> Vec<(&'static str, Kernels)> {
    let general = |tier: Tier| match tier.pass {
        PassKind::General(kernels) => Some((tier.name, kernels)),
        #[cfg(target_arch = "x86_64")]
        PassKind::Amx => None,
    };
    available().into_iter().filter_map(general).collect()
}

#[cfg(target_arch = "x86_64")]
fn is_amd() -> bool {
    let vendor = std::arch::x86_64::__cpuid(0);
    [vendor.ebx, vendor.edx, vendor.ecx].map(u32::to_le_bytes).concat() == b"AuthenticAMD"
}
