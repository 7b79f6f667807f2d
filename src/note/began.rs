//! When the first vector was written into a column that was noted as empty. Vectors that are older
//! came while the trigger was off, as from a subscription or a load, and nobody knows whose they
//! are. `embedding_status()` counts them by `xmin`:
//!
//! ```json
//! {"began": {"cluster": "7436290146243587421", "xid": "751"}}
//! ```
//!
//! A transaction that was running then has a number that is not smaller, so its own vectors are
//! not counted. In another cluster the number means nothing.

#![allow(unsafe_code)]

use pgrx::pg_sys;
use serde_json::{Value, json};

/// The key in the note.
pub(super) const BEGAN: &str = "began";

/// The oldest transaction that runs now, in this cluster.
pub(super) fn now() -> Value {
    // SAFETY: numbers in memory. A trigger and a statement have an active snapshot.
    let (cluster, oldest) = unsafe {
        let next = pg_sys::ReadNextFullTransactionId().value;
        // The snapshot has the lower half of a number that is less than 2^31 below the next one.
        #[allow(clippy::cast_possible_truncation)]
        let behind = match pg_sys::ActiveSnapshotSet() {
            true => (next as u32).wrapping_sub(u32::from((*pg_sys::GetActiveSnapshot()).xmin)),
            false => 0,
        };
        (pg_sys::GetSystemIdentifier(), next - u64::from(behind))
    };
    json!({ "cluster": cluster.to_string(), "xid": oldest.to_string() })
}
