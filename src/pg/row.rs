//! One composite row as the result of a function.

#![allow(unsafe_code)]

use pgrx::{IntoDatum, pg_sys};

use crate::errors::{Outcome, internal, representable};
use crate::pg::call::Call;

/// Builds the row that a function with OUT parameters returns. It is not a set of one row, because
/// a set cannot be an argument of a function in FROM, and `(embed_model()).suggested_threshold` is
/// used as one.
///
/// The SQL script of an older version may declare fewer columns. New ones come last, so it gets the
/// first of them.
pub fn composite(call: Call, columns: &[Option<pg_sys::Datum>]) -> Outcome<pg_sys::Datum> {
    let mut nulls: Vec<bool> = columns.iter().map(Option::is_none).collect();
    let mut values: Vec<pg_sys::Datum> =
        columns.iter().map(|value| value.unwrap_or(pg_sys::Datum::null())).collect();
    // SAFETY: the descriptor belongs to the call and is blessed before it is used. It has at most
    // as many attributes as there are values and nulls.
    unsafe {
        let mut descriptor: pg_sys::TupleDesc = std::ptr::null_mut();
        let kind = pg_sys::get_call_result_type(call.info(), std::ptr::null_mut(), &mut descriptor);
        if kind != pg_sys::TypeFuncClass::TYPEFUNC_COMPOSITE
            || (*descriptor).natts as usize > columns.len()
        {
            return Err(internal("the SQL script declares other columns than the library returns"));
        }
        let descriptor = pg_sys::BlessTupleDesc(descriptor);
        let tuple = pg_sys::heap_form_tuple(descriptor, values.as_mut_ptr(), nulls.as_mut_ptr());
        Ok(pg_sys::HeapTupleHeaderGetDatum((*tuple).t_data))
    }
}

/// A text column; "?" replaces each character that is not ASCII, unless the database stores UTF-8.
pub fn text(value: &str) -> Option<pg_sys::Datum> {
    representable(value.to_owned()).into_datum()
}

/// A boolean column.
pub fn boolean(value: bool) -> Option<pg_sys::Datum> {
    value.into_datum()
}

/// A bigint column.
pub fn bigint(value: u64) -> Option<pg_sys::Datum> {
    i64::try_from(value).unwrap_or(i64::MAX).into_datum()
}

/// An integer column.
pub fn integer(value: usize) -> Option<pg_sys::Datum> {
    i32::try_from(value).unwrap_or(i32::MAX).into_datum()
}

/// A double precision column.
pub fn float(value: f64) -> Option<pg_sys::Datum> {
    value.into_datum()
}
