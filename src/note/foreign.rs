//! Foreign vectors: those that a statement brought along and the model in use did not make. The
//! first one sets `foreign` in the note of its column, and nobody knows then whose the column's
//! vectors are. `embed_verify()` compares all of them with their texts, and removes `foreign`. It sets
//! `foreign` where it finds a vector that is not its text's.
//!
//! A transaction notes it once for each table. What it remembers of that holds for one
//! subtransaction, so it does not survive a ROLLBACK TO SAVEPOINT that takes the note back.
//!
//! A transaction that writes foreign vectors into a column that is noted already does not change
//! the note. So it holds a lock, [`PART`] of the trigger, which `embed_verify()` needs alone: it
//! removes `foreign` only when no such transaction is open, and has looked at their rows. A writer
//! waits for that lock for the moment in which `embed_verify()` settles the column. No statement
//! but these two takes it, so it takes no part in a deadlock with DROP TRIGGER.

#![allow(unsafe_code)]

use std::cell::RefCell;
use std::collections::HashSet;

use pgrx::{FromDatum, IntoDatum, pg_sys};
use serde_json::Value;

use super::{Note, Origin, for_each_trigger};
use crate::embedder::Model;
use crate::errors::{Outcome, from_engine, internal};
use crate::pg::call::{Call, export};
use crate::pg::transaction::SubTransaction;

export!(note_lock_gte_small, pg_finfo_note_lock_gte_small, note_lock);
export!(note_settle_gte_small, pg_finfo_note_settle_gte_small, note_settle);
export!(note_wrong_gte_small, pg_finfo_note_wrong_gte_small, note_wrong);

/// The key in the note.
const FOREIGN: &str = "foreign";

/// Beside it: a comparison found vectors that are not of their texts. Only then is it known that
/// the rows must be embedded again.
const WRONG: &str = "wrong";

/// The part of a trigger, as an object with columns has them, that the lock is on.
const PART: u16 = 1;

thread_local! {
    /// The triggers whose notes are known to have [`FOREIGN`] in this subtransaction.
    static NOTED: RefCell<Option<(SubTransaction, HashSet<u32>)>> = const { RefCell::new(None) };
}

/// Whether [`record`] has nothing to do.
///
/// # Safety
/// `trigger` must be valid.
pub unsafe fn is_noted(trigger: *const pg_sys::Trigger) -> bool {
    // SAFETY: the caller guarantees the pointer.
    let trigger = unsafe { (*trigger).tgoid.to_u32() };
    NOTED.with_borrow(|noted| {
        noted.as_ref().is_some_and(|(at, triggers)| {
            triggers.contains(&trigger) && *at == SubTransaction::current()
        })
    })
}

/// Notes that a foreign vector is about to be stored. While another transaction holds the lock on
/// the note, the note is left to it, and the next row tries again.
///
/// # Safety
/// As for [`super::record_write`].
pub unsafe fn record(relation: pg_sys::Relation, trigger: *const pg_sys::Trigger) -> Outcome<()> {
    // SAFETY: plain flags of this backend; the caller guarantees both pointers.
    let origin = unsafe {
        if pg_sys::XactReadOnly || pg_sys::RecoveryInProgress() {
            return Ok(());
        }
        Origin::of(relation, trigger)
    };
    let Some(origin) = origin.filter(|origin| origin.note().is_some()) else {
        return Ok(());
    };
    origin.acquire(PART, pg_sys::ShareLock, true);
    if !origin.note().is_some_and(|note| note.is_foreign()) {
        if !origin.lock() {
            return Ok(());
        }
        let Some(mut note) = origin.note() else {
            return Ok(());
        };
        if note.content.insert(FOREIGN.to_owned(), Value::from(true)) != Some(Value::from(true)) {
            origin.store(&note)?;
        }
    }
    // SAFETY: the caller guarantees the pointer.
    let trigger = unsafe { (*trigger).tgoid.to_u32() };
    let now = SubTransaction::current();
    NOTED.with_borrow_mut(|noted| match noted {
        Some((at, triggers)) if *at == now => {
            triggers.insert(trigger);
        }
        _ => *noted = Some((now, HashSet::from([trigger]))),
    });
    Ok(())
}

