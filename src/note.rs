//! The note of an embedding column: which model its vectors are of.
//!
//! The note is JSON in the comment of the column's trigger, `gte-small {"fingerprint": ...}`.
//! Partitions share the note of their parent's trigger. What a write does to the note:
//!
//! - `fingerprint` is absent, or `empty` is true: there were no vectors. `fingerprint` becomes the
//!   model that wrote, and `began` tells when (see [`began`]).
//! - `fingerprint` is the model that wrote, or null (the column had vectors of unknown models):
//!   nothing changes.
//! - `fingerprint` is another model: `mixed` becomes true. A warning is raised, once per session
//!   and table.
//! - `force` is present: all rows are being embedded again. A write by the model
//!   `force.fingerprint` changes nothing. A write by another model sets `force.mixed` and warns.
//!
//! A vector that the model in use did not make sets `foreign` (see [`foreign`]). The note also says
//! which columns the trigger is about (see [`columns`]).
//!
//! The note is read for each row that is embedded and never cached: a cached note would be wrong
//! after a ROLLBACK TO SAVEPOINT or a COMMENT in the same transaction. Reading takes 4 µs, and the
//! model runs for milliseconds. The note changes a few times in the life of a table.

#![allow(unsafe_code)]

use std::cell::RefCell;
use std::collections::HashSet;
use std::ffi::{CStr, CString};
use std::rc::Rc;

use gte_engine::memory::Hold;
use pgrx::{FromDatum, PgLogLevel, PgSqlErrorCode, pg_sys};
use serde_json::{Map, Value};

use crate::embedder::Model;
use crate::errors::{Failure, Outcome, error, from_engine, hold_for_json, internal};
use crate::pg::call::{Call, export};
use crate::pg::encoding::database_keeps_utf8;
use crate::pg::text::{readable, to_utf8};
use crate::version::EXTENSION;

pub mod began;
pub mod columns;
pub mod foreign;
mod shard;

/// The column that a trigger without arguments fills.
pub const DEFAULT_TARGET: &CStr = c"embedding";

/// The trigger function that fills a column.
const EMBED_TRIGGER: &CStr = c"embed_trigger";

/// The beginning of a comment that is a note; JSON follows.
const PREFIX: &str = "gte-small ";

/// Bytes of a note, at most. One that names 1,600 columns has 120 kB.
const LONGEST: usize = 256 << 10;

export!(embedding_written_gte_small, pg_finfo_embedding_written_gte_small, embedding_written);

thread_local! {
    /// Tables whose mixed embeddings this backend has warned about.
    static WARNED: RefCell<HashSet<u32>> = RefCell::new(HashSet::new());
}

/// Updates the note after the loaded model's embedding was written to `column`, which `trigger` of
/// `relation` fills. Does not wait: while another transaction holds the lock on the note, the note
/// is left unchanged, and the write of the next row tries again.
///
/// # Safety
/// `relation` must be open, and `trigger` one of its triggers.
pub unsafe fn record_write(
    relation: pg_sys::Relation,
    trigger: *const pg_sys::Trigger,
    column: &CStr,
) -> Outcome<()> {
    // A read-only transaction may write to temporary tables, but not to a catalogue.
    // SAFETY: plain flags of this backend.
    if unsafe { pg_sys::XactReadOnly || pg_sys::RecoveryInProgress() } {
        return Ok(());
    }
    // SAFETY: the caller guarantees both pointers.
    let Some(origin) = (unsafe { Origin::of(relation, trigger) }) else {
        return Ok(());
    };
    let Some(note) = origin.note() else {
        return Ok(());
    };
    // Not earlier, because the first call of `identity` in a backend takes 50 ms.
    if !note.depends_on_model() {
        return Ok(());
    }
    let model = Model::current()?;
    let fingerprint = &model.encoder()?.identity().map_err(|e| from_engine(&e))?.fingerprint;
    let mut verdict = note.after_write(fingerprint);
    if verdict.changed.is_some() && origin.lock() {
        // Reads the note again: under the lock no other transaction changes it.
        let Some(note) = origin.note() else {
            return Ok(());
        };
        verdict = note.after_write(fingerprint);
        if let Some(changed) = &verdict.changed {
            origin.store(changed)?;
        }
    }
    if verdict.foreign && WARNED.with_borrow_mut(|warned| warned.insert(origin.table.to_u32())) {
        origin.warn(column);
    }
    Ok(())
}

