//! Who asks.

#![allow(unsafe_code)]

use pgrx::pg_sys;

/// The role of the session, as SET ROLE sets it, and the role whose rights apply, which a SECURITY
/// DEFINER function changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Asker {
    outer: u32,
    current: u32,
}

impl Asker {
    pub fn now() -> Asker {
        // SAFETY: both read plain values of this backend, which are set before it runs SQL.
        let (outer, current) = unsafe { (pg_sys::GetOuterUserId(), pg_sys::GetUserId()) };
        Asker { outer: outer.to_u32(), current: current.to_u32() }
    }

    /// The same bytes for the same asker only.
    pub fn bytes(self) -> [u8; 8] {
        ((u64::from(self.outer) << 32) | u64::from(self.current)).to_ne_bytes()
    }
}
