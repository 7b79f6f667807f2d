//! The payload of a `vector` datum, which follows the varlena header:
//!
//! | bytes | content |
//! |---|---|
//! | 0..2 | dimensions, `int16` |
//! | 2..4 | reserved, 0 |
//! | 4.. | `float4` values |
//!
//! All in the machine's byte order, as in pgvector's
//! [`vector.h`](https://github.com/pgvector/pgvector/blob/v0.8.0/src/vector.h).

/// The most dimensions that pgvector stores (`VECTOR_MAX_DIM`).
pub const MAX_DIMENSIONS: usize = 16_000;

const HEADER: usize = 4;

/// Why bytes or floats are not a vector.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// Fewer bytes than the header.
    #[error("a vector needs at least {HEADER} bytes and has {bytes}")]
    TooShort {
        /// Bytes of the payload.
        bytes: usize,
    },
    /// A number of dimensions that is zero, negative, or larger than pgvector allows.
    #[error("a vector must have from 1 to {MAX_DIMENSIONS} dimensions and has {dimensions}")]
    Dimensions {
        /// The number of dimensions.
        dimensions: i64,
    },
    /// The number of bytes does not match the number of dimensions.
    #[error("a vector of {dimensions} dimensions has {expected} bytes, not {bytes}")]
    Size {
        /// Dimensions in the header.
        dimensions: usize,
        /// Bytes that a vector of this many dimensions has.
        expected: usize,
        /// Bytes of the payload.
        bytes: usize,
    },
    /// The reserved field is not 0: an unknown version of pgvector uses it.
    #[error("the reserved field of a vector is {value}, it must be 0")]
    Reserved {
        /// Its value.
        value: i16,
    },
    /// NaN or an infinity.
    #[error("element {index} of a vector is {value}, it must be finite")]
    NotFinite {
        /// Position from 0.
        index: usize,
        /// `NaN`, `inf` or `-inf`.
        value: String,
    },
}

/// An owned vector: 1 to 16,000 finite floats.
#[derive(Clone, Debug, PartialEq)]
pub struct Vector(Vec<f32>);

impl Vector {
    /// Checks the elements and takes ownership of them.
    pub fn new(elements: Vec<f32>) -> Result<Vector, LayoutError> {
        if elements.is_empty() || elements.len() > MAX_DIMENSIONS {
            return Err(LayoutError::Dimensions { dimensions: elements.len() as i64 });
        }
        check_finite(elements.iter().copied())?;
        Ok(Vector(elements))
    }

    /// The elements.
    pub fn as_slice(&self) -> &[f32] {
        &self.0
    }

    /// Bytes of the datum's payload.
    pub fn payload_len(&self) -> usize {
        HEADER + 4 * self.0.len()
    }

    /// Writes the payload; `out` must have [`Vector::payload_len`] bytes.
    ///
    /// # Panics
    /// When `out` has another length.
    pub fn write_payload(&self, out: &mut [u8]) {
        assert_eq!(out.len(), self.payload_len(), "a buffer of the wrong size");
        let (header, elements) = out.split_at_mut(HEADER);
        // At most 16,000, so it fits an i16.
        header[..2].copy_from_slice(&(self.0.len() as i16).to_ne_bytes());
        header[2..].copy_from_slice(&0i16.to_ne_bytes());
        for (bytes, element) in elements.as_chunks_mut::<4>().0.iter_mut().zip(&self.0) {
            *bytes = element.to_ne_bytes();
        }
    }
}

impl From<VectorRef<'_>> for Vector {
    fn from(vector: VectorRef<'_>) -> Vector {
        Vector(vector.elements().collect())
    }
}

/// A vector that is read in place from the payload of a datum, which need not be aligned.
#[derive(Clone, Copy, Debug)]
pub struct VectorRef<'a> {
    elements: &'a [[u8; 4]],
}

impl<'a> VectorRef<'a> {
    /// Reads a payload and checks everything about it.
    pub fn from_payload(payload: &'a [u8]) -> Result<VectorRef<'a>, LayoutError> {
        let Some(([d0, d1, u0, u1], elements)) = payload.split_first_chunk::<HEADER>() else {
            return Err(LayoutError::TooShort { bytes: payload.len() });
        };
        let dimensions = i16::from_ne_bytes([*d0, *d1]);
        let reserved = i16::from_ne_bytes([*u0, *u1]);
        let Some(count) =
            usize::try_from(dimensions).ok().filter(|n| (1..=MAX_DIMENSIONS).contains(n))
        else {
            return Err(LayoutError::Dimensions { dimensions: i64::from(dimensions) });
        };
        if elements.len() != 4 * count {
            return Err(LayoutError::Size {
                dimensions: count,
                expected: HEADER + 4 * count,
                bytes: payload.len(),
            });
        }
        if reserved != 0 {
            return Err(LayoutError::Reserved { value: reserved });
        }
        let vector = VectorRef { elements: elements.as_chunks::<4>().0 };
        check_finite(vector.elements())?;
        Ok(vector)
    }

    /// Number of elements.
    pub fn dimensions(&self) -> usize {
        self.elements.len()
    }

    /// The elements in order.
    pub fn elements(&self) -> impl ExactSizeIterator<Item = f32> + use<'a> {
        self.elements.iter().map(|&bytes| f32::from_ne_bytes(bytes))
    }
}

