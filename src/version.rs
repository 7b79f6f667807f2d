//! Compares the version of the extension's SQL in this database with the version of the library.
//!
//! `make install` replaces the library for all databases of a server, and `ALTER EXTENSION` updates
//! the SQL of one database. So a session may have SQL and library of different versions. It is told
//! once, at its first use of the model.

#![allow(unsafe_code)]

use std::cell::Cell;
use std::cmp::Ordering;
use std::ffi::CStr;
use std::num::NonZeroUsize;

use pgrx::{PgLogLevel, PgSqlErrorCode, pg_sys};

use crate::errors::error;
use crate::pg::text::{Detoasted, to_utf8};

/// The name of the extension in the catalogue.
pub const EXTENSION: &CStr = c"gte-small";

/// The version of this library.
const LIBRARY: &str = env!("CARGO_PKG_VERSION");

const LOCK: pg_sys::LOCKMODE = pg_sys::AccessShareLock as pg_sys::LOCKMODE;

thread_local! {
    /// Whether this backend has compared the versions.
    static COMPARED: Cell<bool> = const { Cell::new(false) };
}

/// Compares the versions once per session, and warns if they differ. Raises no error.
pub fn compare_once() {
    if COMPARED.get() || !is_session() || !lock_catalogue() {
        return;
    }
    COMPARED.set(true);
    let sql = installed();
    if let Some(sql) = sql.filter(|sql| sql != LIBRARY) {
        warn(&sql);
    }
}

/// Whether a client can read the warning, and a catalogue can be read. Parallel workers and
/// autovacuum would repeat the warning each time one of them starts.
fn is_session() -> bool {
    // SAFETY: a plain value of this backend, and a check of the transaction's state.
    unsafe {
        pg_sys::MyBackendType == pg_sys::BackendType::B_BACKEND && pg_sys::IsTransactionState()
    }
}

/// Does not wait, because waiting can end in an error: `lock_timeout` or a deadlock. False only
/// while another session rewrites the catalogue; the next call tries again.
fn lock_catalogue() -> bool {
    // SAFETY: a lock on a catalogue that exists in every database; `installed` releases it.
    unsafe { pg_sys::ConditionalLockRelationOid(pg_sys::ExtensionRelationId, LOCK) }
}

/// `extversion` of the extension in this database. The caller has locked the catalogue.
fn installed() -> Option<String> {
    // SAFETY: an index scan for one name, with a catalogue snapshot of its own. The catalogue is
    // locked and open during the scan, and the tuple is read before the scan ends.
    unsafe {
        let catalogue =
            pg_sys::table_open(pg_sys::ExtensionRelationId, pg_sys::NoLock as pg_sys::LOCKMODE);
        let mut key = pg_sys::ScanKeyData::default();
        pg_sys::ScanKeyInit(
            &raw mut key,
            pg_sys::Anum_pg_extension_extname as pg_sys::AttrNumber,
            pg_sys::BTEqualStrategyNumber as pg_sys::StrategyNumber,
            pg_sys::F_NAMEEQ.into(),
            pg_sys::Datum::from(EXTENSION.as_ptr()),
        );
        let index = pg_sys::ExtensionNameIndexId.into();
        let scan = pg_sys::systable_beginscan(
            catalogue,
            index,
            true,
            std::ptr::null_mut(),
            1,
            &raw mut key,
        );
        let tuple = pg_sys::systable_getnext(scan);
        let attribute = NonZeroUsize::new(pg_sys::Anum_pg_extension_extversion as usize);
        let version = attribute
            .filter(|_| !tuple.is_null())
            .and_then(|n| pgrx::htup::heap_getattr_raw(tuple, n, (*catalogue).rd_att))
            .and_then(|datum| to_utf8(Detoasted::new(datum).bytes()).ok().map(String::from));
        pg_sys::systable_endscan(scan);
        pg_sys::table_close(catalogue, LOCK);
        version
    }
}

/// The numbers of a version such as `0.2.0`; `None` for another form.
fn numbers(version: &str) -> Option<Vec<u32>> {
    version.split('.').map(|part| part.parse().ok()).collect()
}

fn warn(sql: &str) {
    let order = numbers(sql).zip(numbers(LIBRARY)).map(|(sql, library)| sql.cmp(&library));
    let (consequence, action) = if order == Some(Ordering::Greater) {
        (
            format!("Functions that version {sql} added or changed may fail in this session."),
            format!(
                "Connect again, or restart a server with shared_preload_libraries. If that does not help, install the library of version {sql} with \"make install\"."
            ),
        )
    } else {
        (
            format!(
                "Functions of version {sql} work as before. What version {LIBRARY} added or mended in SQL is missing."
            ),
            "As a superuser, run: ALTER EXTENSION \"gte-small\" UPDATE".to_owned(),
        )
    };
    error(
        PgSqlErrorCode::ERRCODE_WARNING,
        format!(
            "extension \"gte-small\" has version {sql} in this database, and its library has version {LIBRARY}"
        ),
        consequence,
        action,
    )
    .report(PgLogLevel::WARNING);
}
