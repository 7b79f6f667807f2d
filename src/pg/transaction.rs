//! Which subtransaction this backend is in.

#![allow(unsafe_code)]

use pgrx::pg_sys;

/// A subtransaction, or a transaction outside of all savepoints. No later one is equal to it: the
/// number is not used again within the transaction, also after a ROLLBACK TO SAVEPOINT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubTransaction {
    transaction: pg_sys::LocalTransactionId,
    number: pg_sys::SubTransactionId,
}

impl SubTransaction {
    pub fn current() -> SubTransaction {
        // SAFETY: MyProc is set in every backend that runs a statement. Both are plain numbers.
        unsafe {
            #[cfg(any(feature = "pg14", feature = "pg15", feature = "pg16"))]
            let transaction = (*pg_sys::MyProc).lxid;
            #[cfg(not(any(feature = "pg14", feature = "pg15", feature = "pg16")))]
            let transaction = (*pg_sys::MyProc).vxid.lxid;
            SubTransaction { transaction, number: pg_sys::GetCurrentSubTransactionId() }
        }
    }
}
