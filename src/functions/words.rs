//! `gte_small.split(text)` and `gte_small.words(regconfig, variadic text[])`: the words of a text
//! for hybrid search.
//!
//! Both are LEAKPROOF, so that an index on them serves searches under row-level security. No error
//! and no notice may depend on the text. `to_tsvector` raises a notice for a word of 2,047 bytes
//! and an error for a result of 1 MB. Here it gets pieces of a text that are too short for either.
//! The pieces also bound its time: for comments without an end its parser takes time that grows
//! with the square of the length.

#![allow(unsafe_code)]

use gte_engine::Words;
use once_cell::sync::OnceCell;
use pgrx::{pg_sys, varlena};

use crate::errors::{Outcome, check_memory, from_engine, internal};
use crate::functions::embed::text_argument;
use crate::pg::call::{Call, export};
use crate::pg::lossy::{from_utf8_lossy, to_utf8_lossy};
use crate::pg::text::Detoasted;

export!(split_gte_small, pg_finfo_split_gte_small, split);
export!(words_gte_small, pg_finfo_words_gte_small, words);

/// Characters of a row that are read.
const MAX_CHARACTERS: usize = 100_000;

/// Bytes of a piece. Lower case can double the bytes of a word, and a word of a `tsvector` has at
/// most 2,046 bytes.
const PIECE: usize = 1000;

/// The most bytes of all parts of a `tsvector`, which is limited to 1,048,575.
const MAX_BYTES: usize = 1_000_000;

/// The rules of the words. They are made at the first call.
fn rules() -> &'static Words {
    static RULES: OnceCell<Words> = OnceCell::new();
    RULES.get_or_init(Words::new)
}

/// `gte_small.split(content text) → text`, STRICT.
fn split(call: Call) -> Outcome<pg_sys::Datum> {
    let content = text_argument(call)?;
    let content = to_utf8_lossy(beginning(content.bytes()));
    let words = rules().split(&content).map_err(|e| from_engine(&e))?;
    check_memory()?;
    to_text(&from_utf8_lossy(&words))
}

/// `gte_small.words(language regconfig, variadic contents text[]) → tsvector`, STRICT: PostgreSQL's
/// words of the text with their positions, and those of the split text without.
fn words(call: Call) -> Outcome<pg_sys::Datum> {
    let null = || internal("a STRICT function was called with NULL");
    let language = call.argument(0).ok_or_else(null)?;
    let contents = call.argument(1).ok_or_else(null)?;
    // SAFETY: the SQL script declares the argument as text[].
    let content = unsafe { joined(contents) };
    let content = to_utf8_lossy(&content);
    check_memory()?;
    let split = rules().split(&content).map_err(|e| from_engine(&e))?;
    let mut room = MAX_BYTES;
    let own = vectors(language, &content, &mut room)?;
    let own = concatenated(own)?;
    let split = vectors(language, &split, &mut room)?;
    if split.is_empty() {
        return own.map_or_else(|| to_vector(language, ""), Ok);
    }
    let split = concatenated(split)?.ok_or_else(|| internal("no words were joined"))?;
    // The positions are those of another text.
    // SAFETY: `split` is a tsvector, and strip takes one.
    let split = unsafe {
        pg_sys::OidFunctionCall1Coll(pg_sys::Oid::from(pg_sys::F_STRIP), pg_sys::InvalidOid, split)
    };
    concatenated(own.into_iter().chain([split]).collect())?
        .ok_or_else(|| internal("no words were joined"))
}

/// The first bytes of a text of the database, with `MAX_CHARACTERS` characters.
fn beginning(bytes: &[u8]) -> &[u8] {
    // A character has at least one byte.
    if bytes.len() <= MAX_CHARACTERS {
        return bytes;
    }
    // A character has at most 4 bytes, so more need not be looked at.
    let bytes = &bytes[..bytes.len().min(4 * MAX_CHARACTERS + 4)];
    // SAFETY: reads the bytes of `bytes`, whose number fits an i32.
    let length = unsafe {
        pg_sys::pg_mbcharcliplen(bytes.as_ptr().cast(), bytes.len() as i32, MAX_CHARACTERS as i32)
    };
    &bytes[..(length.max(0) as usize).min(bytes.len())]
}

