//! `embed_trigger()`: keeps an embedding column up to date with its text columns.
//!
//! A trigger sees the values of a row and not which columns a statement assigned, so the rules are
//! about values. The target is the embedding column, the sources are the text columns:
//!
//! - INSERT: embed if the target is NULL. A vector that the statement supplied is kept.
//! - UPDATE: embed if a source changed, and the target is unchanged or NULL. Otherwise the row is
//!   stored as it is.
//! - If all sources are NULL, the embedding is NULL.
//! - Under `gte_small.defer` the target becomes NULL in each case that would embed.
//!
//! Columns are looked up by name in the relation that fired: a partition may have them at other
//! positions than its parent.

#![allow(unsafe_code)]

use std::borrow::Cow;
use std::ffi::{CStr, CString, c_char};

use pgrx::{PgSqlErrorCode, pg_sys};
use pgvector_compat::is_vector_type;

use crate::embedder;
use crate::errors::{Failure, Outcome, error};
use crate::functions::embed::to_datum;
use crate::pg::call::{Call, export};
use crate::pg::text::{Detoasted, readable, to_utf8};
use crate::{note, settings};

export!(embed_trigger_gte_small, pg_finfo_embed_trigger_gte_small, embed_trigger);

/// The arguments of a trigger that was created without any: the columns of the tutorial's table.
const DEFAULT_ARGUMENTS: [&CStr; 2] = [note::DEFAULT_TARGET, c"content"];

fn embed_trigger(call: Call) -> Outcome<pg_sys::Datum> {
    let trigger = Trigger::of(call)?;
    let arguments = trigger.arguments()?;
    let (column, sources) = arguments.split_at(1);
    let target = trigger.target(&column[0])?;
    let sources =
        sources.iter().map(|name| trigger.source(name)).collect::<Outcome<Vec<Source>>>()?;

    if !trigger.must_embed(target, &sources) {
        return Ok(pg_sys::Datum::from(trigger.new));
    }
    // The old vector must not stay beside the new text, so without an embedding the target is NULL.
    let text = if settings::defer() { None } else { trigger.text(&sources)? };
    let embedding = match text {
        Some(text) => {
            let embedding = to_datum(&*embedder::embed_one(&text)?)?;
            trigger.record_write(&column[0])?;
            Some(embedding)
        }
        None => None,
    };
    Ok(pg_sys::Datum::from(trigger.with_target(target, embedding)))
}

/// A text column: its attribute number, and how its values are stored.
struct Source {
    number: i32,
    kind: SourceKind,
}

#[derive(Clone, Copy)]
enum SourceKind {
    /// A varlena.
    Text,
    /// A varlena with padding: blanks at the end are removed, as by a cast to text.
    Padded,
    /// 64 bytes; the value ends at the first NUL.
    Name,
}

impl SourceKind {
    /// # Safety
    /// `datum` must be of a type of this kind and outlive the value.
    unsafe fn read(self, datum: pg_sys::Datum) -> SourceValue {
        // SAFETY: the caller guarantees the datum.
        unsafe {
            match self {
                SourceKind::Text | SourceKind::Padded => {
                    SourceValue::Varlena(Detoasted::new(datum))
                }
                SourceKind::Name => {
                    SourceValue::Name(CStr::from_ptr(datum.cast_mut_ptr::<c_char>()).to_owned())
                }
            }
        }
    }
}

/// The value of a source, not NULL.
enum SourceValue {
    Varlena(Detoasted),
    Name(CString),
}

impl SourceValue {
    /// In the database's encoding, with the padding.
    fn bytes(&self) -> &[u8] {
        match self {
            SourceValue::Varlena(value) => value.bytes(),
            SourceValue::Name(value) => value.to_bytes(),
        }
    }
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

