//! [`Vector`] as an argument and a result of SQL functions.

#![allow(unsafe_code)]

use pgrx::callconv::{Arg, ArgAbi, BoxRet, FcInfo};
use pgrx::datum::{Datum, FromDatum, IntoDatum, UnboxDatum};
use pgrx::{PgSqlErrorCode, ereport, pg_sys, varlena};

use crate::{LayoutError, Vector, VectorRef, vector_type_oid};

pgrx::impl_sql_translatable!(Vector, "vector");

impl IntoDatum for Vector {
    /// A new varlena in the current memory context.
    fn into_datum(self) -> Option<pg_sys::Datum> {
        let size = pg_sys::VARHDRSZ + self.payload_len();
        // SAFETY: palloc returns `size` writable bytes or raises an error. The payload follows the
        // 4-byte header; header and payload are both written before the datum is returned.
        unsafe {
            let datum = pg_sys::palloc(size).cast::<pg_sys::varlena>();
            // At most 64,008 bytes, so it fits an i32.
            varlena::set_varsize_4b(datum, size as i32);
            let payload = datum.cast::<u8>().add(pg_sys::VARHDRSZ);
            payload.write_bytes(0, self.payload_len());
            self.write_payload(std::slice::from_raw_parts_mut(payload, self.payload_len()));
            Some(pg_sys::Datum::from(datum))
        }
    }

    fn type_oid() -> pg_sys::Oid {
        vector_type_oid().unwrap_or(pg_sys::InvalidOid)
    }
}

impl FromDatum for Vector {
    /// Reads a datum of the type `vector`, toasted or not.
    ///
    /// Raises an SQL error (XX001) if the bytes are not a vector.
    unsafe fn from_polymorphic_datum(
        datum: pg_sys::Datum,
        is_null: bool,
        _typoid: pg_sys::Oid,
    ) -> Option<Vector> {
        if is_null {
            return None;
        }
        // SAFETY: the caller guarantees a non-null datum of a varlena type. Its detoasted copy, or
        // the datum itself, is valid until its memory context is deleted, which is after this call.
        let result = unsafe {
            let stored = datum.cast_mut_ptr::<pg_sys::varlena>();
            let plain = pg_sys::pg_detoast_datum_packed(stored);
            let vector =
                VectorRef::from_payload(varlena::varlena_to_byte_slice(plain)).map(Vector::from);
            if !std::ptr::eq(plain, stored) {
                pg_sys::pfree(plain.cast());
            }
            vector
        };
        Some(result.unwrap_or_else(|error| refuse(&error)))
    }
}

fn refuse(error: &LayoutError) -> ! {
    ereport!(
        ERROR,
        PgSqlErrorCode::ERRCODE_DATA_CORRUPTED,
        format!("invalid vector: {error}"),
        "The value was not written by a known version of pgvector."
    );
}

// SAFETY: `As` is the owned type itself, which borrows nothing from the datum.
unsafe impl UnboxDatum for Vector {
    type As<'src> = Vector;

    unsafe fn unbox<'src>(datum: Datum<'src>) -> Vector
    where
        Self: 'src,
    {
        // SAFETY: the caller guarantees a non-null datum of the type `vector`.
        let vector = unsafe {
            Vector::from_polymorphic_datum(datum.sans_lifetime(), false, pg_sys::InvalidOid)
        };
        vector.unwrap_or_else(|| refuse(&LayoutError::TooShort { bytes: 0 }))
    }
}

// SAFETY: the argument is read by `FromDatum`, which copies it.
unsafe impl<'fcx> ArgAbi<'fcx> for Vector {
    unsafe fn unbox_arg_unchecked(arg: Arg<'_, 'fcx>) -> Vector {
        // SAFETY: the caller guarantees an argument of the type `vector` that is not null.
        let vector = unsafe { arg.unbox_arg_using_from_datum() };
        vector.unwrap_or_else(|| refuse(&LayoutError::TooShort { bytes: 0 }))
    }
}

// SAFETY: the datum returned is a varlena of the type `vector` in the current memory context.
unsafe impl BoxRet for Vector {
    unsafe fn box_into<'fcx>(self, fcinfo: &mut FcInfo<'fcx>) -> Datum<'fcx> {
        match self.into_datum() {
            // SAFETY: the datum has the type `vector`, the declared result type of the function.
            Some(datum) => unsafe { fcinfo.return_raw_datum(datum) },
            None => fcinfo.return_null(),
        }
    }
}