/// The table on which a trigger was created, for a partition's trigger that of its parent. `None` if
/// that trigger was dropped meanwhile.
///
/// # Safety
/// As for [`record_write`].
pub unsafe fn origin_table(
    relation: pg_sys::Relation,
    trigger: *const pg_sys::Trigger,
) -> Option<pg_sys::Oid> {
    // SAFETY: the caller guarantees both pointers.
    unsafe { Origin::of(relation, trigger) }.map(|origin| origin.table)
}

/// `embedding_written(target regclass, embedding name)`, STRICT: [`record_write`] for a backfill.
/// The trigger does not embed in a backfill's UPDATE, and so does not record it.
fn embedding_written(call: Call) -> Outcome<pg_sys::Datum> {
    let (Some(target), Some(column)) = (call.argument(0), call.argument(1)) else {
        return Err(internal("a STRICT function was called with NULL"));
    };
    // SAFETY: the SQL script declares a regclass and a name.
    unsafe {
        for_each_trigger(target, column, |relation, trigger, column| {
            record_write(relation, trigger, column)
        })?;
    }
    Ok(pg_sys::Datum::null())
}

/// Calls `action` for each trigger that fills a column, with its open relation. The current user
/// must have the privilege to write to the table.
///
/// # Safety
/// `target` must be a regclass, and `column` a name.
unsafe fn for_each_trigger(
    target: pg_sys::Datum,
    column: pg_sys::Datum,
    mut action: impl FnMut(pg_sys::Relation, *const pg_sys::Trigger, &CStr) -> Outcome<()>,
) -> Outcome<()> {
    // SAFETY: the caller guarantees both datums; a name is NUL-terminated. The lock is the one that
    // a write takes; until the end of the transaction it keeps the triggers unchanged.
    unsafe {
        let target = pg_sys::Oid::from_datum(target, false).unwrap_or(pg_sys::InvalidOid);
        let column = CStr::from_ptr(column.cast_mut_ptr());
        require_write_privilege(target)?;
        if pg_sys::RecoveryInProgress() {
            return Ok(());
        }
        let lock = pg_sys::RowExclusiveLock as pg_sys::LOCKMODE;
        let relation = pg_sys::try_relation_open(target, lock);
        if relation.is_null() {
            return Err(no_such_table(target));
        }
        let done = triggers_for(relation, column)
            .into_iter()
            .try_for_each(|trigger| action(relation, trigger, column));
        pg_sys::relation_close(relation, pg_sys::NoLock as pg_sys::LOCKMODE);
        done
    }
}

/// Only a role that may write to a table may change the note of its columns.
fn require_write_privilege(table: pg_sys::Oid) -> Outcome<()> {
    let mode = pg_sys::AclMode::from(pg_sys::ACL_INSERT | pg_sys::ACL_UPDATE);
    // SAFETY: catalogue look-ups by OID; the name is null if there is no such relation.
    unsafe {
        let name = pg_sys::get_rel_name(table);
        if name.is_null() {
            return Err(no_such_table(table));
        }
        let (user, granted) = (pg_sys::GetUserId(), pg_sys::AclResult::ACLCHECK_OK);
        let any = pg_sys::AclMaskHow::ACLMASK_ANY;
        if pg_sys::pg_class_aclcheck(table, user, mode) == granted
            || pg_sys::pg_attribute_aclcheck_all(table, user, mode, any) == granted
        {
            return Ok(());
        }
        Err(error(
            PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
            format!("permission denied for table {}", readable(CStr::from_ptr(name))),
            "Only a role that may write to the table may change the note of its embedding column.",
            "Ask the table's owner for the privilege INSERT or UPDATE.",
        ))
    }
}

