//! Maps parts of a UTF-8 text to the bytes in the database's encoding.

#![allow(unsafe_code)]

use std::ops::Range;

use pgrx::pg_sys;

use crate::errors::{Outcome, internal};
use crate::pg::text::to_utf8;

/// Characters between two checks for interrupts: about 1 ms.
const CHARACTERS: usize = 1 << 16;

/// One position, as an offset in the UTF-8, in the stored bytes and in the stored characters.
#[derive(Clone, Copy)]
struct Position {
    utf8: usize,
    byte: usize,
    character: usize,
}

/// How the database stores text.
#[derive(Clone, Copy)]
enum Encoding {
    Utf8,
    /// `SQL_ASCII`: the bytes happen to be UTF-8, and each byte counts as a character.
    Bytes,
    /// One byte per character.
    Single,
    /// One or more bytes per character.
    Multi(i32),
    /// As `Multi`, but some characters are two characters in UTF-8.
    Combined(i32),
}

/// A text in the database's encoding, with the same text as UTF-8.
pub struct Stored<'t> {
    bytes: &'t [u8],
    utf8: &'t str,
    encoding: Encoding,
    /// Start of the last part that was located.
    at: Position,
}

impl<'t> Stored<'t> {
    /// `utf8` must be the result of [`to_utf8`] on `bytes`.
    pub fn new(bytes: &'t [u8], utf8: &'t str) -> Stored<'t> {
        // SAFETY: reads the encoding of the database and the most bytes a character has in it.
        let (encoding, longest) =
            unsafe { (pg_sys::GetDatabaseEncoding(), pg_sys::pg_database_encoding_max_length()) };
        let encoding = match (encoding as u32, longest) {
            (pg_sys::pg_enc::PG_UTF8, _) => Encoding::Utf8,
            (pg_sys::pg_enc::PG_SQL_ASCII, _) => Encoding::Bytes,
            (_, 1) => Encoding::Single,
            (pg_sys::pg_enc::PG_EUC_JIS_2004, _) => Encoding::Combined(encoding),
            _ => Encoding::Multi(encoding),
        };
        Stored { bytes, utf8, encoding, at: Position { utf8: 0, byte: 0, character: 0 } }
    }

    /// The number of a part's first character, counted from 1, and the bytes of the part. The parts
    /// must be located in the order of their starts.
    pub fn locate(&mut self, part: Range<usize>) -> Outcome<(usize, &'t [u8])> {
        self.at = self.advance(self.at, part.start)?;
        let end = match self.encoding {
            Encoding::Utf8 | Encoding::Bytes => part.end,
            _ => self.advance(self.at, part.end)?.byte,
        };
        Ok((self.at.character + 1, &self.bytes[self.at.byte..end]))
    }

    /// The position of offset `utf8`, which is not before `from`.
    fn advance(&self, from: Position, utf8: usize) -> Outcome<Position> {
        let mut position = from;
        match self.encoding {
            Encoding::Utf8 => {
                position.character += self.utf8[from.utf8..utf8].chars().count();
                (position.byte, position.utf8) = (utf8, utf8);
            }
            Encoding::Bytes => position = Position { utf8, byte: utf8, character: utf8 },
            Encoding::Single => {
                let characters = self.utf8[from.utf8..utf8].chars().count();
                position.character += characters;
                position.byte += characters;
                position.utf8 = utf8;
            }
            Encoding::Multi(encoding) | Encoding::Combined(encoding) => {
                let combined = matches!(self.encoding, Encoding::Combined(_));
                while position.utf8 < utf8 {
                    if position.character.is_multiple_of(CHARACTERS) {
                        pgrx::check_for_interrupts!();
                    }
                    let length = self.length(position.byte, encoding)?;
                    let stored = &self.bytes[position.byte..position.byte + length];
                    let characters =
                        if combined && length > 1 { to_utf8(stored)?.chars().count() } else { 1 };
                    let rest = self.utf8[position.utf8..].chars();
                    position.utf8 += rest.take(characters).map(char::len_utf8).sum::<usize>();
                    position.byte += length;
                    position.character += 1;
                }
                if position.utf8 != utf8 {
                    return Err(internal("a part ends inside a character of the database"));
                }
            }
        }
        Ok(position)
    }

    /// Bytes of the character at `at`.
    fn length(&self, at: usize, encoding: i32) -> Outcome<usize> {
        match self.bytes.get(at..) {
            Some([0..0x80, ..]) => Ok(1),
            Some(rest @ [_, ..]) => {
                // SAFETY: in every encoding that a database can have, the first byte alone decides
                // the length, and there is one.
                let length = unsafe { pg_sys::pg_encoding_mblen(encoding, rest.as_ptr().cast()) };
                Ok((length.max(1) as usize).min(rest.len()))
            }
            _ => Err(internal("the text is shorter than its UTF-8")),
        }
    }
}
