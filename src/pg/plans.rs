//! The plans that a session keeps: of prepared statements, and of functions in PL/pgSQL and SQL.

#![allow(unsafe_code)]

use pgrx::pg_sys;

/// Makes the session plan its statements anew. `embed` is IMMUTABLE, so a plan holds the vector of
/// `embed('a constant')`, and keeps it when another model is chosen.
pub fn forget() {
    // SAFETY: it marks the plans, allocates nothing and raises no error. PostgreSQL itself calls it
    // where session_replication_role is assigned. The main thread runs this.
    unsafe { pg_sys::ResetPlanCache() }
}