fn no_such_table(table: pg_sys::Oid) -> Failure {
    error(
        PgSqlErrorCode::ERRCODE_UNDEFINED_TABLE,
        format!("relation with OID {} does not exist", table.to_u32()),
        "Nothing was noted.",
        "Name a table that exists.",
    )
}

/// The triggers of this extension that fill a column.
///
/// # Safety
/// `relation` must be open; the pointers are valid as long as it is open.
unsafe fn triggers_for(relation: pg_sys::Relation, column: &CStr) -> Vec<*const pg_sys::Trigger> {
    // SAFETY: trigdesc is null or has numtriggers triggers, each with tgnargs strings.
    unsafe {
        let extension = pg_sys::get_extension_oid(EXTENSION.as_ptr(), true);
        let Some(descriptor) = (*relation).trigdesc.as_ref() else {
            return Vec::new();
        };
        (0..descriptor.numtriggers as usize)
            .map(|i| descriptor.triggers.add(i).cast_const())
            .filter(|&trigger| {
                // The extension has other trigger functions, which fill no column.
                let name = pg_sys::get_func_name((*trigger).tgfoid);
                !name.is_null()
                    && CStr::from_ptr(name) == EMBED_TRIGGER
                    && pg_sys::getExtensionOfObject(pg_sys::ProcedureRelationId, (*trigger).tgfoid)
                        == extension
            })
            .filter(|&trigger| {
                let target = match (*trigger).tgnargs {
                    0 => DEFAULT_TARGET,
                    _ => CStr::from_ptr(*(*trigger).tgargs),
                };
                let now = columns::now(relation, trigger, vec![target.to_owned()]);
                now.iter().any(|target| target.as_c_str() == column)
            })
            .collect()
    }
}

/// A note that was read.
#[derive(Clone)]
struct Note {
    content: Map<String, Value>,
    /// Memory for the content and a copy.
    _memory: Rc<Option<Hold>>,
}

/// The effect of a write on a note.
struct Verdict {
    /// The new note, if the write changes it.
    changed: Option<Note>,
    /// Whether the column has embeddings of another model than the one that wrote.
    foreign: bool,
}

impl Note {
    /// `None` for a comment that is not a note, or not a valid one.
    fn parse(comment: &[u8]) -> Option<Note> {
        let json = comment.strip_prefix(PREFIX.as_bytes()).filter(|json| json.starts_with(b"{"))?;
        if json.len() > LONGEST {
            return None;
        }
        let _memory = Rc::new(hold_for_json(2 * json.len()));
        match serde_json::from_str(&to_utf8(json).ok()?).ok()? {
            Value::Object(content) => Some(Note { content, _memory }),
            _ => None,
        }
    }

    fn force(&self) -> Option<&Value> {
        self.content.get("force").filter(|force| !force.is_null())
    }

    /// Whether the write of at least one model would change it or warn.
    fn depends_on_model(&self) -> bool {
        match (self.force(), self.content.get("fingerprint")) {
            (Some(force), _) => force.is_object(),
            (None, known) => known.is_none_or(Value::is_string),
        }
    }

    fn after_write(&self, fingerprint: &str) -> Verdict {
        if !self.depends_on_model() {
            return Verdict { changed: None, foreign: false };
        }
        let mut note = self.clone();
        let forced = self.force().is_some();
        let part = match note.content.get_mut("force") {
            Some(Value::Object(force)) => force,
            _ => &mut note.content,
        };
        let empty = !forced && part.remove("empty") == Some(Value::from(true));
        if empty {
            part.insert(began::BEGAN.to_owned(), began::now());
        }
        let known = part.get("fingerprint").and_then(Value::as_str).filter(|_| !empty);
        let (key, value) = match known {
            None if !forced => ("fingerprint", Value::from(fingerprint)),
            Some(known) if known == fingerprint => {
                return Verdict { changed: None, foreign: false };
            }
            _ => ("mixed", Value::from(true)),
        };
        let before = part.insert(key.to_owned(), value.clone());
        let changed = (empty || before != Some(value)).then_some(note);
        Verdict { changed, foreign: key == "mixed" }
    }

