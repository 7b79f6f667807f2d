//! Any bytes are accepted if and only if they are a vector, and accepted bytes are written back
//! unchanged.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use pgvector_compat::{LayoutError, MAX_DIMENSIONS, Vector, VectorRef};
use proptest::prelude::*;

/// The definition of a vector, written a second time and independently of the code.
fn is_a_vector(bytes: &[u8]) -> bool {
    let [d0, d1, u0, u1, elements @ ..] = bytes else { return false };
    let dimensions = i16::from_ne_bytes([*d0, *d1]);
    (1..=16_000).contains(&dimensions)
        && elements.len() == 4 * dimensions as usize
        && [*u0, *u1] == [0, 0]
        && elements.chunks(4).all(|e| f32::from_ne_bytes(e.try_into().unwrap()).is_finite())
}

fn agrees(bytes: &[u8]) -> Result<(), TestCaseError> {
    match VectorRef::from_payload(bytes) {
        Ok(vector) => {
            prop_assert!(is_a_vector(bytes), "{} bytes are accepted", bytes.len());
            prop_assert_eq!(vector.dimensions(), (bytes.len() - 4) / 4);
            let owned = Vector::from(vector);
            let mut written = vec![0xaa; owned.payload_len()];
            owned.write_payload(&mut written);
            prop_assert_eq!(&written[..], bytes);
        }
        Err(error) => {
            prop_assert!(!is_a_vector(bytes), "{} bytes are refused: {error}", bytes.len());
            // The fields of the error are true.
            match error {
                LayoutError::TooShort { bytes: length } => prop_assert!(length < 4),
                LayoutError::Dimensions { dimensions } => {
                    prop_assert!(!(1..=MAX_DIMENSIONS as i64).contains(&dimensions));
                }
                LayoutError::Size { expected, bytes: length, .. } => {
                    prop_assert_eq!(length, bytes.len());
                    prop_assert_ne!(expected, length);
                }
                LayoutError::Reserved { value } => prop_assert_ne!(value, 0),
                LayoutError::NotFinite { index, .. } => prop_assert!(4 + 4 * index < bytes.len()),
            }
        }
    }
    Ok(())
}

/// Bytes that are almost a vector: header and length match or differ a little.
fn nearly() -> impl Strategy<Value = Vec<u8>> {
    let header = (1i16..40, prop_oneof![8 => Just(0i16), 1 => any::<i16>()], -5isize..=5);
    (header, prop::collection::vec(any::<f32>(), 40)).prop_map(
        |((dimensions, reserved, off), values)| {
            let mut bytes = dimensions.to_ne_bytes().to_vec();
            bytes.extend(reserved.to_ne_bytes());
            bytes.extend(values.iter().flat_map(|value| value.to_ne_bytes()));
            let off = if off.abs() > 2 { 0 } else { off };
            bytes.truncate((4 + 4 * dimensions as usize).saturating_add_signed(off));
            bytes
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(cases()) })]

    #[test]
    fn arbitrary_bytes(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        agrees(&bytes)?;
    }

    #[test]
    fn a_small_number_of_dimensions_and_any_bytes(mut bytes in prop::collection::vec(any::<u8>(), 4..100)) {
        // Purely random bytes almost always fail the check of the header.
        let dimensions = (bytes.len() / 4 - 1) as i16;
        bytes[..2].copy_from_slice(&dimensions.to_ne_bytes());
        bytes[2..4].copy_from_slice(&[0, 0]);
        agrees(&bytes)?;
    }

    #[test]
    fn nearly_a_vector(bytes in nearly()) {
        agrees(&bytes)?;
    }

    #[test]
    fn at_any_alignment(bytes in nearly(), shift in 0usize..8) {
        let shifted = [vec![0x55; shift], bytes].concat();
        agrees(&shifted[shift..])?;
    }

    #[test]
    fn elements_are_taken_exactly_when_they_are_a_vector(values in prop::collection::vec(any::<f32>(), 0..50)) {
        let valid = !values.is_empty() && values.iter().all(|value| value.is_finite());
        let vector = Vector::new(values.clone());
        prop_assert_eq!(vector.is_ok(), valid);
        if let Ok(vector) = vector {
            prop_assert_eq!(vector.as_slice(), &values[..]);
        }
    }
}

/// A case takes microseconds, so there are ten thousand of each, unless PROPTEST_CASES is set.
fn cases() -> u32 {
    let said = std::env::var_os("PROPTEST_CASES").is_some();
    if said { ProptestConfig::default().cases } else { 10_000 }
}

/// Each number of dimensions that the header can hold: with the right number of elements, and with
/// one element more.
#[test]
fn every_number_of_dimensions() {
    let zeros = vec![0u8; 4 * 32_768];
    let mut accepted = 0;
    for dimensions in i16::MIN..=i16::MAX {
        let right = 4 * usize::try_from(dimensions).unwrap_or(0);
        let mut bytes = [dimensions.to_ne_bytes(), [0, 0]].concat();
        bytes.extend_from_slice(&zeros[..right]);
        let whole = VectorRef::from_payload(&bytes);
        assert_eq!(whole.is_ok(), (1..=16_000).contains(&dimensions), "{dimensions}");
        accepted += usize::from(whole.is_ok());
        bytes.extend_from_slice(&zeros[..4]);
        assert!(VectorRef::from_payload(&bytes).is_err(), "{dimensions} and an element too many");
    }
    assert_eq!(accepted, MAX_DIMENSIONS);
}
