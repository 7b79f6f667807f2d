//! pgvector's `vector` type. The byte layout is private to this crate, and no other crate knows it.
//!
//! [`Vector`] and [`VectorRef`] cannot hold an invalid value. The feature `pgrx` adds the datum
//! traits and the look-up of the type's OID. Without it the crate needs no Postgres.

mod layout;
pub use layout::{LayoutError, MAX_DIMENSIONS, Vector, VectorRef};

#[cfg(feature = "pgrx")]
mod datum;
#[cfg(feature = "pgrx")]
mod type_oid;
#[cfg(feature = "pgrx")]
pub use type_oid::{is_vector_type, vector_type_oid};
