//! `gte_small.backfill_force_acquire()`: the lock of a forced backfill.

#![allow(unsafe_code)]

use std::ffi::CStr;

use pgrx::{FromDatum, IntoDatum, PgSqlErrorCode, pg_sys};

use crate::errors::{Outcome, error, internal};
use crate::pg::call::{Call, export};
use crate::pg::text::readable;

export!(
    backfill_force_acquire_gte_small,
    pg_finfo_backfill_force_acquire_gte_small,
    backfill_force_acquire
);

/// The part of a table's lock tag that makes it the lock of a forced backfill. Postgres takes locks
/// on tables by another type of tag, and SQL has no statement that takes this one. `pg_locks` shows
/// it as `objsubid`; sql/extension/52-backfill-force.sql reads it there.
const FORCE: u16 = 26_484;

/// `backfill_force_acquire(target regclass) → boolean`, STRICT. Takes the lock until the end of the
/// transaction. Does not wait: false if another transaction holds it. Only the owner of the table
/// gets it, so that nobody else can keep a backfill from running.
fn backfill_force_acquire(call: Call) -> Outcome<pg_sys::Datum> {
    let target =
        call.argument(0).ok_or_else(|| internal("a STRICT function was called with NULL"))?;
    // SAFETY: the SQL script declares the argument as regclass. The tag is complete, and as
    // LockDatabaseObject makes it.
    let result = unsafe {
        let target = pg_sys::Oid::from_datum(target, false).unwrap_or(pg_sys::InvalidOid);
        require_owner(target)?;
        let tag = pg_sys::LOCKTAG {
            locktag_field1: pg_sys::MyDatabaseId.to_u32(),
            locktag_field2: pg_sys::RelationRelationId.to_u32(),
            locktag_field3: target.to_u32(),
            locktag_field4: FORCE,
            locktag_type: pg_sys::LockTagType::LOCKTAG_OBJECT as u8,
            locktag_lockmethodid: pg_sys::DEFAULT_LOCKMETHOD as u8,
        };
        let mode = pg_sys::ExclusiveLock as pg_sys::LOCKMODE;
        pg_sys::LockAcquire(&raw const tag, mode, false, true)
    };
    let acquired = result != pg_sys::LockAcquireResult::LOCKACQUIRE_NOT_AVAIL;
    acquired.into_datum().ok_or_else(|| internal("a boolean has no datum"))
}

/// As for ALTER TABLE: the owner, members of the owner, and superusers.
fn require_owner(table: pg_sys::Oid) -> Outcome<()> {
    // SAFETY: catalogue look-ups by OID; the name is null if there is no such relation.
    unsafe {
        let name = pg_sys::get_rel_name(table);
        if name.is_null() {
            return Err(error(
                PgSqlErrorCode::ERRCODE_UNDEFINED_TABLE,
                format!("relation with OID {} does not exist", table.to_u32()),
                "Nothing was locked.",
                "Name a table that exists.",
            ));
        }
        let user = pg_sys::GetUserId();
        #[cfg(any(feature = "pg14", feature = "pg15"))]
        let owns = pg_sys::pg_class_ownercheck(table, user);
        #[cfg(not(any(feature = "pg14", feature = "pg15")))]
        let owns = pg_sys::object_ownercheck(pg_sys::RelationRelationId, table, user);
        if owns {
            return Ok(());
        }
        Err(error(
            PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
            format!("must be owner of table {}", readable(CStr::from_ptr(name))),
            "Only the owner may embed all rows again. Nothing was locked.",
            "Ask the owner, or embed the rows that have no embedding.",
        ))
    }
}