/// `gte_small.note_lock(target regclass, embedding name) → bool`, STRICT: until the end of the
/// transaction, no other one writes foreign vectors into the column. False if one does so now, or
/// if the table's rows are a part of those that the note is about.
fn note_lock(call: Call) -> Outcome<pg_sys::Datum> {
    on_note(call, |origin| Ok(origin.acquire(PART, pg_sys::ExclusiveLock, false)))
}

/// `gte_small.note_wrong(target regclass, embedding name) → bool`, STRICT: sets `foreign` and
/// `wrong`, because a comparison found vectors that the model in use did not make. False if another
/// transaction is changing the note.
fn note_wrong(call: Call) -> Outcome<pg_sys::Datum> {
    let (Some(target), Some(column)) = (call.argument(0), call.argument(1)) else {
        return Err(internal("a STRICT function was called with NULL"));
    };
    let mut noted = false;
    // SAFETY: the SQL script declares a regclass and a name. The relation is open in the closure,
    // and the trigger is one of its triggers.
    unsafe {
        for_each_trigger(target, column, |relation, trigger, _| {
            let Some(origin) = Origin::of(relation, trigger) else {
                return Ok(());
            };
            if !origin.lock() {
                return Ok(());
            }
            if let Some(mut note) = origin.note() {
                let known = |former| former == Some(Value::from(true));
                let foreign = known(note.content.insert(FOREIGN.to_owned(), Value::from(true)));
                let wrong = known(note.content.insert(WRONG.to_owned(), Value::from(true)));
                if !(foreign && wrong) {
                    origin.store(&note)?;
                }
                noted = true;
            }
            Ok(())
        })?;
    }
    noted.into_datum().ok_or_else(|| internal("no datum was made"))
}

/// `gte_small.note_settle(target regclass, embedding name, verified bool) → bool`, STRICT: takes
/// `foreign` and `wrong` out of the note. If the column was verified, all its vectors are of the loaded model.
/// False if another transaction is changing the note, or is writing foreign vectors.
fn note_settle(call: Call) -> Outcome<pg_sys::Datum> {
    // SAFETY: the SQL script declares a bool.
    let verified = call.argument(2).and_then(|value| unsafe { bool::from_datum(value, false) });
    let verified = verified.unwrap_or(false);
    on_note(call, |origin| {
        if !origin.acquire(PART, pg_sys::ExclusiveLock, false) || !origin.lock() {
            return Ok(false);
        }
        let Some(mut note) = origin.note() else {
            return Ok(false);
        };
        if verified && note.force().is_some() {
            return Ok(false);
        }
        let mut changed = note.content.remove(FOREIGN).is_some();
        changed |= note.content.remove(WRONG).is_some();
        if verified {
            let model = Model::current()?;
            let identity = model.encoder()?.identity().map_err(|e| from_engine(&e))?;
            for key in ["mixed", "outdated", "empty", super::began::BEGAN] {
                changed |= note.content.remove(key).is_some();
            }
            let fingerprint = Value::from(identity.fingerprint.as_str());
            changed |= note.content.insert("fingerprint".to_owned(), fingerprint.clone())
                != Some(fingerprint);
        }
        if changed {
            origin.store(&note)?;
        }
        NOTED.take();
        Ok(true)
    })
}

/// The result of `action` for the note of a column; false if the table has no note of its own.
fn on_note(call: Call, mut action: impl FnMut(&Origin) -> Outcome<bool>) -> Outcome<pg_sys::Datum> {
    let (Some(target), Some(column)) = (call.argument(0), call.argument(1)) else {
        return Err(internal("a STRICT function was called with NULL"));
    };
    let mut result = None;
    // SAFETY: the SQL script declares a regclass and a name. The relation is open in the closure,
    // and the trigger is one of its triggers.
    unsafe {
        for_each_trigger(target, column, |relation, trigger, _| {
            let origin = Origin::of(relation, trigger);
            let own = origin.filter(|origin| origin.table == (*relation).rd_id);
            let done = match own {
                Some(origin) => action(&origin)?,
                None => false,
            };
            result = Some(result.unwrap_or(true) && done);
            Ok(())
        })?;
    }
    result.unwrap_or(false).into_datum().ok_or_else(|| internal("no datum was made"))
}

impl Note {
    fn is_foreign(&self) -> bool {
        self.content.get(FOREIGN) == Some(&Value::from(true))
    }
}