    /// The comment, in the database's encoding.
    fn comment(&self) -> Outcome<CString> {
        let json = serde_json::to_string(&self.content).map_err(internal)?;
        let mut comment = String::from(PREFIX);
        for c in json.chars() {
            if c.is_ascii() || database_keeps_utf8() {
                comment.push(c);
            } else {
                // Such characters occur in JSON strings only, where an escape can replace them.
                for unit in c.encode_utf16(&mut [0; 2]) {
                    comment.push_str(&format!("\\u{unit:04x}"));
                }
            }
        }
        CString::new(comment).map_err(internal)
    }
}

/// The trigger whose comment is the note, and its table. For a partition, these are the trigger
/// from which its trigger was cloned, and the table of that one.
struct Origin {
    trigger: pg_sys::Oid,
    table: pg_sys::Oid,
}

impl Origin {
    /// `None` if one of the parent triggers was dropped meanwhile.
    ///
    /// # Safety
    /// As for [`record_write`].
    unsafe fn of(relation: pg_sys::Relation, trigger: *const pg_sys::Trigger) -> Option<Origin> {
        // SAFETY: the caller guarantees both pointers.
        let (mut origin, partition) = unsafe {
            let origin = Origin { trigger: (*trigger).tgoid, table: (*relation).rd_id };
            (origin, (*(*relation).rd_rel).relispartition)
        };
        if !partition {
            return Some(origin);
        }
        loop {
            let (table, parent) = table_and_parent(origin.trigger)?;
            origin.table = table;
            if parent == pg_sys::InvalidOid {
                return Some(origin);
            }
            origin.trigger = parent;
        }
    }

    /// The current note: the latest committed one or the transaction's own. The transaction's
    /// snapshot does not matter.
    fn note(&self) -> Option<Note> {
        // SAFETY: a catalogue look-up; the string is a copy and is freed.
        unsafe {
            let comment = pg_sys::GetComment(self.trigger, pg_sys::TriggerRelationId, 0);
            if comment.is_null() {
                return shard::is_shard(self.table)
                    .then(|| Note { content: Map::new(), _memory: Rc::default() });
            }
            let note = Note::parse(CStr::from_ptr(comment).to_bytes());
            pg_sys::pfree(comment.cast());
            note
        }
    }

    /// Takes the lock that COMMENT ON TRIGGER takes, until the end of the transaction. Without it,
    /// two transactions that change the comment at once would fail with "tuple concurrently
    /// updated". The lock is on the trigger and not on the table, because a lock on the table would
    /// conflict with VACUUM.
    ///
    /// Does not wait: false if another transaction holds a conflicting lock.
    fn lock(&self) -> bool {
        self.acquire(0, pg_sys::ShareUpdateExclusiveLock, false)
    }

    /// Takes a lock on the trigger or, with a `part`, on something of its own. False if it would
    /// have to wait and may not.
    fn acquire(&self, part: u16, mode: u32, wait: bool) -> bool {
        // SAFETY: a complete tag, as LockDatabaseObject makes it. Accepting the invalidations makes
        // the next catalogue look-up see what the last holder of the lock wrote.
        unsafe {
            let tag = pg_sys::LOCKTAG {
                locktag_field1: pg_sys::MyDatabaseId.to_u32(),
                locktag_field2: pg_sys::TriggerRelationId.to_u32(),
                locktag_field3: self.trigger.to_u32(),
                locktag_field4: part,
                locktag_type: pg_sys::LockTagType::LOCKTAG_OBJECT as u8,
                locktag_lockmethodid: pg_sys::DEFAULT_LOCKMETHOD as u8,
            };
            let result =
                pg_sys::LockAcquire(&raw const tag, mode as pg_sys::LOCKMODE, false, !wait);
            if result == pg_sys::LockAcquireResult::LOCKACQUIRE_NOT_AVAIL {
                return false;
            }
            pg_sys::AcceptInvalidationMessages();
            true
        }
    }

