//! Shards of Citus. Citus creates the trigger of a distributed table on each shard and does not copy
//! its comment. So the trigger of a shard begins with an empty note, while a trigger without a
//! comment on another table has none. `embedding_status()` puts the notes of the shards together.

#![allow(unsafe_code)]

use pgrx::pg_sys;

const CITUS: &std::ffi::CStr = c"citus";
const CATALOG: &std::ffi::CStr = c"pg_catalog";
const KNOWS_SHARDS: &std::ffi::CStr = c"relation_is_a_known_shard";

/// Whether a table is a shard. False where Citus is not installed.
pub(super) fn is_shard(table: pg_sys::Oid) -> bool {
    // SAFETY: look-ups in catalogues. The function is called only if it is Citus's; it takes a
    // regclass and returns a boolean.
    unsafe {
        let citus = pg_sys::get_extension_oid(CITUS.as_ptr(), true);
        if citus == pg_sys::InvalidOid {
            return false;
        }
        let names =
            [CATALOG, KNOWS_SHARDS].into_iter().fold(std::ptr::null_mut(), |names, part| {
                pg_sys::lappend(names, pg_sys::makeString(part.as_ptr().cast_mut()).cast())
            });
        let argument = pg_sys::REGCLASSOID;
        let function = pg_sys::LookupFuncName(names, 1, &raw const argument, true);
        function != pg_sys::InvalidOid
            && pg_sys::getExtensionOfObject(pg_sys::ProcedureRelationId, function) == citus
            && pg_sys::OidFunctionCall1Coll(function, pg_sys::InvalidOid, table.into()).value() != 0
    }
}