fn check_finite(elements: impl Iterator<Item = f32>) -> Result<(), LayoutError> {
    match elements.enumerate().find(|(_, element)| !element.is_finite()) {
        None => Ok(()),
        Some((index, value)) => Err(LayoutError::NotFinite { index, value: value.to_string() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(dimensions: i16, reserved: i16, elements: &[f32]) -> Vec<u8> {
        let mut bytes = dimensions.to_ne_bytes().to_vec();
        bytes.extend(reserved.to_ne_bytes());
        bytes.extend(elements.iter().flat_map(|element| element.to_ne_bytes()));
        bytes
    }

    #[test]
    fn what_is_written_is_read_back() {
        for count in [1, 3, 384, MAX_DIMENSIONS] {
            let elements: Vec<f32> = (0..count).map(|i| i as f32 * 0.5 - 7.0).collect();
            let vector = Vector::new(elements.clone()).unwrap();
            let mut bytes = vec![0xff; vector.payload_len()];
            vector.write_payload(&mut bytes);
            assert_eq!(bytes, payload(count as i16, 0, &elements));
            let read = VectorRef::from_payload(&bytes).unwrap();
            assert_eq!(read.dimensions(), count);
            assert_eq!(Vector::from(read), vector);
        }
    }

    #[test]
    fn an_unaligned_payload_is_read() {
        let mut bytes = vec![0];
        bytes.extend(payload(2, 0, &[1.5, -2.5]));
        let read = VectorRef::from_payload(&bytes[1..]).unwrap();
        assert_eq!(read.elements().collect::<Vec<_>>(), [1.5, -2.5]);
    }

    #[test]
    fn a_payload_whose_size_and_dimensions_disagree_is_refused() {
        let error = |bytes: &[u8]| VectorRef::from_payload(bytes).unwrap_err();
        assert_eq!(error(&[]), LayoutError::TooShort { bytes: 0 });
        assert_eq!(error(&[1, 0, 0]), LayoutError::TooShort { bytes: 3 });
        assert_eq!(error(&payload(0, 0, &[])), LayoutError::Dimensions { dimensions: 0 });
        assert_eq!(error(&payload(-1, 0, &[1.0])), LayoutError::Dimensions { dimensions: -1 });
        assert_eq!(
            error(&payload(16_001, 0, &[1.0])),
            LayoutError::Dimensions { dimensions: 16_001 }
        );
        for elements in [vec![1.0], vec![1.0, 2.0, 3.0]] {
            let bytes = payload(2, 0, &elements);
            let size = LayoutError::Size { dimensions: 2, expected: 12, bytes: bytes.len() };
            assert_eq!(error(&bytes), size);
        }
        let mut ragged = payload(2, 0, &[1.0, 2.0]);
        ragged.push(0);
        assert_eq!(error(&ragged), LayoutError::Size { dimensions: 2, expected: 12, bytes: 13 });
    }

    #[test]
    fn a_reserved_field_in_use_is_refused() {
        let error = VectorRef::from_payload(&payload(1, 5, &[1.0])).unwrap_err();
        assert_eq!(error, LayoutError::Reserved { value: 5 });
    }

    #[test]
    fn elements_that_are_not_finite_are_refused_on_both_ways() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let expected = LayoutError::NotFinite { index: 1, value: bad.to_string() };
            assert_eq!(VectorRef::from_payload(&payload(2, 0, &[1.0, bad])).unwrap_err(), expected);
            assert_eq!(Vector::new(vec![1.0, bad]).unwrap_err(), expected);
        }
    }

    #[test]
    fn too_few_and_too_many_dimensions_are_refused() {
        assert_eq!(Vector::new(vec![]).unwrap_err(), LayoutError::Dimensions { dimensions: 0 });
        let error = Vector::new(vec![0.0; MAX_DIMENSIONS + 1]).unwrap_err();
        assert_eq!(error, LayoutError::Dimensions { dimensions: 16_001 });
    }
}
