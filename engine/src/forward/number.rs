//! Number formats: f32 and bf16.

/// Number format of the weights and of the values that they are multiplied with. Sums, residuals,
/// layer normalisation and softmax are f32 in every precision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// 32-bit floats throughout.
    F32,
    /// Factors rounded to bfloat16 (8 bits of precision), sums in f32.
    Bf16,
}

impl Precision {
    /// The name in the setting and in `embed_model()`.
    pub fn name(self) -> &'static str {
        match self {
            Precision::F32 => "f32",
            Precision::Bf16 => "bf16",
        }
    }
}

/// Two bf16 in one 32-bit word, the first in the low half. They are factors that are neighbours
/// along `k`.
pub(super) fn pair(first: f32, second: f32) -> u32 {
    bf16(first) | bf16(second) << 16
}

/// The bits of a float rounded to bf16.
///
/// Rounds to nearest even. Numbers too small for a normal bf16 become zero, as with vcvtneps2bf16.
/// Weights and hidden states are finite, so NaN needs no special case.
fn bf16(value: f32) -> u32 {
    let bits = if value.is_subnormal() { 0 } else { value.to_bits() };
    bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16
}
