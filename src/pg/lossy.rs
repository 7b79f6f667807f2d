//! Conversions between the database's encoding and UTF-8 that never fail.
//!
//! A function that is LEAKPROOF must not raise an error that depends on a text. A character that
//! can't be converted becomes a blank.

#![allow(unsafe_code)]

use std::borrow::Cow;

use pgrx::pg_sys;

use crate::pg::encoding::database_keeps_utf8;

/// Bytes of the source that one call converts. A call costs a search in the catalogue's cache.
const STEP: usize = 1 << 14;

/// The most bytes that one byte becomes (`MAX_CONVERSION_GROWTH`).
const GROWTH: usize = 4;

/// A text of the database as UTF-8.
pub fn to_utf8_lossy(bytes: &[u8]) -> Cow<'_, str> {
    if database_keeps_utf8() || bytes.is_ascii() {
        return String::from_utf8_lossy(bytes);
    }
    let utf8 = pg_sys::pg_enc::PG_UTF8 as i32;
    Cow::Owned(String::from_utf8_lossy(&converted(bytes, database_encoding(), utf8)).into_owned())
}

/// UTF-8 as a text of the database.
pub fn from_utf8_lossy(text: &str) -> Cow<'_, [u8]> {
    if database_keeps_utf8() || text.is_ascii() {
        return Cow::Borrowed(text.as_bytes());
    }
    let utf8 = pg_sys::pg_enc::PG_UTF8 as i32;
    Cow::Owned(converted(text.as_bytes(), utf8, database_encoding()))
}

fn database_encoding() -> i32 {
    // SAFETY: reads the encoding of the database that this backend is connected to.
    unsafe { pg_sys::GetDatabaseEncoding() }
}

fn converted(bytes: &[u8], from: i32, to: i32) -> Vec<u8> {
    // SAFETY: a look-up in the catalogue, inside of a call and so of a transaction.
    let conversion = unsafe { pg_sys::FindDefaultConversionProc(from, to) };
    let mut result = Vec::with_capacity(bytes.len() + bytes.len() / 2);
    let mut buffer = vec![0; GROWTH * (bytes.len().min(STEP) + 1) + 1];
    let mut rest = bytes;
    while let Some(&first) = rest.first() {
        pgrx::check_for_interrupts!();
        let mut done = 0;
        if first.is_ascii() || conversion != pg_sys::InvalidOid {
            done = step(rest, from, to, conversion, &mut buffer, &mut result);
        }
        if done == 0 {
            // The first character can't be converted, or is not whole.
            result.push(b' ');
            // SAFETY: the first byte decides the length of a character, and there is one.
            let length = unsafe { pg_sys::pg_encoding_mblen(from, rest.as_ptr().cast()) };
            done = length.max(1) as usize;
        }
        rest = rest.get(done..).unwrap_or_default();
    }
    result
}

/// Appends the longest convertible beginning of `rest`; returns how many bytes of it were read.
fn step(
    rest: &[u8],
    from: i32,
    to: i32,
    conversion: pg_sys::Oid,
    buffer: &mut [u8],
    result: &mut Vec<u8>,
) -> usize {
    let length = rest.len().min(STEP);
    if conversion == pg_sys::InvalidOid {
        let ascii = rest.iter().take_while(|byte| byte.is_ascii()).count();
        result.extend_from_slice(&rest[..ascii]);
        return ascii;
    }
    // SAFETY: reads at most `length` bytes of `rest` and writes at most `buffer.len()` bytes with a
    // zero at the end. With the last argument true it stops at a character that it can't convert.
    // `rest` has no zero byte, because a text of a database has none.
    let done = unsafe {
        pg_sys::pg_do_encoding_conversion_buf(
            conversion,
            from,
            to,
            rest.as_ptr().cast_mut(),
            length as i32,
            buffer.as_mut_ptr().cast(),
            buffer.len() as i32,
            true,
        )
    };
    let written = buffer.iter().position(|&byte| byte == 0).unwrap_or(0);
    result.extend_from_slice(&buffer[..written]);
    (done.max(0) as usize).min(length)
}
