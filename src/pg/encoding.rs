//! The encoding of the database.

#![allow(unsafe_code)]

use pgrx::pg_sys;

/// Whether the database stores UTF-8.
pub fn database_is_utf8() -> bool {
    encoding() == pg_sys::pg_enc::PG_UTF8
}

/// Whether the database accepts UTF-8 unchanged: with encoding SQL_ASCII it accepts any bytes.
pub fn database_keeps_utf8() -> bool {
    matches!(encoding(), pg_sys::pg_enc::PG_UTF8 | pg_sys::pg_enc::PG_SQL_ASCII)
}

fn encoding() -> u32 {
    // SAFETY: reads the encoding of the database that this backend is connected to.
    unsafe { pg_sys::GetDatabaseEncoding() as u32 }
}
