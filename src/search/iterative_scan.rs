//! The default of pgvector's `hnsw.iterative_scan` in sessions that use this library.
//!
//! pgvector's own default is `off`: a search with a filter ends after 40 candidates, whatever LIMIT
//! says. `strict_order` goes on, in the order of the distances. `relaxed_order` would find more
//! rows, but in two-argument searches nothing sorts them again.
//!
//! Every explicit setting stays. Not covered: where a reload finds that the setting was removed from
//! postgresql.conf, running sessions get pgvector's default.

use std::ffi::CStr;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::pg::guc;

const NAME: &CStr = c"hnsw.iterative_scan";

/// Whether settings may be assigned: not while our own are being defined. Before PostgreSQL 16 a
/// new placeholder moves the table of settings, and defining one keeps a pointer into it.
static READY: AtomicBool = AtomicBool::new(false);

/// Whether the default was raised in this process or in the postmaster.
static RAISED: AtomicBool = AtomicBool::new(false);

/// Raises the default if `wanted`. Called once, after our settings were defined.
pub fn begin(wanted: bool) {
    READY.store(true, Ordering::Relaxed);
    follow(wanted);
}

/// Raises the default, or puts pgvector's own back.
pub fn follow(wanted: bool) {
    if !READY.load(Ordering::Relaxed) {
        return;
    }
    if wanted {
        guc::set_default(NAME, c"strict_order");
        RAISED.store(true, Ordering::Relaxed);
    } else if RAISED.load(Ordering::Relaxed) {
        guc::set_default(NAME, c"off");
    }
}
