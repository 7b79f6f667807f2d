//! Recognizes a row that an UPDATE moves to another partition. PostgreSQL fires the UPDATE trigger
//! of the one partition and then the INSERT trigger of the other. To the latter, the row's old
//! vector looks like one that comes along.

#![allow(unsafe_code)]

use std::cell::{Cell, LazyCell};
use std::hash::{BuildHasher, Hasher, RandomState};

use pgrx::{pg_sys, varlena};

use crate::pg::transaction::SubTransaction;

/// Of a longer value, only the beginning and the length are compared.
const BEGINNING: usize = 16 << 10;

thread_local! {
    /// The row that an UPDATE trigger of a partition passed on last.
    static LAST: Cell<Option<(SubTransaction, u64)>> = const { Cell::new(None) };
    static KEYS: LazyCell<RandomState> = LazyCell::new(RandomState::new);
}

/// A hash of a row's vector and texts.
pub struct Fingerprint(std::hash::DefaultHasher);

impl Fingerprint {
    pub fn new() -> Fingerprint {
        Fingerprint(KEYS.with(|keys| keys.build_hasher()))
    }

    /// Adds a varlena as it is stored: the INSERT trigger gets the same pointers to values that are
    /// stored apart.
    ///
    /// # Safety
    /// `datum` must be a varlena.
    pub unsafe fn add(&mut self, datum: Option<pg_sys::Datum>) {
        let Some(datum) = datum else {
            return self.0.write_u8(0);
        };
        // SAFETY: the caller guarantees the datum; the stored form has `varsize_any` bytes.
        let bytes = unsafe {
            let start = datum.cast_mut_ptr::<pg_sys::varlena>();
            std::slice::from_raw_parts(start.cast::<u8>(), varlena::varsize_any(start))
        };
        self.0.write_usize(bytes.len());
        self.0.write(&bytes[..bytes.len().min(BEGINNING)]);
    }

    /// An UPDATE trigger passes the row on.
    pub fn remember(self) {
        LAST.set(Some((SubTransaction::current(), self.0.finish())));
    }

    /// Whether the row is the one that was passed on last. It is asked once.
    pub fn matches_last(self) -> bool {
        LAST.take() == Some((SubTransaction::current(), self.0.finish()))
    }
}
