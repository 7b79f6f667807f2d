//! The columns that a trigger names: found by name in the relation that fired, and checked.

#![allow(unsafe_code)]

use std::borrow::Cow;
use std::ffi::{CStr, CString, c_char};

use pgrx::{PgSqlErrorCode, pg_sys};
use pgvector_compat::is_vector_type;

use super::{Trigger, missing};
use crate::errors::{Outcome, error};
use crate::note;
use crate::pg::blank;
use crate::pg::text::{Detoasted, readable, same_bytes, to_utf8};

/// The arguments of a trigger that was created without any: the columns of the tutorial's table.
const DEFAULT_ARGUMENTS: [&CStr; 2] = [note::DEFAULT_TARGET, c"content"];

/// A text column: its attribute number, and how its values are stored.
pub struct Source {
    pub number: i32,
    kind: SourceKind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum SourceKind {
    /// A varlena.
    Text,
    /// A varlena with padding: blanks at the end are removed, as by a cast to text.
    Padded,
    /// 64 bytes; the value ends at the first NUL.
    Name,
}

impl Source {
    /// Whether its values are varlenas.
    pub fn is_varlena(&self) -> bool {
        self.kind != SourceKind::Name
    }

    /// # Safety
    /// `datum` must be a value of the column and outlive the result.
    pub unsafe fn read(&self, datum: pg_sys::Datum) -> SourceValue {
        // SAFETY: the caller guarantees the datum.
        unsafe {
            match self.kind {
                SourceKind::Text => SourceValue::Text(Detoasted::new(datum)),
                SourceKind::Padded => SourceValue::Padded(Detoasted::new(datum)),
                SourceKind::Name => {
                    SourceValue::Name(CStr::from_ptr(datum.cast_mut_ptr::<c_char>()).to_owned())
                }
            }
        }
    }

    /// Whether a value of the column is white space alone.
    ///
    /// # Safety
    /// As for [`Source::read`].
    pub unsafe fn is_blank(&self, datum: pg_sys::Datum) -> bool {
        // SAFETY: the caller guarantees the datum.
        unsafe {
            match self.kind {
                SourceKind::Text | SourceKind::Padded => blank::is_blank_datum(datum),
                SourceKind::Name => blank::is_blank(self.read(datum).bytes()),
            }
        }
    }

    /// Whether two values of the column are equal, byte by byte. The operator `=` would not do:
    /// under a nondeterministic collation it is true for some different texts.
    ///
    /// # Safety
    /// As for [`Source::read`].
    pub unsafe fn same(&self, one: Option<pg_sys::Datum>, other: Option<pg_sys::Datum>) -> bool {
        let (one, other) = match (one, other) {
            (Some(one), Some(other)) => (one, other),
            (one, other) => return one.is_none() == other.is_none(),
        };
        // SAFETY: the caller guarantees both datums.
        unsafe {
            match self.kind {
                SourceKind::Text | SourceKind::Padded => same_bytes(one, other),
                SourceKind::Name => self.read(one).bytes() == self.read(other).bytes(),
            }
        }
    }
}

/// The value of a source, not NULL.
pub enum SourceValue {
    Text(Detoasted),
    Padded(Detoasted),
    Name(CString),
}

impl SourceValue {
    /// In the database's encoding, with the padding.
    fn bytes(&self) -> &[u8] {
        match self {
            SourceValue::Text(value) | SourceValue::Padded(value) => value.bytes(),
            SourceValue::Name(value) => value.to_bytes(),
        }
    }

    /// In UTF-8, without the padding.
    pub fn text(&self) -> Outcome<Cow<'_, str>> {
        let text = to_utf8(self.bytes())?;
        Ok(match (self, text) {
            (SourceValue::Padded(_), Cow::Borrowed(text)) => {
                Cow::Borrowed(text.trim_end_matches(' '))
            }
            (SourceValue::Padded(_), Cow::Owned(mut text)) => {
                text.truncate(text.trim_end_matches(' ').len());
                Cow::Owned(text)
            }
            (_, text) => text,
        })
    }
}

