//! Blank texts: those of white space alone, and the empty one. White space is what Unicode calls so
//! ([`char::is_whitespace`]), in a database of any encoding.

#![allow(unsafe_code)]

use pgrx::pg_sys;

use crate::pg::encoding::database_keeps_utf8;
use crate::pg::text::Detoasted;

/// Bytes between two checks for interrupts.
const STEP: usize = 1 << 20;

/// Bytes that are read first of a text that must be detoasted: few texts begin with so much white
/// space.
const BEGINNING: i32 = 1024;

/// Whether the bytes, in the database's encoding, are white space alone. Bytes that are not valid
/// in the encoding are no white space.
pub fn is_blank(bytes: &[u8]) -> bool {
    only_white_space(bytes) == Found::End
}

/// [`is_blank`] for a datum. Of a text that is compressed or stored apart, it reads the beginning,
/// and the rest only if the beginning is blank.
///
/// # Safety
/// `datum` must be a text, not NULL, that outlives the call.
pub unsafe fn is_blank_datum(datum: pg_sys::Datum) -> bool {
    // SAFETY: the caller guarantees the datum. The slice is a new varlena or the datum itself.
    unsafe {
        let beginning = Detoasted::beginning(datum, BEGINNING);
        if only_white_space(beginning.bytes()) == Found::Other {
            return false;
        }
        is_blank(Detoasted::new(datum).bytes())
    }
}

/// What comes first.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Found {
    /// A character other than white space.
    Other,
    /// The last byte.
    End,
    /// The beginning of a character whose other bytes are missing.
    Part,
}

fn only_white_space(bytes: &[u8]) -> Found {
    let mut at = 0;
    let mut checked = 0;
    while let Some(&byte) = bytes.get(at) {
        if at - checked > STEP {
            pgrx::check_for_interrupts!();
            checked = at;
        }
        if byte.is_ascii() {
            if !char::from(byte).is_whitespace() {
                return Found::Other;
            }
            at += 1;
            continue;
        }
        match character(&bytes[at..]) {
            Character::WhiteSpace(length) => at += length,
            Character::Other => return Found::Other,
            Character::Part => return Found::Part,
        }
    }
    Found::End
}

enum Character {
    /// With its length in bytes.
    WhiteSpace(usize),
    Other,
    Part,
}

/// The first character of `bytes`, which is not ASCII.
fn character(bytes: &[u8]) -> Character {
    let utf8 = if database_keeps_utf8() {
        &bytes[..bytes.len().min(4)]
    } else {
        return converted(bytes);
    };
    let valid = match std::str::from_utf8(utf8) {
        Ok(valid) => valid,
        Err(e) if e.valid_up_to() > 0 => {
            // SAFETY: the bytes before it are valid.
            unsafe { std::str::from_utf8_unchecked(&utf8[..e.valid_up_to()]) }
        }
        Err(e) if e.error_len().is_none() => return Character::Part,
        Err(_) => return Character::Other,
    };
    match valid.chars().next() {
        Some(c) if c.is_whitespace() => Character::WhiteSpace(c.len_utf8()),
        _ => Character::Other,
    }
}

/// The first character in another encoding than UTF-8. Without an error, unlike a conversion of the
/// whole text: a text that has no UTF-8 is not blank.
fn converted(bytes: &[u8]) -> Character {
    // SAFETY: the length of a character depends on its first byte alone, and there is one. The
    // conversion reads `length` bytes and writes at most `utf8.len()`, with a NUL at the end.
    unsafe {
        let encoding = pg_sys::GetDatabaseEncoding();
        let target = pg_sys::pg_enc::PG_UTF8 as i32;
        let length = pg_sys::pg_encoding_mblen(encoding, bytes.as_ptr().cast()).max(1);
        if length as usize > bytes.len() {
            return Character::Part;
        }
        let conversion = pg_sys::FindDefaultConversionProc(encoding, target);
        if conversion == pg_sys::InvalidOid {
            return Character::Other;
        }
        let mut utf8 = [0_u8; 64];
        let read = pg_sys::pg_do_encoding_conversion_buf(
            conversion,
            encoding,
            target,
            bytes.as_ptr().cast_mut(),
            length,
            utf8.as_mut_ptr(),
            utf8.len() as i32,
            true,
        );
        let written = utf8.iter().position(|&byte| byte == 0).unwrap_or(0);
        match std::str::from_utf8(&utf8[..written]) {
            Ok(text)
                if read == length && !text.is_empty() && text.chars().all(char::is_whitespace) =>
            {
                Character::WhiteSpace(length as usize)
            }
            _ => Character::Other,
        }
    }
}
