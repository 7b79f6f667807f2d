//! `embed_trigger()`: keeps an embedding column up to date with its text columns.
//!
//! A trigger sees the values of a row and not which columns a statement assigned, so the rules are
//! about values. The target is the embedding column, the sources are the text columns. A vector is
//! new if it is not NULL, and not the one that the row had.
//!
//! | | a new vector comes | the old vector stays | NULL comes |
//! |---|---|---|---|
//! | INSERT | it is stored | | the text is embedded |
//! | UPDATE, a source changed | the text is embedded | the text is embedded | the text is embedded |
//! | UPDATE, no source changed | it is stored | nothing happens | the old vector is stored |
//!
//! A program that writes whole rows writes vectors that it read earlier, or NULL where it did not
//! read them. Neither is right beside a text that is new, so a changed text is always embedded.
//!
//! - Under `gte_small.own_vectors` an UPDATE stores what comes: a new vector also beside a changed
//!   text, and NULL also beside an unchanged one. The latter empties a column for a backfill.
//! - A blank text (white space alone) counts as none. Without a text the embedding is NULL: the
//!   text is not embedded, and an UPDATE to NULL is stored.
//! - Under `gte_small.defer` the target becomes NULL in each case that would embed.
//! - A new vector is scaled to unit length if its length is off by more than 0.001; one without a
//!   direction is refused. It is foreign, which the note of the column says (`note::foreign`),
//!   unless this backend's model made it from this text a short while ago.
//! - A row that an UPDATE moves to another partition keeps its vector (`moved`).
//! - While the extension itself writes (`own`), vectors are stored as they are and are not foreign,
//!   and NULL is stored.
//!
//! Columns are looked up by name in the relation that fired: a partition may have them at other
//! positions than its parent.

#![allow(unsafe_code)]

use std::ffi::CStr;

use pgrx::{PgSqlErrorCode, pg_sys};
use pgvector_compat::VectorRef;

use crate::errors::{Failure, Outcome, error};
use crate::functions::embed::to_datum;
use crate::pg::call::{Call, export};
use crate::pg::text::{Detoasted, append, same_bytes};
use crate::{embedder, note, own, settings, unit};

mod columns;
mod missing;
mod moved;
use columns::Source;

export!(embed_trigger_gte_small, pg_finfo_embed_trigger_gte_small, embed_trigger);

fn embed_trigger(call: Call) -> Outcome<pg_sys::Datum> {
    let trigger = Trigger::of(call)?;
    let arguments = trigger.arguments()?;
    let (column, sources) = arguments.split_at(1);
    let row = Row {
        target: trigger.target(&column[0])?,
        sources: sources.iter().map(|name| trigger.source(name)).collect::<Outcome<_>>()?,
        column: &column[0],
        trigger,
    };
    let stored = row.stored()?;
    row.remember(stored);
    Ok(pg_sys::Datum::from(stored))
}

/// A row that is to be stored, with its columns.
struct Row<'a> {
    trigger: Trigger,
    target: i32,
    column: &'a CStr,
    sources: Vec<Source>,
}