impl Trigger {
    /// The names of the columns as they are called now: first the target, then the sources.
    pub fn arguments(&self) -> Outcome<Vec<CString>> {
        // SAFETY: tgargs has tgnargs NUL-terminated strings that live as long as the trigger.
        let arguments: Vec<CString> = unsafe {
            let trigger = (*self.data).tg_trigger;
            (0..(*trigger).tgnargs as usize)
                .map(|i| name_of_column(CStr::from_ptr(*(*trigger).tgargs.add(i))))
                .collect::<Outcome<_>>()?
        };
        match arguments.len() {
            0 => Ok(self.now(DEFAULT_ARGUMENTS.map(CStr::to_owned).to_vec())),
            1 => Err(error(
                PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
                "embed_trigger() has a target column and no source column",
                "The row was not stored.",
                "Name the embedding column first and then one or more text columns, as in embed_trigger('embedding', 'content').",
            )),
            _ => Ok(self.now(arguments)),
        }
    }

    fn now(&self, names: Vec<CString>) -> Vec<CString> {
        // SAFETY: the relation is open during the call, and the trigger is one of its triggers.
        unsafe { note::columns::now((*self.data).tg_relation, (*self.data).tg_trigger, names) }
    }

    /// Attribute number of the embedding column, if a `vector(384)` fits it. Postgres stores the
    /// tuple that a BEFORE trigger returns without the coercion of an assignment, so it would not
    /// notice a wrong type or length.
    pub fn target(&self, name: &CStr) -> Outcome<i32> {
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

    /// A source column, if it is text.
    pub fn source(&self, name: &CStr) -> Outcome<Source> {
        let (number, attribute) = self.column(name)?;
        self.refuse_generated(&attribute, name, "is generated, a BEFORE trigger sees it as NULL")?;
        let (oid, typmod) = (attribute.atttypid, attribute.atttypmod);
        let kind = text_kind(oid);
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
        match attribute {
            Some(attribute) => Ok((number, attribute)),
            None => Err(missing::column(self, name)?),
        }
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
    pub fn named(&self, column: &CStr) -> String {
        // SAFETY: the relation is open during the call; the name is a NUL-terminated NameData.
        let table =
            unsafe { CStr::from_ptr((*(*(*self.data).tg_relation).rd_rel).relname.data.as_ptr()) };
        format!("\"{}\" of relation \"{}\"", readable(column), readable(table))
    }
}

/// How a type is stored, if it is text: `text`, `varchar`, `char(n)`, `name`, a type that is stored
/// as text is (`citext`), or a domain over one of these.
fn text_kind(oid: pg_sys::Oid) -> Option<SourceKind> {
    // SAFETY: catalogue look-ups by OID.
    let (base, as_text) = unsafe {
        let base = pg_sys::getBaseType(oid);
        (base, pg_sys::IsBinaryCoercible(base, pg_sys::TEXTOID))
    };
    match base {
        pg_sys::BPCHAROID => Some(SourceKind::Padded),
        pg_sys::NAMEOID => Some(SourceKind::Name),
        _ => as_text.then_some(SourceKind::Text),
    }
}

/// Whether a trigger can embed a column.
pub fn is_source(attribute: &pg_sys::FormData_pg_attribute) -> bool {
    !attribute.attisdropped
        && attribute.attgenerated == 0
        && text_kind(attribute.atttypid).is_some()
}

fn type_name(oid: pg_sys::Oid, typmod: i32) -> String {
    // SAFETY: a catalogue look-up that returns a new NUL-terminated string.
    unsafe {
        CStr::from_ptr(pg_sys::format_type_with_typemod(oid, typmod)).to_string_lossy().into_owned()
    }
}

/// An argument of the trigger. It may have hundreds of megabytes, so it is copied only if it can be
/// the name of a column.
fn name_of_column(argument: &CStr) -> Outcome<CString> {
    let limit = pg_sys::NAMEDATALEN as usize;
    if argument.count_bytes() < limit {
        return Ok(argument.to_owned());
    }
    Err(error(
        PgSqlErrorCode::ERRCODE_NAME_TOO_LONG,
        "an argument of embed_trigger() is longer than the name of a column can be",
        "The row was not stored.",
        format!(
            "Create the trigger again with the names of the columns, of less than {limit} bytes."
        ),
    ))
}