    /// The names of the columns: first the target, then the sources.
    fn arguments(&self) -> Outcome<Vec<CString>> {
        // SAFETY: tgargs has tgnargs NUL-terminated strings that live as long as the trigger.
        let arguments: Vec<CString> = unsafe {
            let trigger = (*self.data).tg_trigger;
            (0..(*trigger).tgnargs as usize)
                .map(|i| CStr::from_ptr(*(*trigger).tgargs.add(i)).to_owned())
                .collect()
        };
        match arguments.len() {
            0 => Ok(DEFAULT_ARGUMENTS.map(CStr::to_owned).to_vec()),
            1 => Err(error(
                PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
                "embed_trigger() has a target column and no source column",
                "The row was not stored.",
                "Name the embedding column first and then one or more text columns, as in embed_trigger('embedding', 'content').",
            )),
            _ => Ok(arguments),
        }
    }

    /// Whether the row needs a new embedding, by the rules of this module.
    fn must_embed(&self, target: i32, sources: &[Source]) -> bool {
        let embedding = self.value(self.new, target);
        if self.old.is_null() {
            return embedding.is_none();
        }
        let changed = sources.iter().any(|source| {
            let (old, new) =
                (self.value(self.old, source.number), self.value(self.new, source.number));
            !same_bytes(old, new, source.kind)
        });
        changed
            && (embedding.is_none()
                || same_bytes(self.value(self.old, target), embedding, SourceKind::Text))
    }

    /// The sources that are not NULL, joined by newlines; `None` if all are NULL.
    fn text(&self, sources: &[Source]) -> Outcome<Option<String>> {
        let mut joined: Option<String> = None;
        for source in sources {
            let Some(datum) = self.value(self.new, source.number) else {
                continue;
            };
            // SAFETY: `source` checked the type of the column, and the row outlives the call.
            let value = unsafe { source.kind.read(datum) };
            let mut text: Cow<'_, str> = to_utf8(value.bytes())?;
            if matches!(source.kind, SourceKind::Padded) {
                text = Cow::Owned(text.trim_end_matches(' ').to_owned());
            }
            match &mut joined {
                None => joined = Some(text.into_owned()),
                Some(joined) => {
                    joined.push('\n');
                    joined.push_str(&text);
                }
            }
        }
        Ok(joined)
    }

    /// Attribute number of the embedding column, if a `vector(384)` fits it. Postgres stores the
    /// tuple that a BEFORE trigger returns without the coercion of an assignment, so it would not
    /// notice a wrong type or length.
    fn target(&self, name: &CStr) -> Outcome<i32> {
        let (number, attribute) = self.column(name)?;
        self.refuse_generated(&attribute, name, "is generated, a trigger can't set it")?;
        let (oid, typmod) = (attribute.atttypid, attribute.atttypmod);
        let dims = gte_engine::DIMS;
        if !is_vector_type(oid) || !(typmod == -1 || typmod == dims as i32) {
            return Err(error(
                PgSqlErrorCode::ERRCODE_DATATYPE_MISMATCH,
                format!("column {} has type {}", self.named(name), type_name(oid, typmod)),
                format!("An embedding is a vector({dims}). The row was not stored."),
                format!("Give the column the type vector({dims})."),
            ));
        }
        Ok(number)
    }

    /// A source column, if it is text: `text`, `varchar`, `char(n)`, `name`, a type that is stored
    /// as text is (`citext`), or a domain over one of these.
    fn source(&self, name: &CStr) -> Outcome<Source> {
        let (number, attribute) = self.column(name)?;
        self.refuse_generated(&attribute, name, "is generated, a BEFORE trigger sees it as NULL")?;
        let (oid, typmod) = (attribute.atttypid, attribute.atttypmod);
        // SAFETY: catalogue look-ups by OID.
        let (base, as_text) = unsafe {
            let base = pg_sys::getBaseType(oid);
            (base, pg_sys::IsBinaryCoercible(base, pg_sys::TEXTOID))
        };
        let kind = match base {
            pg_sys::BPCHAROID => Some(SourceKind::Padded),
            pg_sys::NAMEOID => Some(SourceKind::Name),
            _ => as_text.then_some(SourceKind::Text),
        };
        kind.map(|kind| Source { number, kind }).ok_or_else(|| {
            error(
                PgSqlErrorCode::ERRCODE_DATATYPE_MISMATCH,
                format!("column {} has type {}", self.named(name), type_name(oid, typmod)),
                "Only text can be embedded. The row was not stored.",
                "Name a column of type text, or keep the value as text in a column of its own.",
            )
        })
    }

