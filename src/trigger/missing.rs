//! The error for a column that a trigger names and that is not found: it was dropped, or it was
//! renamed and the note of the column does not have its number (`note::columns`). PostgreSQL knows
//! the arguments of a trigger as strings only.

#![allow(unsafe_code)]

use std::ffi::{CStr, CString};

use pgrx::{PgSqlErrorCode, pg_sys};
use pgvector_compat::is_vector_type;

use super::Trigger;
use super::columns::is_source;
use crate::errors::{Failure, Outcome, error};
use crate::note;
use crate::pg::text::readable;

/// The error. Its hint is the statement that mends the trigger, as far as that can be known.
pub fn column(trigger: &Trigger, name: &CStr) -> Outcome<Failure> {
    let arguments = trigger.arguments()?;
    let is_target = arguments.first().is_some_and(|target| target.as_c_str() == name);
    let renamed = only_candidate(trigger, &arguments, is_target);
    // A dropped column leaves its place in the descriptor.
    let dropped = attributes(trigger).iter().any(|attribute| attribute.attisdropped);
    let renaming = renamed.as_deref().map(|renamed| {
        let now = arguments.iter().map(|argument| match argument.as_c_str() {
            argument if argument == name => renamed,
            argument => argument,
        });
        (readable(renamed), made_again(trigger, &now.collect::<Vec<_>>()))
    });
    let hint = match renaming {
        Some((_, statement)) if !dropped => statement,
        Some((renamed, statement)) => format!(
            "If it is called \"{renamed}\" now: {statement} If it was dropped: {}",
            dropping(trigger)
        ),
        None => format!(
            "Create the trigger again with the columns as they are called now: {} Or: {}",
            made_again(trigger, &[arguments[0].as_c_str(), c"..."]),
            dropping(trigger)
        ),
    };
    Ok(error(
        PgSqlErrorCode::ERRCODE_UNDEFINED_COLUMN,
        format!("column {} does not exist", trigger.named(name)),
        format!(
            "Trigger \"{}\" names it, and follows no RENAME and no DROP COLUMN. The row was not stored.",
            readable(trigger_name(trigger))
        ),
        hint,
    ))
}

/// The column that the missing one may be called now, if there is only one: no argument of the
/// trigger, and of a fitting type.
fn only_candidate(trigger: &Trigger, arguments: &[CString], is_target: bool) -> Option<CString> {
    let attributes = attributes(trigger);
    let mut candidates = attributes.iter().filter_map(|attribute| {
        let fits = match is_target {
            true => !attribute.attisdropped && is_vector_type(attribute.atttypid),
            false => is_source(attribute),
        };
        // SAFETY: a NameData is NUL-terminated.
        let name = unsafe { CStr::from_ptr(attribute.attname.data.as_ptr()) };
        let is_named = arguments.iter().any(|argument| argument.as_c_str() == name);
        (fits && !is_named).then(|| name.to_owned())
    });
    let first = candidates.next()?;
    candidates.next().is_none().then_some(first)
}

fn attributes(trigger: &Trigger) -> Vec<pg_sys::FormData_pg_attribute> {
    // SAFETY: the descriptor belongs to the relation, which is open during the call; it is read and
    // not released.
    let columns = unsafe { pgrx::PgTupleDesc::from_pg_unchecked(trigger.descriptor) };
    (0..columns.len()).filter_map(|index| columns.get(index).copied()).collect()
}

/// A statement that creates the trigger with other arguments. OR REPLACE keeps its comment, which
/// is the note of the column.
fn made_again(trigger: &Trigger, arguments: &[&CStr]) -> String {
    let literals: Vec<String> = arguments
        .iter()
        // SAFETY: a NUL-terminated string; the result is a new one.
        .map(|argument| unsafe { taken(pg_sys::quote_literal_cstr(argument.as_ptr())) })
        .collect();
    // SAFETY: the trigger and the relation are valid during the call; the strings are new.
    let (name, function) = unsafe {
        let name = taken(pg_sys::quote_identifier(trigger_name(trigger).as_ptr()));
        let function = (*(*trigger.data).tg_trigger).tgfoid;
        let schema = pg_sys::get_namespace_name(pg_sys::get_func_namespace(function));
        let function = pg_sys::get_func_name(function);
        (name, taken(pg_sys::quote_qualified_identifier(schema, function)))
    };
    format!(
        "CREATE OR REPLACE TRIGGER {name} BEFORE INSERT OR UPDATE ON {} FOR EACH ROW EXECUTE FUNCTION {function}({});",
        table(trigger),
        literals.join(", ")
    )
}

fn dropping(trigger: &Trigger) -> String {
    // SAFETY: a NUL-terminated string.
    let name = unsafe { taken(pg_sys::quote_identifier(trigger_name(trigger).as_ptr())) };
    format!("DROP TRIGGER {name} ON {};", table(trigger))
}

fn trigger_name(trigger: &Trigger) -> &CStr {
    // SAFETY: the trigger is valid during the call, and its name is NUL-terminated.
    unsafe { CStr::from_ptr((*(*trigger.data).tg_trigger).tgname) }
}

/// The table that the trigger was created on, with its schema. For a partition that is the table
/// from whose trigger its own was cloned.
fn table(trigger: &Trigger) -> String {
    // SAFETY: the relation is open during the call, and the trigger is one of its triggers. The
    // names are new strings, or null if the table is gone.
    unsafe {
        let (relation, own) = ((*trigger.data).tg_relation, (*trigger.data).tg_trigger);
        let table = note::origin_table(relation, own).unwrap_or((*relation).rd_id);
        let name = pg_sys::get_rel_name(table);
        if name.is_null() {
            return "...".to_owned();
        }
        let schema = pg_sys::get_namespace_name(pg_sys::get_rel_namespace(table));
        taken(pg_sys::quote_qualified_identifier(schema, name))
    }
}

/// # Safety
/// `text` must be NUL-terminated.
unsafe fn taken(text: *const std::ffi::c_char) -> String {
    // SAFETY: the caller guarantees it.
    readable(unsafe { CStr::from_ptr(text) })
}
