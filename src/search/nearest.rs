//! Indexes that return rows by distance, and may miss some of them.

use pgrx::pg_sys;

/// Whether an index that is scanned in the order of an operator may miss rows. Of PostgreSQL's own
/// access methods, GiST and SP-GiST have such scans and miss none. The others come from extensions:
/// pgvector's `hnsw` and `ivfflat`, and those that index its type. Nobody promises that they are
/// complete.
pub fn may_miss_rows(access_method: pg_sys::Oid) -> bool {
    access_method != pg_sys::GIST_AM_OID && access_method != pg_sys::SPGIST_AM_OID
}
