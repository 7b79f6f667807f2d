//! `gte_small.below(distance, bound)`: a search without LIMIT is exact.
//!
//! An index by distance returns a part of the rows, and at a low `random_page_cost` the planner
//! takes it for all rows of a table. The function compares as `<` does. Its support function tells
//! the library, in the same planning, that it is in the query. The library then hides such indexes
//! from every query level that has the function and that no LIMIT ends early.

#![allow(unsafe_code)]

use std::ffi::c_void;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use pgrx::pg_sys::NodeTag;
use pgrx::{is_a, pg_guard, pg_sys};

use crate::errors::{Outcome, internal};
use crate::pg::call::{Call, export};
use crate::pg::list::pointers;
use crate::search::nearest::may_miss_rows;

export!(below_support_gte_small, pg_finfo_below_support_gte_small, below_support);

type Hook = unsafe extern "C-unwind" fn(
    *mut pg_sys::PlannerInfo,
    pg_sys::Oid,
    bool,
    *mut pg_sys::RelOptInfo,
);

/// The hook of another library; set once, when ours is installed.
static EARLIER: OnceLock<Option<Hook>> = OnceLock::new();

/// The function's OID in the last query that has it; 0 before. A query with the function renews it
/// before its relations are looked at, so an extension that was created again has its new OID.
static BELOW: AtomicU32 = AtomicU32::new(0);

/// Installs the hook. Called once, by `_PG_init`.
pub fn install() {
    EARLIER.get_or_init(|| {
        // SAFETY: hooks are read and written by the main thread only, which this is.
        unsafe {
            let earlier = pg_sys::get_relation_info_hook;
            pg_sys::get_relation_info_hook = Some(relation_info);
            earlier
        }
    });
}

/// The support function, STRICT. It simplifies nothing.
fn below_support(call: Call) -> Outcome<pg_sys::Datum> {
    let request =
        call.argument(0).ok_or_else(|| internal("a STRICT function was called with NULL"))?;
    let request: *mut pg_sys::Node = request.cast_mut_ptr();
    // SAFETY: only Postgres can make a value of type internal; for a support function it is a
    // request with a node tag.
    unsafe {
        if is_a(request, NodeTag::T_SupportRequestSimplify) {
            let request = request.cast::<pg_sys::SupportRequestSimplify>();
            BELOW.store((*(*request).fcall).funcid.to_u32(), Ordering::Relaxed);
        }
    }
    Ok(pg_sys::Datum::from(0))
}

/// Postgres has read what it knows of a relation; its indexes are about to become paths.
#[pg_guard]
unsafe extern "C-unwind" fn relation_info(
    root: *mut pg_sys::PlannerInfo,
    relation: pg_sys::Oid,
    is_parent: bool,
    info: *mut pg_sys::RelOptInfo,
) {
    // SAFETY: Postgres passes valid pointers; the list of indexes belongs to this planning.
    unsafe {
        if let Some(earlier) = EARLIER.get().copied().flatten() {
            pg_sys::ffi::pg_guard_ffi_boundary(|| earlier(root, relation, is_parent, info));
        }
        let below = BELOW.load(Ordering::Relaxed);
        if below != 0 && has_index_to_hide(info) && !ends_early(root) && is_marked(root, below) {
            hide_indexes(info);
        }
    }
}

/// # Safety
/// `index` must be valid.
unsafe fn is_to_hide(index: *mut pg_sys::IndexOptInfo) -> bool {
    // SAFETY: the caller guarantees the pointer.
    unsafe { (*index).amcanorderbyop && may_miss_rows((*index).relam) }
}

/// # Safety
/// `info` must be valid.
unsafe fn has_index_to_hide(info: *mut pg_sys::RelOptInfo) -> bool {
    // SAFETY: the caller guarantees the relation; its list holds indexes.
    unsafe { pointers((*info).indexlist).any(|index| is_to_hide(index)) }
}

