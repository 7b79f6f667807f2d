//! gte-small: text embeddings inside PostgreSQL.
//!
//! This crate is the Postgres surface: argument checks, settings, errors, the trigger and the
//! per-backend embedder. The model is `gte-engine`, pgvector's bytes are `pgvector-compat`, and the
//! SQL objects are declared by hand in `sql/`.

use pgrx::prelude::*;

mod array;
mod call;
mod embedder;
mod errors;
mod functions;
mod info;
mod memo;
mod row;
mod settings;
mod text;
mod trigger;

pg_module_magic!();

// One script for both ways of installing: `make install` copies it, `cargo pgrx` includes it.
extension_sql_file!("../sql/gte-small--0.1.0.sql", name = "gte_small", finalize);

/// Called by Postgres when the library is loaded. Defines the settings, and in the postmaster
/// (`shared_preload_libraries`) loads the model. Starts no thread: none would survive the fork.
#[allow(non_snake_case)]
#[pg_guard]
pub extern "C-unwind" fn _PG_init() {
    settings::define();
    if settings::in_postmaster() {
        embedder::preload();
    }
}
