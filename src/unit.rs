//! Vectors of unit length. The searches order by the inner product, which is the cosine for unit
//! vectors only: a longer vector would come first in every search.

use pgrx::{IntoDatum, PgSqlErrorCode, pg_sys};
use pgvector_compat::{LayoutError, Vector, VectorRef};

use crate::errors::{Failure, Outcome, error, internal};

/// Lengths from 1 - TOLERANCE to 1 + TOLERANCE count as 1. Vectors of half precision are within it.
const TOLERANCE: f64 = 1e-3;

/// Whether the payload of a `vector` datum is a vector of unit length, of any dimension.
pub fn is_unit(payload: &[u8]) -> bool {
    VectorRef::from_payload(payload).is_ok_and(|vector| is_one(length(&vector)))
}

/// The vector scaled to unit length; `None` if it has it already.
///
/// # Errors
/// 22023 for a vector that has no direction: zero, or with an element that is not finite. 22000 for
/// another number of dimensions than an embedding has.
pub fn scaled(payload: &[u8]) -> Outcome<Option<pg_sys::Datum>> {
    let vector = VectorRef::from_payload(payload).map_err(|e| not_a_vector(&e))?;
    let dims = gte_engine::DIMS;
    if vector.dimensions() != dims {
        return Err(error(
            PgSqlErrorCode::ERRCODE_DATA_EXCEPTION,
            format!("expected {dims} dimensions, not {}", vector.dimensions()),
            format!("An embedding is a vector({dims})."),
            "Use vectors of the model that embeds the texts.",
        ));
    }
    // In f64, where no square of an f32 is zero or infinite.
    let length = length(&vector);
    if is_one(length) {
        return Ok(None);
    }
    if length == 0.0 {
        return Err(no_direction("vector has length 0"));
    }
    let unit = vector.elements().map(|element| (f64::from(element) / length) as f32).collect();
    Vector::new(unit)
        .map_err(internal)?
        .into_datum()
        .map(Some)
        .ok_or_else(|| internal("no datum was made"))
}

fn length(vector: &VectorRef<'_>) -> f64 {
    vector.elements().map(|element| f64::from(element).powi(2)).sum::<f64>().sqrt()
}

fn is_one(length: f64) -> bool {
    (length - 1.0).abs() <= TOLERANCE
}

fn not_a_vector(layout: &LayoutError) -> Failure {
    match layout {
        LayoutError::NotFinite { .. } => no_direction(&layout.to_string()),
        _ => error(
            PgSqlErrorCode::ERRCODE_DATA_CORRUPTED,
            format!("invalid vector: {layout}"),
            "The value was not written by a known version of pgvector.",
            "Replace the vector, or set it to NULL.",
        ),
    }
}

fn no_direction(fact: &str) -> Failure {
    error(
        PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
        fact,
        "It has no direction, so its similarity to other vectors is not a number.",
        "Leave the vector out where there is a text to embed, or use NULL.",
    )
}
