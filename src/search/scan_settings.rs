//! `gte_small.scan_settings(target, most)`: pgvector's settings for a search for `most` rows.

#![allow(unsafe_code)]

use std::ffi::CStr;

use pgrx::{FromDatum, PgSqlErrorCode, pg_sys};

use crate::errors::{Outcome, error, internal};
use crate::pg::call::{Call, export};
use crate::pg::guc;

export!(scan_settings_gte_small, pg_finfo_scan_settings_gte_small, scan_settings);

const ITERATIVE_SCAN: &CStr = c"hnsw.iterative_scan";
const EF_SEARCH: &CStr = c"hnsw.ef_search";
const MAX_SCAN_TUPLES: &CStr = c"hnsw.max_scan_tuples";

/// pgvector's defaults, for sessions in which its library is not loaded yet.
const DEFAULT_EF_SEARCH: i32 = 40;
const DEFAULT_MAX_SCAN_TUPLES: i32 = 20_000;
/// pgvector's limit.
const MAX_EF_SEARCH: i32 = 1000;

/// With more rows, 64 candidates have a recall of about .92 for 10 rows; 100 take 0.1 ms more.
const LARGE_TABLE: f32 = 50_000.0;

/// From here on, rounds of 100 candidates are cheaper than one round of all, and find as much.
const ROUNDS_FROM: i32 = 800;

/// STRICT. Sets `hnsw.iterative_scan`, `hnsw.ef_search` and `hnsw.max_scan_tuples` until the
/// calling function ends. Its SET clause, whatever it sets, opens the level on which they are
/// undone, by errors too.
fn scan_settings(call: Call) -> Outcome<pg_sys::Datum> {
    let (Some(target), Some(most)) = (call.argument(0), call.argument(1)) else {
        return Err(internal("a STRICT function was called with NULL"));
    };
    // SAFETY: the SQL script declares the arguments as regclass and int4.
    let arguments =
        unsafe { (pg_sys::Oid::from_datum(target, false), i32::from_datum(most, false)) };
    let (Some(target), Some(most)) = arguments else {
        return Err(internal("an argument has another type than declared"));
    };
    require_own_level()?;

    // strict_order discards the rows that come late, at 1,000 rows more than a quarter of them.
    if guc::value(ITERATIVE_SCAN).as_deref() != Some("relaxed_order") {
        guc::set_for_level(ITERATIVE_SCAN, c"relaxed_order");
    }
    let rows = estimated_rows(target);
    let current = guc::integer(EF_SEARCH, DEFAULT_EF_SEARCH);
    let wanted = ef_search(current, most.max(0), rows.unwrap_or(0.0));
    if wanted != current {
        guc::set_integer_for_level(EF_SEARCH, wanted);
    }
    let limit = guc::integer(MAX_SCAN_TUPLES, DEFAULT_MAX_SCAN_TUPLES);
    if let Some(worthwhile) = rows.map(tuples_worthwhile)
        && worthwhile < limit
    {
        guc::set_integer_for_level(MAX_SCAN_TUPLES, worthwhile);
    }
    Ok(pg_sys::Datum::from(0))
}

/// The settings must have a level of their own. Without one they would last to the end of the
/// transaction, or even of the session where the user has set them in this transaction.
fn require_own_level() -> Outcome<()> {
    let level = guc::level();
    // SAFETY: reads the number of open transactions and subtransactions; each has one level.
    let transactions = unsafe { pg_sys::GetCurrentTransactionNestLevel() };
    let settings = [ITERATIVE_SCAN, EF_SEARCH, MAX_SCAN_TUPLES];
    if level > transactions && !settings.iter().any(|name| guc::is_set_on(name, level)) {
        return Ok(());
    }
    Err(error(
        PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        "gte_small.scan_settings was called outside of a search function",
        "Its settings would last longer than the search.",
        "Call a search function that enable_semantic_search() made. If this is one, run enable_semantic_search() again: its SET clause is missing.",
    ))
}

/// Candidates of a round: all rows that are wanted, an eighth for what deleted rows and policies
/// take away, and a few that tell the end of a tie. One row more than the candidates would cost
/// another round. At least so many that 10 rows of a large table are found with a recall of more
/// than .93. A higher value of the user stays.
fn ef_search(current: i32, most: i32, rows: f32) -> i32 {
    let least = if rows > LARGE_TABLE { 100 } else { 64 };
    let wanted = if most > ROUNDS_FROM { 100 } else { (most + most / 8 + 4).max(least) };
    wanted.min(MAX_EF_SEARCH).max(current)
}

/// Where an iterative scan gives up, so that it costs about as much as the exact scan that follows:
/// a tuple of the index costs as much as seven rows.
fn tuples_worthwhile(rows: f32) -> i32 {
    // The estimate of a table that grew may be far too low, hence the least value.
    ((rows / 7.0) as i32).max(1000)
}

/// The rows of a table by its last VACUUM or ANALYZE. `None` if there was none.
fn estimated_rows(target: pg_sys::Oid) -> Option<f32> {
    // SAFETY: reads a row of the catalogue cache, and releases it.
    let rows = unsafe {
        let tuple = pg_sys::SearchSysCache1(
            pg_sys::SysCacheIdentifier::RELOID as i32,
            pg_sys::Datum::from(target),
        );
        if tuple.is_null() {
            return None;
        }
        let row = pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_class>();
        let rows = (*row).reltuples;
        pg_sys::ReleaseSysCache(tuple);
        rows
    };
    (rows > 0.0).then_some(rows)
}
