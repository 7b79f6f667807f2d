//! Settings of other extensions, by name. A setting may not exist yet, because its library is
//! loaded later: assigning it then makes a placeholder, whose value the library takes over.

#![allow(unsafe_code)]

use std::ffi::{CStr, CString};

use pgrx::pg_sys;

/// The longest value that is looked at. A placeholder has a value of any length.
const LONGEST: usize = 64;

/// The current value; `None` if the setting does not exist, has no value, or a long one.
pub fn value(name: &CStr) -> Option<String> {
    // SAFETY: the name ends in NUL. The result is a NUL-terminated string that stays valid until
    // the next call into Postgres's settings; it is copied at once.
    unsafe {
        let value = pg_sys::GetConfigOption(name.as_ptr(), true, false);
        let value = (!value.is_null()).then(|| CStr::from_ptr(value));
        let value = value.filter(|value| value.count_bytes() <= LONGEST);
        value.map(|value| value.to_string_lossy().into_owned())
    }
}

/// The current value of an integer setting; `otherwise` if it has none or none that is a number.
pub fn integer(name: &CStr, otherwise: i32) -> i32 {
    value(name).and_then(|value| value.trim().parse().ok()).unwrap_or(otherwise)
}

/// Assigns a value that is undone when the current level of settings ends.
pub fn set_for_level(name: &CStr, value: &CStr) {
    assign(name, value, pg_sys::GucSource::PGC_S_SESSION);
}

/// As [`set_for_level`], for a number.
pub fn set_integer_for_level(name: &CStr, value: i32) {
    if let Ok(value) = CString::new(value.to_string()) {
        set_for_level(name, &value);
    }
}

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

/// The current level of settings. The transaction has one, and each subtransaction and each
/// function with a SET clause opens another.
pub fn level() -> i32 {
    // SAFETY: opens a level and closes it again; no value was assigned in it.
    unsafe {
        let inner = pg_sys::NewGUCNestLevel();
        pg_sys::AtEOXact_GUC(true, inner);
        inner - 1
    }
}

/// Whether the setting was changed on this level by SET, SET LOCAL or `set_config`. What
/// `GUC_ACTION_SAVE` assigns afterwards would last as long as that change.
pub fn is_set_on(name: &CStr, level: i32) -> bool {
    // SAFETY: the record of a setting and its stack live until Postgres changes the setting; they
    // are only read here.
    unsafe {
        let record = record(name);
        if record.is_null() || (*record).stack.is_null() {
            return false;
        }
        let last = (*record).stack;
        (*last).nest_level >= level && (*last).state != pg_sys::GucStackState::GUC_SAVE
    }
}

/// Postgres's record of a setting; null if there is none.
#[cfg(not(any(feature = "pg14", feature = "pg15")))]
unsafe fn record(name: &CStr) -> *mut pg_sys::config_generic {
    // SAFETY: looks the name up; it makes no placeholder and raises no error.
    unsafe { pg_sys::find_option(name.as_ptr(), false, true, 0) }
}

/// Before PostgreSQL 16 the look-up is private, and the table of all settings is not.
#[cfg(any(feature = "pg14", feature = "pg15"))]
unsafe fn record(name: &CStr) -> *mut pg_sys::config_generic {
    // SAFETY: the table has as many records as Postgres says, each with a NUL-terminated name.
    unsafe {
        let count = usize::try_from(pg_sys::GetNumConfigOptions()).unwrap_or(0);
        let table = pg_sys::get_guc_variables();
        (0..count)
            .map(|i| *table.add(i))
            .find(|record| {
                CStr::from_ptr((**record).name).to_bytes().eq_ignore_ascii_case(name.to_bytes())
            })
            .unwrap_or(std::ptr::null_mut())
    }
}
