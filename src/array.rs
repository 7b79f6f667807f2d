//! `embed(text[]) → vector[]`.

#![allow(unsafe_code)]

use std::borrow::Cow;

use pgrx::{PgSqlErrorCode, pg_sys};
use pgvector_compat::vector_type_oid;

use crate::call::{Call, export};
use crate::embedder;
use crate::errors::{Failure, Outcome, error, internal};
use crate::functions::to_datum;
use crate::text::{Detoasted, to_utf8};

export!(embed_array_gte_small, pg_finfo_embed_array_gte_small, embed_array);

/// The most vectors an array can have: each takes 1544 bytes of the 1 GB that Postgres allocates
/// at a time (`MaxAllocSize`).
const MAX_ELEMENTS: usize = 0x3fff_ffff / (8 + 4 * gte_engine::DIMS);

/// Texts that are embedded at a time.
const SLICE: usize = 2048;

/// Same length, order and bounds; a NULL element stays NULL. STRICT.
fn embed_array(call: Call) -> Outcome<pg_sys::Datum> {
    let datum =
        call.argument(0).ok_or_else(|| internal("a STRICT function was called with NULL"))?;
    // SAFETY: the SQL script declares the argument as text[].
    let contents = unsafe { TextArray::deconstruct(datum) }?;
    let element_type = vector_type_oid().ok_or_else(|| {
        error(
            PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT,
            "extension \"vector\" is not installed",
            "The embeddings have no type.",
            "Run CREATE EXTENSION vector.",
        )
    })?;

    // In slices: what Postgres can't allocate ends a statement, what Rust can't ends every session
    // of the server, so Rust never holds more than some MB of vectors.
    let mut values = Vec::with_capacity(contents.elements.len());
    for slice in contents.elements.chunks(SLICE) {
        let detoasted: Vec<Option<Detoasted>> = slice
            .iter()
            // SAFETY: elements of a text[] are text, and the array outlives this function.
            .map(|element| element.map(|datum| unsafe { Detoasted::new(datum) }))
            .collect();
        let texts: Vec<Cow<'_, str>> =
            detoasted.iter().flatten().map(|text| to_utf8(text.bytes())).collect::<Outcome<_>>()?;
        let texts: Vec<&str> = texts.iter().map(Cow::as_ref).collect();
        let mut embeddings = embedder::embed_many(&texts)?.into_iter();
        for text in &detoasted {
            values.push(match text {
                None => None,
                Some(_) => {
                    let embedding =
                        embeddings.next().ok_or_else(|| internal("a text was left out"))?;
                    Some(to_datum(&embedding)?)
                }
            });
        }
    }
    // SAFETY: every value is a datum of `element_type`, and the bounds are the argument's.
    Ok(unsafe { contents.rebuild(values, element_type) })
}

fn too_many(elements: usize) -> Failure {
    error(
        PgSqlErrorCode::ERRCODE_PROGRAM_LIMIT_EXCEEDED,
        format!("array has {elements} elements, too many to embed at once"),
        format!("PostgreSQL can return an array of at most {MAX_ELEMENTS} embeddings."),
        "Embed the texts in several calls.",
    )
}

/// An array taken apart, with its bounds.
struct TextArray {
    elements: Vec<Option<pg_sys::Datum>>,
    dimensions: Vec<i32>,
    lower_bounds: Vec<i32>,
}

impl TextArray {
    /// # Safety
    /// `datum` must be a text[] that outlives the value.
    unsafe fn deconstruct(datum: pg_sys::Datum) -> Outcome<TextArray> {
        // SAFETY: the datum is an array (the caller's word) and is detoasted before it is read;
        // ARR_DIMS lies right behind the header, ARR_LBOUND behind that, `ndim` numbers each;
        // deconstruct_array gives `count` values and nulls.
        unsafe {
            let array = pg_sys::pg_detoast_datum(datum.cast_mut_ptr()).cast::<pg_sys::ArrayType>();
            let ndim = (*array).ndim as usize;
            let bounds = array.add(1).cast::<i32>();
            let dimensions = std::slice::from_raw_parts(bounds, ndim).to_vec();
            let lower_bounds = std::slice::from_raw_parts(bounds.add(ndim), ndim).to_vec();
            let elements: usize = dimensions.iter().map(|&n| n as usize).product();
            if ndim > 0 && elements > MAX_ELEMENTS {
                return Err(too_many(elements));
            }
            let (mut values, mut nulls, mut count) =
                (std::ptr::null_mut(), std::ptr::null_mut(), 0);
            pg_sys::deconstruct_array(
                array,
                pg_sys::TEXTOID,
                -1,
                false,
                pg_sys::TYPALIGN_INT as std::ffi::c_char,
                &mut values,
                &mut nulls,
                &mut count,
            );
            let elements =
                (0..count as usize).map(|i| (!*nulls.add(i)).then(|| *values.add(i))).collect();
            Ok(TextArray { elements, dimensions, lower_bounds })
        }
    }

    /// An array with the same bounds and other values.
    ///
    /// # Safety
    /// `values` must have as many elements as the array had, of type `element_type`, a varlena
    /// with int alignment.
    unsafe fn rebuild(
        mut self,
        values: Vec<Option<pg_sys::Datum>>,
        element_type: pg_sys::Oid,
    ) -> pg_sys::Datum {
        let mut nulls: Vec<bool> = values.iter().map(Option::is_none).collect();
        let mut values: Vec<pg_sys::Datum> =
            values.into_iter().map(|value| value.unwrap_or(pg_sys::Datum::null())).collect();
        // SAFETY: the caller's word on number and type; zero dimensions give an empty array.
        unsafe {
            pg_sys::Datum::from(pg_sys::construct_md_array(
                values.as_mut_ptr(),
                nulls.as_mut_ptr(),
                self.dimensions.len() as i32,
                self.dimensions.as_mut_ptr(),
                self.lower_bounds.as_mut_ptr(),
                element_type,
                -1,
                false,
                pg_sys::TYPALIGN_INT as std::ffi::c_char,
            ))
        }
    }
}
