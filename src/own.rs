//! Whether the vectors that are written now are the extension's own: a backfill's, or those of
//! chunks that moved. The trigger stores such vectors as they are and does not call them foreign.

#![allow(unsafe_code)]

use std::cell::Cell;

use pgrx::{FromDatum, pg_sys};

use crate::errors::{Outcome, internal};
use crate::pg::call::{Call, export};
use crate::pg::transaction::SubTransaction;

export!(own_write_gte_small, pg_finfo_own_write_gte_small, own_write);
export!(own_write_end_gte_small, pg_finfo_own_write_end_gte_small, own_write_end);

/// A statement of the extension's own. It is known by its table and its kind, because triggers of
/// the user fire within it and may write other rows.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Statement {
    /// An error ends the subtransaction, so no write after the error is in it.
    at: SubTransaction,
    table: u32,
    inserts: bool,
}

thread_local! {
    /// The statement that runs.
    static RUNNING: Cell<Option<Statement>> = const { Cell::new(None) };
}

/// Whether an INSERT into the table, or an UPDATE of it, is the extension's own.
pub fn writes(table: pg_sys::Oid, inserts: bool) -> bool {
    RUNNING.get().is_some_and(|running| {
        running == Statement { at: SubTransaction::current(), table: table.to_u32(), inserts }
    })
}

/// `gte_small.own_write(target regclass, inserts bool)`, STRICT.
fn own_write(call: Call) -> Outcome<pg_sys::Datum> {
    let (Some(table), Some(inserts)) = (call.argument(0), call.argument(1)) else {
        return Err(internal("a STRICT function was called with NULL"));
    };
    // SAFETY: the SQL script declares a regclass and a bool.
    let (table, inserts) =
        unsafe { (pg_sys::Oid::from_datum(table, false), bool::from_datum(inserts, false)) };
    let table = table.unwrap_or(pg_sys::InvalidOid).to_u32();
    let inserts = inserts.unwrap_or(false);
    RUNNING.set(Some(Statement { at: SubTransaction::current(), table, inserts }));
    Ok(pg_sys::Datum::null())
}

/// `gte_small.own_write_end()`.
fn own_write_end(_: Call) -> Outcome<pg_sys::Datum> {
    RUNNING.set(None);
    Ok(pg_sys::Datum::null())
}
