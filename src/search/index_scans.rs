//! `gte_small.index_scans()`: whether a statement may have missed rows.
//!
//! A counted search that comes back short is repeated without the index. That is futile where the
//! first statement used no index that may miss rows. Its plan tells.

#![allow(unsafe_code)]

use std::sync::OnceLock;
use std::sync::atomic::{AtomicI64, Ordering};

use pgrx::pg_sys::NodeTag;
use pgrx::{IntoDatum, pg_guard, pg_sys};

use crate::errors::{Outcome, internal};
use crate::pg::call::{Call, export};
use crate::pg::list::pointers;
use crate::search::nearest::may_miss_rows;

export!(index_scans_gte_small, pg_finfo_index_scans_gte_small, index_scans);

/// Statements that ended in this backend, and whose plan may miss rows.
static COUNT: AtomicI64 = AtomicI64::new(0);

type Hook = unsafe extern "C-unwind" fn(*mut pg_sys::QueryDesc);

/// The hook of another library; set once, when ours is installed.
static EARLIER: OnceLock<Option<Hook>> = OnceLock::new();

/// Returns the count. The first call starts the counting, so that sessions without counted searches
/// do not pay for it.
fn index_scans(_: Call) -> Outcome<pg_sys::Datum> {
    EARLIER.get_or_init(|| {
        // SAFETY: hooks are read and written by the main thread only, which this is.
        unsafe {
            let earlier = pg_sys::ExecutorEnd_hook;
            pg_sys::ExecutorEnd_hook = Some(executor_end);
            earlier
        }
    });
    COUNT.load(Ordering::Relaxed).into_datum().ok_or_else(|| internal("no datum was made"))
}

/// The end of a statement and not its start: an error in a hook passes through Rust and loses its
/// fields, and ending a statement raises none.
#[pg_guard]
unsafe extern "C-unwind" fn executor_end(query: *mut pg_sys::QueryDesc) {
    // SAFETY: Postgres passes the statement that ends. Its plan lives until the executor has ended.
    unsafe {
        if statement_may_miss_rows((*query).plannedstmt) {
            COUNT.fetch_add(1, Ordering::Relaxed);
        }
        match EARLIER.get().copied().flatten() {
            Some(earlier) => pg_sys::ffi::pg_guard_ffi_boundary(|| earlier(query)),
            None => pg_sys::standard_ExecutorEnd(query),
        }
    }
}

/// # Safety
/// `statement` must be null or valid.
unsafe fn statement_may_miss_rows(statement: *mut pg_sys::PlannedStmt) -> bool {
    // SAFETY: the caller guarantees the statement; its subplans are plans or null.
    unsafe {
        if statement.is_null() {
            return false;
        }
        let mut open = vec![(*statement).planTree];
        open.extend(pointers::<pg_sys::Plan>((*statement).subplans));
        while let Some(plan) = open.pop() {
            if plan.is_null() {
                continue;
            }
            match (*plan).type_ {
                NodeTag::T_IndexScan => {
                    let scan = plan.cast::<pg_sys::IndexScan>();
                    if by_distance((*scan).indexorderby, (*scan).indexid) {
                        return true;
                    }
                }
                NodeTag::T_IndexOnlyScan => {
                    let scan = plan.cast::<pg_sys::IndexOnlyScan>();
                    if by_distance((*scan).indexorderby, (*scan).indexid) {
                        return true;
                    }
                }
                // What another server or another extension does is unknown.
                NodeTag::T_ForeignScan | NodeTag::T_CustomScan => return true,
                NodeTag::T_Append => {
                    open.extend(pointers::<pg_sys::Plan>(
                        (*plan.cast::<pg_sys::Append>()).appendplans,
                    ));
                }
                NodeTag::T_MergeAppend => {
                    open.extend(pointers::<pg_sys::Plan>(
                        (*plan.cast::<pg_sys::MergeAppend>()).mergeplans,
                    ));
                }
                NodeTag::T_SubqueryScan => {
                    open.push((*plan.cast::<pg_sys::SubqueryScan>()).subplan);
                }
                _ => {}
            }
            open.push((*plan).lefttree);
            open.push((*plan).righttree);
        }
    }
    false
}

/// # Safety
/// `order` must be the list of an index scan, or null.
unsafe fn by_distance(order: *mut pg_sys::List, index: pg_sys::Oid) -> bool {
    if order.is_null() {
        return false;
    }
    // SAFETY: reads a row of the catalogue cache, and releases it.
    unsafe {
        let tuple = pg_sys::SearchSysCache1(
            pg_sys::SysCacheIdentifier::RELOID as i32,
            pg_sys::Datum::from(index),
        );
        if tuple.is_null() {
            return true;
        }
        let row = pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_class>();
        let access_method = (*row).relam;
        pg_sys::ReleaseSysCache(tuple);
        may_miss_rows(access_method)
    }
}