/// The elements that are not NULL, one a line, up to `MAX_CHARACTERS` characters.
///
/// # Safety
/// `contents` must be a text[].
unsafe fn joined(contents: pg_sys::Datum) -> Vec<u8> {
    let (mut values, mut nulls, mut count) = (std::ptr::null_mut(), std::ptr::null_mut(), 0);
    // SAFETY: the caller guarantees a text[], which is detoasted before it is read.
    // deconstruct_array sets `count` values and nulls, and the values are texts in the array.
    unsafe {
        let array = pg_sys::pg_detoast_datum(contents.cast_mut_ptr()).cast::<pg_sys::ArrayType>();
        pg_sys::deconstruct_array(
            array,
            pg_sys::TEXTOID,
            -1,
            false,
            pg_sys::TYPALIGN_INT as std::ffi::c_char,
            &mut values,
            &mut nulls,
            &mut count,
        );
        let mut joined: Vec<u8> = Vec::new();
        for i in 0..count.max(0) as usize {
            if *nulls.add(i) {
                continue;
            }
            if i > 0 {
                joined.push(b'\n');
            }
            let content = Detoasted::new(*values.add(i));
            joined.extend_from_slice(beginning(content.bytes()));
            if joined.len() > 4 * MAX_CHARACTERS {
                break;
            }
        }
        let length = beginning(&joined).len();
        joined.truncate(length);
        joined
    }
}

/// The `tsvector` of each piece of a text, as many as there is room for.
fn vectors(language: pg_sys::Datum, text: &str, room: &mut usize) -> Outcome<Vec<pg_sys::Datum>> {
    let mut vectors = Vec::new();
    for piece in (Pieces { rest: text }) {
        pgrx::check_for_interrupts!();
        check_memory()?;
        let vector = to_vector(language, piece)?;
        // SAFETY: to_tsvector returns a plain varlena.
        let bytes = unsafe { varlena::varsize_any(vector.cast_mut_ptr()) };
        let Some(rest) = room.checked_sub(bytes) else { break };
        *room = rest;
        vectors.push(vector);
    }
    Ok(vectors)
}

/// `to_tsvector(language, piece)`.
fn to_vector(language: pg_sys::Datum, piece: &str) -> Outcome<pg_sys::Datum> {
    let text = to_text(&from_utf8_lossy(piece))?;
    // SAFETY: the first argument is the regconfig of the call, the second a text.
    Ok(unsafe {
        pg_sys::OidFunctionCall2Coll(
            pg_sys::Oid::from(pg_sys::F_TO_TSVECTOR_REGCONFIG_TEXT),
            pg_sys::InvalidOid,
            language,
            text,
        )
    })
}

/// All of them as one, in their order. Neighbours are joined first, so that each word is copied a
/// few times only.
fn concatenated(mut vectors: Vec<pg_sys::Datum>) -> Outcome<Option<pg_sys::Datum>> {
    while vectors.len() > 1 {
        pgrx::check_for_interrupts!();
        vectors = vectors
            .chunks(2)
            .map(|pair| match *pair {
                // SAFETY: both are tsvectors.
                [left, right] => unsafe {
                    pg_sys::OidFunctionCall2Coll(
                        pg_sys::Oid::from(pg_sys::F_TSVECTOR_CONCAT),
                        pg_sys::InvalidOid,
                        left,
                        right,
                    )
                },
                _ => pair[0],
            })
            .collect();
    }
    Ok(vectors.pop())
}

/// A text datum from bytes in the database's encoding.
fn to_text(bytes: &[u8]) -> Outcome<pg_sys::Datum> {
    let length = i32::try_from(bytes.len()).map_err(internal)?;
    // SAFETY: copies `length` bytes into a new text.
    let text = unsafe { pg_sys::cstring_to_text_with_len(bytes.as_ptr().cast(), length) };
    Ok(pg_sys::Datum::from(text))
}

/// Divides a text into pieces of at most [`PIECE`] bytes: between words, at white space if possible.
/// A word with more bytes is left out.
struct Pieces<'t> {
    rest: &'t str,
}

impl<'t> Iterator for Pieces<'t> {
    type Item = &'t str;

    fn next(&mut self) -> Option<&'t str> {
        loop {
            self.rest = self.rest.trim_start();
            if self.rest.is_empty() {
                return None;
            }
            let end = self.rest.floor_char_boundary(PIECE);
            if end == self.rest.len() {
                return Some(std::mem::take(&mut self.rest));
            }
            let window = &self.rest[..end];
            let end = window
                .rfind(char::is_whitespace)
                .or_else(|| window.rfind(|c: char| !c.is_alphanumeric()).filter(|&at| at > 0));
            if let Some(end) = end {
                let (piece, rest) = self.rest.split_at(end);
                self.rest = rest;
                return Some(piece);
            }
            let word = self.rest.chars().next().map_or(0, char::len_utf8);
            let end = self.rest[word..].find(|c: char| !c.is_alphanumeric());
            self.rest = end.map_or("", |end| &self.rest[word + end..]);
        }
    }
}
