//! Text datums as UTF-8, in a database of any encoding.

#![allow(unsafe_code)]

use std::borrow::Cow;
use std::ffi::CStr;

use pgrx::{PgSqlErrorCode, pg_sys, varlena};

use crate::errors::{Failure, Outcome, error};
use crate::pg::encoding::database_keeps_utf8;

/// The bytes of a varlena, detoasted. The copy that detoasting makes is freed on drop, so that a
/// statement over many large texts holds one of them at a time.
pub struct Detoasted {
    plain: *mut pg_sys::varlena,
    is_copy: bool,
}

impl Detoasted {
    /// # Safety
    /// `datum` must be a non-null datum of a varlena type that outlives the value.
    pub unsafe fn new(datum: pg_sys::Datum) -> Detoasted {
        // SAFETY: the caller guarantees the datum.
        unsafe {
            let stored = datum.cast_mut_ptr::<pg_sys::varlena>();
            let plain = pg_sys::pg_detoast_datum_packed(stored);
            Detoasted { plain, is_copy: !std::ptr::eq(plain, stored) }
        }
    }

    /// At most the first `count` bytes.
    ///
    /// # Safety
    /// As for [`Detoasted::new`].
    pub unsafe fn beginning(datum: pg_sys::Datum, count: i32) -> Detoasted {
        // SAFETY: the caller guarantees the datum. A slice of a varlena that is neither compressed
        // nor stored apart is a copy as well.
        unsafe {
            let stored = datum.cast_mut_ptr::<pg_sys::varlena>();
            let plain = pg_sys::pg_detoast_datum_slice(stored, 0, count);
            Detoasted { plain, is_copy: !std::ptr::eq(plain, stored) }
        }
    }

    pub fn bytes(&self) -> &[u8] {
        // SAFETY: `plain` is a detoasted varlena that lives as long as `self`.
        unsafe { varlena::varlena_to_byte_slice(self.plain) }
    }
}

impl Drop for Detoasted {
    fn drop(&mut self) {
        // After an error Postgres frees the whole memory context, so nothing is freed here.
        if self.is_copy && !std::thread::panicking() {
            // SAFETY: detoasting palloc'ed the copy, and nothing else points to it.
            unsafe { pg_sys::pfree(self.plain.cast()) };
        }
    }
}

/// Whether two varlenas have the same bytes after detoasting. Detoasts neither if their stored
/// forms are equal (an UPDATE of another column copies the pointer to a text that is stored apart),
/// or if their lengths differ.
///
/// # Safety
/// As for [`Detoasted::new`], for both.
pub unsafe fn same_bytes(one: pg_sys::Datum, other: pg_sys::Datum) -> bool {
    // SAFETY: the caller guarantees both datums. The stored form has `varsize_any` bytes; of a
    // varlena that is stored apart, that is the pointer.
    unsafe {
        let stored = |datum: pg_sys::Datum| {
            let start = datum.cast_mut_ptr::<pg_sys::varlena>();
            std::slice::from_raw_parts(start.cast::<u8>(), varlena::varsize_any(start))
        };
        if one == other || stored(one) == stored(other) {
            return true;
        }
        pg_sys::toast_raw_datum_size(one) == pg_sys::toast_raw_datum_size(other)
            && Detoasted::new(one).bytes() == Detoasted::new(other).bytes()
    }
}

/// A name as UTF-8, for a message.
pub fn readable(name: &CStr) -> String {
    match to_utf8(name.to_bytes()) {
        Ok(name) => name.into_owned(),
        Err(_) => name.to_string_lossy().into_owned(),
    }
}

/// Bytes in the database's encoding as UTF-8.
///
/// # Errors
/// 22021 for bytes that are not valid in the encoding. In a `SQL_ASCII` database, which stores any
/// bytes, those are the bytes that are not UTF-8.
pub fn to_utf8(bytes: &[u8]) -> Outcome<Cow<'_, str>> {
    if database_keeps_utf8() || bytes.is_ascii() {
        return checked(bytes).map(Cow::Borrowed);
    }
    converted(bytes).map(Cow::Owned)
}

/// The same bytes, if they are UTF-8. Checks for interrupts after each megabyte, which takes about
/// a millisecond; a gigabyte would delay a cancelled statement by a second.
fn checked(bytes: &[u8]) -> Outcome<&str> {
    const STEP: usize = 1 << 20;
    let mut valid = 0;
    while valid < bytes.len() {
        pgrx::check_for_interrupts!();
        let end = bytes.len().min(valid + STEP);
        match std::str::from_utf8(&bytes[valid..end]) {
            Ok(part) => valid += part.len(),
            // The step ended inside a character; the next step begins with that character.
            Err(e) if e.error_len().is_none() && end < bytes.len() => valid += e.valid_up_to(),
            Err(e) => return Err(invalid(valid + e.valid_up_to())),
        }
    }
    // SAFETY: all of it was checked, in steps that begin at the start of a character.
    Ok(unsafe { std::str::from_utf8_unchecked(bytes) })
}

/// Converts from another encoding than UTF-8. Postgres raises its own error for bytes that are not
/// valid in it.
fn converted(bytes: &[u8]) -> Outcome<String> {
    let Ok(length) = i32::try_from(bytes.len()) else {
        return Err(invalid(0));
    };
    // SAFETY: pg_server_to_any reads `length` bytes. It returns its argument when there is nothing
    // to convert, otherwise a new NUL-terminated string, which is copied and freed.
    unsafe {
        let source = bytes.as_ptr().cast::<std::ffi::c_char>();
        let result = pg_sys::pg_server_to_any(source, length, pg_sys::pg_enc::PG_UTF8 as i32);
        if std::ptr::eq(result, source) {
            return std::str::from_utf8(bytes)
                .map_err(|e| invalid(e.valid_up_to()))
                .and_then(|text| append(String::new(), text));
        }
        let text = CStr::from_ptr(result)
            .to_str()
            .map_err(|e| invalid(e.valid_up_to()))
            .and_then(|text| append(String::new(), text));
        pg_sys::pfree(result.cast());
        text
    }
}

/// `text` and then `more`.
///
/// # Errors
/// 53200 if there is no memory. A failed allocation of another kind would abort the process, and
/// with it every session of the server.
pub fn append(mut text: String, more: &str) -> Outcome<String> {
    text.try_reserve_exact(more.len()).map_err(|_| {
        error(
            PgSqlErrorCode::ERRCODE_OUT_OF_MEMORY,
            format!("no memory for a text of {} bytes", text.len().saturating_add(more.len())),
            "The text was not embedded.",
            "Give the server more memory, or store the text in parts, see chunk_text().",
        )
    })?;
    text.push_str(more);
    Ok(text)
}

fn invalid(at: usize) -> Failure {
    error(
        PgSqlErrorCode::ERRCODE_CHARACTER_NOT_IN_REPERTOIRE,
        format!("text is not valid UTF-8 from byte {at} on"),
        "The model reads UTF-8, and a database with encoding SQL_ASCII stores any bytes.",
        "Convert the text with convert_from() where its encoding is known.",
    )
}
