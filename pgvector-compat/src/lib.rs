//! pgvector's `vector` type: the only place that knows its bytes.
//!
//! [`Vector`] and [`VectorRef`] cannot hold an invalid value, and the byte layout is private to
//! this crate. The feature `pgrx` adds the datum traits and the look-up of the type's OID; without
//! it the crate is pure and needs no Postgres.

mod layout;
pub use layout::{LayoutError, MAX_DIMENSIONS, Vector, VectorRef};

#[cfg(feature = "pgrx")]
mod datum;
#[cfg(feature = "pgrx")]
mod type_oid;
#[cfg(feature = "pgrx")]
pub use type_oid::{is_vector_type, vector_type_oid};
