//! Settings of other extensions, by name. A setting may not exist yet, because its library is
//! loaded later: assigning it then makes a placeholder, whose value the library takes over.

#![allow(unsafe_code)]

use std::ffi::CStr;

use pgrx::pg_sys;

/// Changes the default: every explicit setting stays, and RESET leads to the new default. It is not
/// undone at the end of the transaction.
pub fn set_default(name: &CStr, value: &CStr) {
    assign(name, value, pg_sys::GucSource::PGC_S_DYNAMIC_DEFAULT);
}

/// `GUC_ACTION_SAVE` is the only action that Postgres allows in parallel operations. A failure is
/// not an error: a pgvector without such a setting searches as it always did.
fn assign(name: &CStr, value: &CStr, source: pg_sys::GucSource::Type) {
    // SAFETY: both strings end in NUL, and Postgres copies them.
    unsafe {
        pg_sys::set_config_option(
            name.as_ptr(),
            value.as_ptr(),
            pg_sys::GucContext::PGC_USERSET,
            source,
            pg_sys::GucAction::GUC_ACTION_SAVE,
            true,
            pg_sys::DEBUG1 as i32,
            false,
        );
    }
}
