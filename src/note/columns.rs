//! What the columns of a trigger are called now. A trigger knows them by strings, its arguments,
//! which follow no RENAME. So the note has the numbers of the columns as well, which a rename does
//! not change:
//!
//! ```json
//! {"columns": {"table": "7436290146243587421/16402", "numbers": {"embedding": 3, "content": 2}}}
//! ```
//!
//! - A name that the table has is that column.
//! - Otherwise the number counts, if `table` is this table. A restored table has other numbers, and
//!   by chance the same OID, so `table` begins with the identifier of the cluster.
//! - A partition may have other numbers than its parent, but has the same names: the number counts
//!   in the parent.

#![allow(unsafe_code)]

use std::ffi::{CStr, CString};

use pgrx::{FromDatum, IntoDatum, pg_sys};
use serde_json::Value;

use super::{LONGEST, Origin};
use crate::errors::{Outcome, hold_for_json, internal};
use crate::pg::call::{Call, export};
use crate::pg::text::{Detoasted, to_utf8};

export!(column_name_now_gte_small, pg_finfo_column_name_now_gte_small, column_name_now);
export!(table_place_gte_small, pg_finfo_table_place_gte_small, table_place);

/// The key in the note.
const COLUMNS: &str = "columns";

/// The names as the columns are called now. A name for which no column is found stays.
///
/// # Safety
/// As for [`super::record_write`].
pub unsafe fn now(
    relation: pg_sys::Relation,
    trigger: *const pg_sys::Trigger,
    names: Vec<CString>,
) -> Vec<CString> {
    // SAFETY: the caller guarantees the pointer.
    let table = unsafe { (*relation).rd_id };
    if names.iter().all(|name| has_column(table, name)) {
        return names;
    }
    // SAFETY: the caller guarantees both pointers.
    let Some(origin) = (unsafe { Origin::of(relation, trigger) }) else {
        return names;
    };
    let note = origin.note();
    let Some(columns) = note.as_ref().and_then(|note| note.content.get(COLUMNS)) else {
        return names;
    };
    let now = |name: CString| match has_column(table, &name) {
        true => name,
        false => by_number(table, origin.table, &name, columns).unwrap_or(name),
    };
    names.into_iter().map(now).collect()
}

/// `gte_small.column_name_now(target regclass, owner regclass, named name, noted text) → name`,
/// STRICT: `noted` is what the note of `owner` has under [`COLUMNS`]; `target` is the same table, or
/// a partition of it.
fn column_name_now(call: Call) -> Outcome<pg_sys::Datum> {
    let arguments = (call.argument(0), call.argument(1), call.argument(2), call.argument(3));
    let (Some(target), Some(owner), Some(named), Some(noted)) = arguments else {
        return Err(internal("a STRICT function was called with NULL"));
    };
    // SAFETY: the SQL script declares two regclass, a name, which is NUL-terminated, and a text.
    // The arguments outlive the call.
    let (table, owner, name, noted) = unsafe {
        let table = pg_sys::Oid::from_datum(target, false).unwrap_or(pg_sys::InvalidOid);
        let owner = pg_sys::Oid::from_datum(owner, false).unwrap_or(pg_sys::InvalidOid);
        (table, owner, CStr::from_ptr(named.cast_mut_ptr()), Detoasted::new(noted))
    };
    if has_column(table, name) {
        return Ok(named);
    }
    if noted.bytes().len() > LONGEST {
        return Ok(named);
    }
    let _hold = hold_for_json(noted.bytes().len());
    let columns: Option<Value> = serde_json::from_str(&to_utf8(noted.bytes())?).ok();
    let Some(found) = columns.and_then(|columns| by_number(table, owner, name, &columns)) else {
        return Ok(named);
    };
    // SAFETY: a new NameData, which the string fits in, because it is the name of a column.
    unsafe {
        let result = pg_sys::palloc0(size_of::<pg_sys::NameData>()).cast::<pg_sys::NameData>();
        pg_sys::namestrcpy(result, found.as_ptr());
        Ok(pg_sys::Datum::from(result))
    }
}

/// `gte_small.table_place(target regclass) → text`, STRICT: which table of which cluster.
fn table_place(call: Call) -> Outcome<pg_sys::Datum> {
    // SAFETY: the SQL script declares a regclass.
    let table =
        call.argument(0).and_then(|target| unsafe { pg_sys::Oid::from_datum(target, false) });
    let table = table.ok_or_else(|| internal("a STRICT function was called with NULL"))?;
    place(table).into_datum().ok_or_else(|| internal("no datum was made"))
}

fn place(table: pg_sys::Oid) -> String {
    // SAFETY: reads a number of the control file that is in memory.
    let cluster = unsafe { pg_sys::GetSystemIdentifier() };
    format!("{cluster}/{}", table.to_u32())
}

/// The column that had this name when its number was noted.
fn by_number(
    table: pg_sys::Oid,
    owner: pg_sys::Oid,
    name: &CStr,
    columns: &Value,
) -> Option<CString> {
    if columns.get("table")?.as_str()? != place(owner) {
        return None;
    }
    let name = to_utf8(name.to_bytes()).ok()?;
    let number = columns.get("numbers")?.get(&*name)?.as_i64()?;
    let number = pg_sys::AttrNumber::try_from(number).ok().filter(|&number| number > 0)?;
    // SAFETY: a catalogue look-up; the result is null or a new NUL-terminated string.
    let found = unsafe {
        let found = pg_sys::get_attname(owner, number, true);
        if found.is_null() {
            return None;
        }
        CStr::from_ptr(found).to_owned()
    };
    // A dropped column has a name that no look-up finds.
    has_column(table, &found).then_some(found)
}

fn has_column(table: pg_sys::Oid, name: &CStr) -> bool {
    // SAFETY: a catalogue look-up by a NUL-terminated name.
    unsafe { pg_sys::get_attnum(table, name.as_ptr()) > 0 }
}