    /// Writes the note as part of the transaction. The caller must hold [`Origin::lock`]. Checks no
    /// privilege: writing to the table implies it, as an INSERT implies advancing a sequence.
    fn store(&self, note: &Note) -> Outcome<()> {
        let comment = note.comment()?;
        // SAFETY: a NUL-terminated string that is copied. The increment makes the note visible to
        // the next row of this command, as after a query in a trigger function; without it a second
        // change would fail with "tuple already updated by self".
        unsafe {
            let class = pg_sys::TriggerRelationId;
            pg_sys::CreateComments(self.trigger, class, 0, comment.as_ptr());
            pg_sys::CommandCounterIncrement();
        }
        Ok(())
    }

    fn warn(&self, column: &CStr) {
        // SAFETY: look-ups by OID, whose strings live as long as the current memory context. The
        // name is null if the table is gone; quote_qualified_identifier accepts null as the schema.
        let (table, literal) = unsafe {
            let table = pg_sys::get_rel_name(self.table);
            if table.is_null() {
                return;
            }
            let schema = match pg_sys::RelationIsVisible(self.table) {
                true => std::ptr::null_mut(),
                false => pg_sys::get_namespace_name(pg_sys::get_rel_namespace(self.table)),
            };
            let qualified = pg_sys::quote_qualified_identifier(schema, table);
            (CStr::from_ptr(table), CStr::from_ptr(pg_sys::quote_literal_cstr(qualified)))
        };
        error(
            PgSqlErrorCode::ERRCODE_WARNING,
            format!(
                "column \"{}\" of relation \"{}\" holds embeddings of another model",
                readable(column),
                readable(table)
            ),
            "Similarities between embeddings of different models mean nothing: searches miss rows and return wrong ones.",
            format!(
                "Embed all rows with the model in use: CALL embed_backfill({}, force => true).",
                readable(literal)
            ),
        )
        .report(PgLogLevel::WARNING);
    }
}

/// `tgrelid` and `tgparentid` of a trigger. There is no syscache for them.
fn table_and_parent(trigger: pg_sys::Oid) -> Option<(pg_sys::Oid, pg_sys::Oid)> {
    // SAFETY: an index scan for one OID; the catalogue is open and locked during the scan. The
    // fixed part of the tuple is read before the scan ends.
    unsafe {
        let lock = pg_sys::AccessShareLock as pg_sys::LOCKMODE;
        let catalogue = pg_sys::table_open(pg_sys::TriggerRelationId, lock);
        let mut key = pg_sys::ScanKeyData::default();
        pg_sys::ScanKeyInit(
            &raw mut key,
            pg_sys::Anum_pg_trigger_oid as pg_sys::AttrNumber,
            pg_sys::BTEqualStrategyNumber as pg_sys::StrategyNumber,
            pg_sys::F_OIDEQ.into(),
            trigger.into(),
        );
        let index = pg_sys::TriggerOidIndexId.into();
        let scan = pg_sys::systable_beginscan(
            catalogue,
            index,
            true,
            std::ptr::null_mut(),
            1,
            &raw mut key,
        );
        let tuple = pg_sys::systable_getnext(scan);
        let found = (!tuple.is_null()).then(|| {
            let row = pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_trigger>();
            ((*row).tgrelid, (*row).tgparentid)
        });
        pg_sys::systable_endscan(scan);
        pg_sys::table_close(catalogue, lock);
        found
    }
}
