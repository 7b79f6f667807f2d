//! Where parts of a text stand in the bytes it is stored as.

#![allow(unsafe_code)]

use std::ops::Range;

use pgrx::pg_sys;

use crate::errors::{Outcome, internal};
use crate::pg::text::to_utf8;

/// So many characters are passed over before an interrupt is looked for: 1 ms.
const CHARACTERS: usize = 1 << 16;

/// The same place in UTF-8 and as stored.
#[derive(Clone, Copy)]
struct Place {
    utf8: usize,
    byte: usize,
    character: usize,
}

/// How the database stores text.
#[derive(Clone, Copy)]
enum Encoding {
    Utf8,
    /// `SQL_ASCII`: UTF-8 by chance, and each byte counts as a character.
    Bytes,
    /// One byte each.
    Single,
    /// Several bytes each.
    Multi(i32),
    /// The same, and some characters are two in UTF-8.
    Combined(i32),
}

/// A text in the database's encoding beside its UTF-8.
pub struct Stored<'t> {
    bytes: &'t [u8],
    utf8: &'t str,
    encoding: Encoding,
    /// Start of the part that was looked for last.
    at: Place,
}

impl<'t> Stored<'t> {
    /// `utf8` must be what [`to_utf8`] makes of `bytes`.
    pub fn new(bytes: &'t [u8], utf8: &'t str) -> Stored<'t> {
        // SAFETY: reads the encoding of the database and its longest character.
        let (encoding, longest) =
            unsafe { (pg_sys::GetDatabaseEncoding(), pg_sys::pg_database_encoding_max_length()) };
        let encoding = match (encoding as u32, longest) {
            (pg_sys::pg_enc::PG_UTF8, _) => Encoding::Utf8,
            (pg_sys::pg_enc::PG_SQL_ASCII, _) => Encoding::Bytes,
            (_, 1) => Encoding::Single,
            (pg_sys::pg_enc::PG_EUC_JIS_2004, _) => Encoding::Combined(encoding),
            _ => Encoding::Multi(encoding),
        };
        Stored { bytes, utf8, encoding, at: Place { utf8: 0, byte: 0, character: 0 } }
    }

    /// The bytes of a part and the number of its first character, from 1. Parts must be asked for
    /// in the order of their starts.
    pub fn locate(&mut self, part: Range<usize>) -> Outcome<(usize, &'t [u8])> {
        self.at = self.pass_to(self.at, part.start)?;
        let end = match self.encoding {
            Encoding::Utf8 | Encoding::Bytes => part.end,
            _ => self.pass_to(self.at, part.end)?.byte,
        };
        Ok((self.at.character + 1, &self.bytes[self.at.byte..end]))
    }

    fn pass_to(&self, from: Place, utf8: usize) -> Outcome<Place> {
        let mut place = from;
        match self.encoding {
            Encoding::Utf8 => {
                place.character += self.utf8[from.utf8..utf8].chars().count();
                (place.byte, place.utf8) = (utf8, utf8);
            }
            Encoding::Bytes => place = Place { utf8, byte: utf8, character: utf8 },
            Encoding::Single => {
                let characters = self.utf8[from.utf8..utf8].chars().count();
                place.character += characters;
                place.byte += characters;
                place.utf8 = utf8;
            }
            Encoding::Multi(encoding) | Encoding::Combined(encoding) => {
                let combined = matches!(self.encoding, Encoding::Combined(_));
                while place.utf8 < utf8 {
                    if place.character.is_multiple_of(CHARACTERS) {
                        pgrx::check_for_interrupts!();
                    }
                    let length = self.length(place.byte, encoding)?;
                    let stored = &self.bytes[place.byte..place.byte + length];
                    let characters =
                        if combined && length > 1 { to_utf8(stored)?.chars().count() } else { 1 };
                    let rest = self.utf8[place.utf8..].chars();
                    place.utf8 += rest.take(characters).map(char::len_utf8).sum::<usize>();
                    place.byte += length;
                    place.character += 1;
                }
                if place.utf8 != utf8 {
                    return Err(internal("a part ends inside a character of the database"));
                }
            }
        }
        Ok(place)
    }

    /// Bytes of the character at `at`.
    fn length(&self, at: usize, encoding: i32) -> Outcome<usize> {
        match self.bytes.get(at..) {
            Some([0..0x80, ..]) => Ok(1),
            Some(rest @ [_, ..]) => {
                // SAFETY: in every encoding a database may have, the first byte tells the length.
                let length = unsafe { pg_sys::pg_encoding_mblen(encoding, rest.as_ptr().cast()) };
                Ok((length.max(1) as usize).min(rest.len()))
            }
            _ => Err(internal("the text is shorter than its UTF-8")),
        }
    }
}
