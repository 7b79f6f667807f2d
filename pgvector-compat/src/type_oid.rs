//! The OID of pgvector's type `vector`, with any `search_path` and in any schema.
//!
//! The name alone is not enough: a user can create another type or domain named `vector` that comes
//! first in the `search_path`. The type must be named `vector` and belong to the extension
//! `vector`.

#![allow(unsafe_code)]

use std::ffi::CStr;

use pgrx::pg_sys;

const NAME: &CStr = c"vector";

/// The OID of the type; `None` if the extension is not installed in this database.
pub fn vector_type_oid() -> Option<pg_sys::Oid> {
    let extension = extension_oid()?;
    // SAFETY: a catalogue look-up by a NUL-terminated name, inside a transaction.
    let visible = unsafe { pg_sys::TypenameGetTypid(NAME.as_ptr()) };
    if visible != pg_sys::InvalidOid && extension_of_type(visible) == Some(extension) {
        return Some(visible);
    }
    let schema = extension_schema(extension)?;
    // SAFETY: the keys of TYPENAMENSP are a name and the OID of a schema; the name outlives the
    // call.
    let oid = unsafe {
        pg_sys::GetSysCacheOid(
            pg_sys::SysCacheIdentifier::TYPENAMENSP as i32,
            pg_sys::Anum_pg_type_oid as i16,
            pg_sys::Datum::from(NAME.as_ptr()),
            pg_sys::Datum::from(schema),
            pg_sys::Datum::null(),
            pg_sys::Datum::null(),
        )
    };
    (oid != pg_sys::InvalidOid && extension_of_type(oid) == Some(extension)).then_some(oid)
}

/// Whether `oid` is pgvector's type `vector`.
pub fn is_vector_type(oid: pg_sys::Oid) -> bool {
    oid != pg_sys::InvalidOid && vector_type_oid() == Some(oid)
}

fn extension_oid() -> Option<pg_sys::Oid> {
    // SAFETY: a catalogue look-up by a NUL-terminated name; missing_ok is true, so a missing
    // extension gives InvalidOid.
    let oid = unsafe { pg_sys::get_extension_oid(NAME.as_ptr(), true) };
    (oid != pg_sys::InvalidOid).then_some(oid)
}

fn extension_of_type(oid: pg_sys::Oid) -> Option<pg_sys::Oid> {
    // SAFETY: a catalogue look-up by OID.
    let extension = unsafe { pg_sys::getExtensionOfObject(pg_sys::TypeRelationId, oid) };
    (extension != pg_sys::InvalidOid).then_some(extension)
}

/// The schema of an extension's objects. Postgres has `get_extension_schema` for it only from
/// version 16 on, so this is the same scan.
fn extension_schema(extension: pg_sys::Oid) -> Option<pg_sys::Oid> {
    // SAFETY: the relation is open and locked during the scan, and the tuple is read before the
    // scan ends. After an error the resource owner closes both.
    unsafe {
        let relation =
            pg_sys::table_open(pg_sys::ExtensionRelationId, pg_sys::AccessShareLock as i32);
        let mut key = pg_sys::ScanKeyData::default();
        pg_sys::ScanKeyInit(
            &mut key,
            pg_sys::Anum_pg_extension_oid as i16,
            pg_sys::BTEqualStrategyNumber as u16,
            pg_sys::F_OIDEQ.into(),
            pg_sys::Datum::from(extension),
        );
        let scan = pg_sys::systable_beginscan(
            relation,
            pg_sys::ExtensionOidIndexId.into(),
            true,
            std::ptr::null_mut(),
            1,
            &mut key,
        );
        let tuple = pg_sys::systable_getnext(scan);
        let schema = (!tuple.is_null()).then(|| {
            (*pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_extension>()).extnamespace
        });
        pg_sys::systable_endscan(scan);
        pg_sys::table_close(relation, pg_sys::AccessShareLock as i32);
        schema
    }
}