impl Row<'_> {
    /// The row by the rules of this module.
    fn stored(&self) -> Outcome<pg_sys::HeapTuple> {
        let insert = self.trigger.old.is_null();
        let before = if insert { None } else { self.trigger.value(self.trigger.old, self.target) };
        let comes = self.trigger.value(self.trigger.new, self.target);
        // SAFETY: both are values of the target, which was checked to be a vector.
        let is_new = |vector| !before.is_some_and(|before| unsafe { same_bytes(before, vector) });
        let vector = comes.filter(|&vector| is_new(vector));
        // A backfill's vector is of the text that the row had before the user's triggers.
        let takes_vectors = insert || settings::own_vectors() && !self.is_own();
        match vector {
            Some(vector) if takes_vectors || !self.text_changed() => self.with_vector(vector),
            None if !insert && !self.text_changed() => match before {
                Some(before) if comes.is_none() => self.with_old_vector(before),
                _ => Ok(self.trigger.new),
            },
            vector => self.with_embedding(vector),
        }
    }

    fn text_changed(&self) -> bool {
        let Trigger { old, new, .. } = self.trigger;
        self.sources.iter().any(|source| {
            let value = |row| self.trigger.value(row, source.number);
            // SAFETY: both are values of the source.
            !unsafe { source.same(value(old), value(new)) }
        })
    }

    /// With the embedding of the text, which is `vector` if the model made it a short while ago:
    /// an upsert brings the vector that its INSERT has made.
    fn with_embedding(&self, vector: Option<pg_sys::Datum>) -> Outcome<pg_sys::HeapTuple> {
        // The old vector must not stay beside the new text, so without an embedding the target is
        // NULL.
        let embedding = match settings::defer() {
            true => None,
            false => self.read_text(|text| {
                let Some(text) = text else {
                    return Ok(None);
                };
                match vector {
                    Some(vector) if made(text, &self.payload(vector)) => Ok(Some(vector)),
                    _ => to_datum(&*embedder::embed_one(text)?).map(Some),
                }
            })?,
        };
        if embedding.is_some() {
            self.record_write()?;
        }
        Ok(self.trigger.with_target(self.target, embedding))
    }

    /// With the new vector that comes along.
    fn with_vector(&self, vector: pg_sys::Datum) -> Outcome<pg_sys::HeapTuple> {
        if self.is_own() || self.was_moved() {
            return Ok(self.trigger.new);
        }
        let payload = self.payload(vector);
        let scaled = unit::scaled(payload.bytes())?;
        // SAFETY: the trigger is valid during the call.
        if !unsafe { note::foreign::is_noted((*self.trigger.data).tg_trigger) } {
            // A text that can't be read is none that the model has read.
            let own = embedder::is_loaded()
                && self
                    .read_text(|text| Ok(text.is_some_and(|text| made(text, &payload))))
                    .unwrap_or(false);
            if own { self.record_write() } else { self.record_foreign() }?;
        }
        Ok(match scaled {
            Some(scaled) => self.trigger.with_target(self.target, Some(scaled)),
            None => self.trigger.new,
        })
    }

    /// With the vector that the row had, where NULL comes beside an unchanged text.
    fn with_old_vector(&self, before: pg_sys::Datum) -> Outcome<pg_sys::HeapTuple> {
        if self.is_own() || settings::own_vectors() || self.is_blank() {
            return Ok(self.trigger.new);
        }
        Ok(self.trigger.with_target(self.target, Some(before)))
    }

    /// Whether the extension itself writes the row.
    fn is_own(&self) -> bool {
        // SAFETY: the relation is open during the call.
        let table = unsafe { (*(*self.trigger.data).tg_relation).rd_id };
        own::writes(table, self.trigger.old.is_null())
    }

    /// Whether an UPDATE moves the row here from another partition.
    fn was_moved(&self) -> bool {
        self.trigger.old.is_null()
            && self.trigger.is_partition()
            && self.fingerprint(self.trigger.new).matches_last()
    }

    /// What the INSERT trigger of another partition needs to know of the row.
    fn remember(&self, stored: pg_sys::HeapTuple) {
        if !self.trigger.old.is_null() && self.trigger.is_partition() {
            self.fingerprint(stored).remember();
        }
    }

    fn fingerprint(&self, row: pg_sys::HeapTuple) -> moved::Fingerprint {
        let mut fingerprint = moved::Fingerprint::new();
        let texts = self.sources.iter().filter(|source| source.is_varlena());
        for number in texts.map(|source| source.number).chain([self.target]) {
            // SAFETY: the target is a vector, and the source a text.
            unsafe { fingerprint.add(self.trigger.value(row, number)) };
        }
        fingerprint
    }

    fn payload(&self, vector: pg_sys::Datum) -> Detoasted {
        // SAFETY: a value of the target, which was checked to be a vector; the row outlives it.
        unsafe { Detoasted::new(vector) }
    }

    /// The sources of the row that are not NULL, with their values.
    fn values(&self) -> impl Iterator<Item = (&Source, pg_sys::Datum)> {
        let row = self.trigger.new;
        self.sources
            .iter()
            .filter_map(move |source| Some((source, self.trigger.value(row, source.number)?)))
    }

    /// Whether the row has no text: all sources are NULL or blank.
    fn is_blank(&self) -> bool {
        // SAFETY: the values of the sources.
        self.values().all(|(source, datum)| unsafe { source.is_blank(datum) })
    }

    /// Passes the text to `action`: the sources that are not NULL, joined by newlines, or `None` if
    /// all of it is blank. The text of a single source is not copied.
    fn read_text<T>(&self, action: impl FnOnce(Option<&str>) -> Outcome<T>) -> Outcome<T> {
        if self.is_blank() {
            return action(None);
        }
        let mut values = self.values().map(|(source, datum)| {
            // SAFETY: a value of the source; the row outlives it.
            unsafe { source.read(datum) }
        });
        let Some(first) = values.next() else {
            return action(None);
        };
        let Some(mut next) = values.next() else {
            return action(Some(&first.text()?));
        };
        let mut joined = append(String::new(), &first.text()?)?;
        drop(first);
        loop {
            joined = append(append(joined, "\n")?, &next.text()?)?;
            match values.next() {
                Some(value) => next = value,
                None => break,
            }
        }
        drop(next);
        action(Some(&joined))
    }

    /// Records in the note of the column that the loaded model writes to it.
    fn record_write(&self) -> Outcome<()> {
        let data = self.trigger.data;
        // SAFETY: the relation is open during the call, and the trigger is one of its triggers.
        unsafe { note::record_write((*data).tg_relation, (*data).tg_trigger, self.column) }
    }

    /// Records in the note of the column that a foreign vector is written to it.
    fn record_foreign(&self) -> Outcome<()> {
        let data = self.trigger.data;
        // SAFETY: as in `record_write`.
        unsafe { note::foreign::record((*data).tg_relation, (*data).tg_trigger) }
    }
}