    fn column(&self, name: &CStr) -> Outcome<(i32, pg_sys::FormData_pg_attribute)> {
        // SAFETY: a look-up by name in the relation's own descriptor, which is read and not
        // released. For missing columns and system columns the number is below 1.
        let (number, attribute) = unsafe {
            let number = pg_sys::SPI_fnumber(self.descriptor, name.as_ptr());
            let index = usize::try_from(number - 1).ok();
            let columns = pgrx::PgTupleDesc::from_pg_unchecked(self.descriptor);
            (number, index.and_then(|index| columns.get(index).copied()))
        };
        attribute.map(|attribute| (number, attribute)).ok_or_else(|| {
            error(
                PgSqlErrorCode::ERRCODE_UNDEFINED_COLUMN,
                format!("column {} does not exist", self.named(name)),
                "The row was not stored.",
                "Name columns of the table in the trigger's arguments, exactly as they are written: embed_trigger('embedding', 'content').",
            )
        })
    }

    fn refuse_generated(
        &self,
        attribute: &pg_sys::FormData_pg_attribute,
        name: &CStr,
        why: &str,
    ) -> Outcome<()> {
        if attribute.attgenerated == 0 && attribute.attidentity == 0 {
            return Ok(());
        }
        Err(error(
            PgSqlErrorCode::ERRCODE_GENERATED_ALWAYS,
            format!("column {} {why}", self.named(name)),
            "The row was not stored.",
            "Use a plain column, or drop the trigger where the column is GENERATED ALWAYS AS (embed(...)) STORED.",
        ))
    }

    /// `"column" of relation "table"`, for messages.
    fn named(&self, column: &CStr) -> String {
        // SAFETY: the relation is open during the call; the name is a NUL-terminated NameData.
        let table =
            unsafe { CStr::from_ptr((*(*(*self.data).tg_relation).rd_rel).relname.data.as_ptr()) };
        format!("\"{}\" of relation \"{}\"", readable(column), readable(table))
    }

    fn value(&self, tuple: pg_sys::HeapTuple, number: i32) -> Option<pg_sys::Datum> {
        let mut is_null = false;
        // SAFETY: the tuple has this descriptor, and `column` checked the number.
        let datum = unsafe { pg_sys::SPI_getbinval(tuple, self.descriptor, number, &mut is_null) };
        (!is_null).then_some(datum)
    }

    /// Records in the note of `column` that the loaded model writes to it.
    fn record_write(&self, column: &CStr) -> Outcome<()> {
        // SAFETY: the relation is open during the call, and the trigger is one of its triggers.
        unsafe { note::record_write((*self.data).tg_relation, (*self.data).tg_trigger, column) }
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

/// Whether two values of a column have the same bytes after detoasting. The operator `=` would not
/// do: under a nondeterministic collation it is true for some different texts.
fn same_bytes(a: Option<pg_sys::Datum>, b: Option<pg_sys::Datum>, kind: SourceKind) -> bool {
    match (a, b) {
        (None, None) => true,
        // The same datum has the same bytes, so it need not be read.
        (Some(a), Some(b)) if a == b => true,
        (Some(a), Some(b)) => {
            // SAFETY: both are values of a column whose type was checked to be of this kind.
            let (a, b) = unsafe { (kind.read(a), kind.read(b)) };
            a.bytes() == b.bytes()
        }
        _ => false,
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

fn type_name(oid: pg_sys::Oid, typmod: i32) -> String {
    // SAFETY: a catalogue look-up that returns a new NUL-terminated string.
    unsafe {
        CStr::from_ptr(pg_sys::format_type_with_typemod(oid, typmod)).to_string_lossy().into_owned()
    }
}