/// # Safety
/// `info` must be valid.
unsafe fn hide_indexes(info: *mut pg_sys::RelOptInfo) {
    // SAFETY: the caller guarantees the relation. The list is deleted from its end, so the numbers
    // of the indexes before stay right.
    unsafe {
        let hidden: Vec<bool> =
            pointers((*info).indexlist).map(|index| is_to_hide(index)).collect();
        for n in (0..hidden.len()).rev().filter(|n| hidden[*n]) {
            (*info).indexlist = pg_sys::list_delete_nth_cell((*info).indexlist, n as i32);
        }
    }
}

/// Whether a LIMIT ends this query level before it has returned all rows. Postgres hands the number
/// of rows down from an outer LIMIT as a fraction. It has a fraction without a LIMIT for cursors,
/// EXISTS and IN; then all rows may be asked for. A level that is planned for such a sublink has a
/// parent without a fraction, because sublinks are planned before the parent's own LIMIT is read.
///
/// # Safety
/// `root` must be valid.
unsafe fn ends_early(root: *mut pg_sys::PlannerInfo) -> bool {
    // SAFETY: the caller guarantees the level; its parents live as long as it does.
    unsafe {
        let mut level = root;
        while !level.is_null() && (*level).tuple_fraction > 0.0 {
            let query = (*level).parse;
            if query.is_null() || reads_all_rows(query) {
                return false;
            }
            if is_limit((*query).limitCount) {
                return true;
            }
            level = (*level).parent_root;
        }
    }
    false
}

/// Whether something between the rows and a LIMIT needs all of them. Postgres itself hands no
/// fraction through most of these, but through window functions it does: `count(*) over ()` beside
/// a LIMIT counts all rows.
///
/// # Safety
/// `query` must be valid.
unsafe fn reads_all_rows(query: *mut pg_sys::Query) -> bool {
    // SAFETY: the caller guarantees the query.
    unsafe {
        (*query).hasAggs
            || (*query).hasWindowFuncs
            || !(*query).groupClause.is_null()
            || !(*query).groupingSets.is_null()
            || !(*query).havingQual.is_null()
            || !(*query).distinctClause.is_null()
            || !(*query).setOperations.is_null()
    }
}

/// Whether the expression limits the rows. LIMIT ALL and LIMIT NULL are a constant NULL.
///
/// # Safety
/// `count` must be the expression of a LIMIT, or null.
unsafe fn is_limit(count: *mut pg_sys::Node) -> bool {
    // SAFETY: the caller guarantees the expression.
    unsafe {
        if count.is_null() {
            return false;
        }
        let is_null_constant =
            is_a(count, NodeTag::T_Const) && (*count.cast::<pg_sys::Const>()).constisnull;
        !is_null_constant
    }
}

/// Whether a condition of this query level has the function. Building an index and CLUSTER plan
/// with a query that has no conditions.
///
/// # Safety
/// `root` must be valid.
unsafe fn is_marked(root: *mut pg_sys::PlannerInfo, mut below: u32) -> bool {
    // SAFETY: the caller guarantees the level. The walker reads the number during the call only.
    unsafe {
        let query = (*root).parse;
        !query.is_null()
            && has_function((*query).jointree.cast(), (&raw mut below).cast::<c_void>())
    }
}

/// # Safety
/// `node` must be null or valid; `below` must point to the OID of the function.
#[pg_guard]
unsafe extern "C-unwind" fn has_function(node: *mut pg_sys::Node, below: *mut c_void) -> bool {
    // SAFETY: the caller guarantees both.
    unsafe {
        if node.is_null() {
            return false;
        }
        if is_a(node, NodeTag::T_FuncExpr) {
            let function = (*node.cast::<pg_sys::FuncExpr>()).funcid.to_u32();
            if function == *below.cast::<u32>() {
                return true;
            }
        }
        pg_sys::expression_tree_walker(node, Some(has_function), below)
    }
}
