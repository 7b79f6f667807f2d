//! What a value is: `gte_small.unit(vector)`, `gte_small.is_unit(vector)`, `gte_small.is_blank(text)`.

#![allow(unsafe_code)]

use pgrx::{IntoDatum, pg_sys};

use crate::errors::{Outcome, internal};
use crate::pg::blank;
use crate::pg::call::{Call, export};
use crate::pg::text::Detoasted;
use crate::unit as length;

export!(unit_gte_small, pg_finfo_unit_gte_small, unit);
export!(is_unit_gte_small, pg_finfo_is_unit_gte_small, is_unit);
export!(is_blank_gte_small, pg_finfo_is_blank_gte_small, is_blank);

/// STRICT: the vector itself if it has unit length, otherwise the vector scaled to it.
fn unit(call: Call) -> Outcome<pg_sys::Datum> {
    let vector = argument(call)?;
    // SAFETY: the SQL script declares a vector, which is a varlena that outlives the call.
    let payload = unsafe { Detoasted::new(vector) };
    Ok(length::scaled(payload.bytes())?.unwrap_or(vector))
}

/// STRICT.
fn is_unit(call: Call) -> Outcome<pg_sys::Datum> {
    // SAFETY: as in `unit`.
    let payload = unsafe { Detoasted::new(argument(call)?) };
    boolean(length::is_unit(payload.bytes()))
}

/// STRICT.
fn is_blank(call: Call) -> Outcome<pg_sys::Datum> {
    // SAFETY: the SQL script declares a text, which outlives the call.
    boolean(unsafe { blank::is_blank_datum(argument(call)?) })
}

fn argument(call: Call) -> Outcome<pg_sys::Datum> {
    call.argument(0).ok_or_else(|| internal("a STRICT function was called with NULL"))
}

fn boolean(value: bool) -> Outcome<pg_sys::Datum> {
    value.into_datum().ok_or_else(|| internal("no datum was made"))
}