/// Whether the model in use made the vector from the text a short while ago.
fn made(text: &str, payload: &Detoasted) -> bool {
    VectorRef::from_payload(payload.bytes()).is_ok_and(|vector| embedder::made(text, vector))
}

/// The row event for which the trigger function was called.
struct Trigger {
    data: *const pg_sys::TriggerData,
    descriptor: pg_sys::TupleDesc,
    /// The row before the UPDATE; null for an INSERT.
    old: pg_sys::HeapTuple,
    /// The row that is to be stored.
    new: pg_sys::HeapTuple,
}

impl Trigger {
    /// Checks that the event is BEFORE INSERT OR UPDATE, FOR EACH ROW.
    fn of(call: Call) -> Outcome<Trigger> {
        use pgrx::trigger_support as fired;
        // SAFETY: `info` belongs to the call. Its context is a TriggerData if its node tag says so;
        // the relation and the tuples in it are valid during the call.
        unsafe {
            if !fired::called_as_trigger(call.info()) {
                return Err(misuse("embed_trigger() was not called as a trigger"));
            }
            let data = (*call.info()).context.cast::<pg_sys::TriggerData>();
            let event = (*data).tg_event;
            if !fired::trigger_fired_for_row(event) {
                return Err(misuse("embed_trigger() was fired for a statement"));
            }
            if !fired::trigger_fired_before(event) {
                return Err(misuse("embed_trigger() was fired after the row was stored"));
            }
            let update = fired::trigger_fired_by_update(event);
            if !update && !fired::trigger_fired_by_insert(event) {
                return Err(misuse("embed_trigger() was fired by a DELETE"));
            }
            let row = (*data).tg_trigtuple;
            let (old, new) =
                if update { (row, (*data).tg_newtuple) } else { (std::ptr::null_mut(), row) };
            Ok(Trigger { data, descriptor: (*(*data).tg_relation).rd_att, old, new })
        }
    }

    fn is_partition(&self) -> bool {
        // SAFETY: the relation is open during the call.
        unsafe { (*(*(*self.data).tg_relation).rd_rel).relispartition }
    }

    fn value(&self, tuple: pg_sys::HeapTuple, number: i32) -> Option<pg_sys::Datum> {
        let mut is_null = false;
        // SAFETY: the tuple has this descriptor, and `column` checked the number.
        let datum = unsafe { pg_sys::SPI_getbinval(tuple, self.descriptor, number, &mut is_null) };
        (!is_null).then_some(datum)
    }

    fn with_target(&self, number: i32, value: Option<pg_sys::Datum>) -> pg_sys::HeapTuple {
        let (mut number, mut is_null) = (number, value.is_none());
        let mut datum = value.unwrap_or(pg_sys::Datum::null());
        // SAFETY: one attribute number, one value of its type and one null flag.
        unsafe {
            pg_sys::heap_modify_tuple_by_cols(
                self.new,
                self.descriptor,
                1,
                &raw mut number,
                &raw mut datum,
                &raw mut is_null,
            )
        }
    }
}

fn misuse(fact: &str) -> Failure {
    error(
        PgSqlErrorCode::ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED,
        fact,
        "It can only fill a column of a row that is about to be stored.",
        "Create it as BEFORE INSERT OR UPDATE ... FOR EACH ROW EXECUTE FUNCTION embed_trigger(...).",
    )
}
