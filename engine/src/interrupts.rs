//! Calls the caller's callback at regular intervals during long work, so that the caller can stop
//! it.

use std::ops::ControlFlow;

use crate::{Error, memory};

/// Work between two calls of the callback, at most about 3 ms. Reading one character is one unit of
/// work.
const WORK_BETWEEN_CHECKS: usize = 1 << 18;

/// Work of tokenizing one byte. The tokenizers library takes at most 1 µs a byte, and reading takes
/// at most a hundredth of that.
const ENCODING_WORK: usize = 100;

/// Counts work and calls the callback after each stretch of it.
pub(crate) struct Interrupts<'a> {
    go_on: &'a mut dyn FnMut() -> ControlFlow<()>,
    work_left: usize,
}

impl<'a> Interrupts<'a> {
    pub fn new(go_on: &'a mut dyn FnMut() -> ControlFlow<()>) -> Interrupts<'a> {
        Interrupts { go_on, work_left: WORK_BETWEEN_CHECKS }
    }

    /// Calls the callback now.
    ///
    /// # Errors
    /// [`Error::Interrupted`] when the callback breaks; [`Error::OutOfMemory`] when memory was refused
    /// since the last call.
    pub fn check(&mut self) -> Result<(), Error> {
        self.work_left = WORK_BETWEEN_CHECKS;
        if (self.go_on)().is_break() { Err(Error::Interrupted) } else { memory::check() }
    }

    /// Counts work. Calls the callback when enough work was done since its last call.
    ///
    /// # Errors
    /// As [`Interrupts::check`].
    pub fn count_work(&mut self, work: usize) -> Result<(), Error> {
        match self.work_left.checked_sub(work) {
            Some(left) => {
                self.work_left = left;
                Ok(())
            }
            None => self.check(),
        }
    }

    /// Counts the work of tokenizing a text of this many bytes.
    ///
    /// # Errors
    /// As [`Interrupts::check`].
    pub fn count_encoding(&mut self, bytes: usize) -> Result<(), Error> {
        self.count_work(bytes.saturating_add(4).saturating_mul(ENCODING_WORK))
    }
}
