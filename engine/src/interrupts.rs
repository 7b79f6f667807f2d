//! The caller's "may I go on?", asked often enough and not too often.

use std::ops::ControlFlow;

use crate::Error;

/// Work between two questions: at most some 3 ms, where a unit of work is passing over a character.
const WORK: usize = 1 << 18;

/// Tokenizing costs at most so many times what passing over the same bytes costs: 1 µs a byte by the
/// library.
const ENCODING: usize = 100;

/// Asks the caller's callback after each stretch of work.
pub(crate) struct Ask<'a> {
    go_on: &'a mut dyn FnMut() -> ControlFlow<()>,
    left: usize,
}

impl<'a> Ask<'a> {
    pub fn new(go_on: &'a mut dyn FnMut() -> ControlFlow<()>) -> Ask<'a> {
        Ask { go_on, left: WORK }
    }

    /// Asks now.
    ///
    /// # Errors
    /// [`Error::Interrupted`] when the callback breaks.
    pub fn now(&mut self) -> Result<(), Error> {
        self.left = WORK;
        if (self.go_on)().is_break() { Err(Error::Interrupted) } else { Ok(()) }
    }

    /// So many characters were passed over, or as much work was done.
    ///
    /// # Errors
    /// As [`Ask::now`].
    pub fn passed(&mut self, work: usize) -> Result<(), Error> {
        match self.left.checked_sub(work) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => self.now(),
        }
    }

    /// So many bytes were tokenized.
    ///
    /// # Errors
    /// As [`Ask::now`].
    pub fn encoded(&mut self, bytes: usize) -> Result<(), Error> {
        self.passed(bytes.saturating_add(4).saturating_mul(ENCODING))
    }
}
