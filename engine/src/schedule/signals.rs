//! Threads that receive no signals.

#![allow(unsafe_code)]

use crate::Error;

/// Blocks all signals on this thread until it is dropped. A new thread inherits the mask of the
/// thread that spawns it, so it never receives a signal.
pub(super) struct SignalsBlocked {
    previous: libc::sigset_t,
}

impl SignalsBlocked {
    pub fn new() -> Result<SignalsBlocked, Error> {
        // SAFETY: both sets are plain data, and sigfillset and pthread_sigmask write them before
        // they are read. The pointers refer to live locals of the right type.
        let (status, previous) = unsafe {
            let mut all = std::mem::zeroed::<libc::sigset_t>();
            let mut previous = std::mem::zeroed::<libc::sigset_t>();
            libc::sigfillset(&mut all);
            (libc::pthread_sigmask(libc::SIG_SETMASK, &all, &mut previous), previous)
        };
        if status == 0 {
            Ok(SignalsBlocked { previous })
        } else {
            Err(Error::internal(std::io::Error::from_raw_os_error(status)))
        }
    }
}

impl Drop for SignalsBlocked {
    fn drop(&mut self) {
        // SAFETY: pthread_sigmask filled `previous` in `new`. The third pointer may be null: then
        // the old mask is not returned.
        unsafe {
            libc::pthread_sigmask(libc::SIG_SETMASK, &self.previous, std::ptr::null_mut());
        }
    }
}
