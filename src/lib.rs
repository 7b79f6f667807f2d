//! gte-small: text embeddings inside PostgreSQL.
//!
//! This crate is the Postgres surface: argument checks, settings, errors, the trigger and the
//! per-backend embedder. The model is `gte-engine`, pgvector's bytes are `pgvector-compat`, and the
//! SQL objects are declared by hand in `sql/`.

use pgrx::prelude::*;

mod embedder;
mod errors;
mod functions;
mod memo;
mod note;
mod own;
mod pg;
mod recent;
mod search;
mod settings;
mod trigger;
mod unit;
mod version;

pg_module_magic!();

// Both ways of installing use the same files: `make install` joins them, `cargo pgrx` includes
// them.
extension_sql_file!("../sql/extension/10-guard.sql", name = "guard", bootstrap);
extension_sql_file!("../sql/extension/15-schema.sql", name = "schema", requires = ["guard"]);
extension_sql_file!("../sql/extension/20-embed.sql", name = "embed", requires = ["schema"]);
extension_sql_file!("../sql/extension/22-distance.sql", name = "distance", requires = ["embed"]);
extension_sql_file!(
    "../sql/extension/24-search-primitives.sql",
    name = "search_primitives",
    requires = ["distance"]
);
extension_sql_file!(
    "../sql/extension/25-values.sql",
    name = "values",
    requires = ["search_primitives"]
);
extension_sql_file!("../sql/extension/26-words.sql", name = "words", requires = ["values"]);
extension_sql_file!("../sql/extension/28-filter.sql", name = "filter", requires = ["words"]);
extension_sql_file!("../sql/extension/30-columns.sql", name = "columns", requires = ["filter"]);
extension_sql_file!("../sql/extension/31-citus.sql", name = "citus", requires = ["columns"]);
extension_sql_file!("../sql/extension/35-locks.sql", name = "locks", requires = ["citus"]);
extension_sql_file!("../sql/extension/40-enable.sql", name = "enable", requires = ["locks"]);
extension_sql_file!("../sql/extension/42-functions.sql", name = "functions", requires = ["enable"]);
extension_sql_file!("../sql/extension/43-nearest.sql", name = "nearest", requires = ["functions"]);
extension_sql_file!("../sql/extension/44-hybrid.sql", name = "hybrid", requires = ["nearest"]);
extension_sql_file!("../sql/extension/45-indexes.sql", name = "indexes", requires = ["hybrid"]);
extension_sql_file!(
    "../sql/extension/46-index-statements.sql",
    name = "index_statements",
    requires = ["indexes"]
);
extension_sql_file!(
    "../sql/extension/47-equal-vectors.sql",
    name = "equal_vectors",
    requires = ["index_statements"]
);
extension_sql_file!(
    "../sql/extension/48-disable.sql",
    name = "disable",
    requires = ["equal_vectors"]
);
extension_sql_file!("../sql/extension/49-refresh.sql", name = "refresh", requires = ["disable"]);
extension_sql_file!("../sql/extension/50-backfill.sql", name = "backfill", requires = ["refresh"]);
extension_sql_file!(
    "../sql/extension/51-backfill-write.sql",
    name = "backfill_write",
    requires = ["backfill"]
);
extension_sql_file!(
    "../sql/extension/52-backfill-force.sql",
    name = "backfill_force",
    requires = ["backfill_write"]
);
extension_sql_file!(
    "../sql/extension/55-backfill-calls.sql",
    name = "backfill_calls",
    requires = ["backfill_force"]
);
extension_sql_file!(
    "../sql/extension/58-readable.sql",
    name = "readable",
    requires = ["backfill_calls"]
);
extension_sql_file!(
    "../sql/extension/59-status-hints.sql",
    name = "status_hints",
    requires = ["readable"]
);
extension_sql_file!("../sql/extension/60-status.sql", name = "status", requires = ["status_hints"]);
extension_sql_file!(
    "../sql/extension/63-unknown-words.sql",
    name = "unknown_words",
    requires = ["status"]
);
extension_sql_file!(
    "../sql/extension/65-verify.sql",
    name = "verify",
    requires = ["unknown_words"]
);
extension_sql_file!("../sql/extension/67-recall.sql", name = "recall", requires = ["verify"]);
extension_sql_file!("../sql/extension/70-chunks.sql", name = "chunks", requires = ["recall"]);
extension_sql_file!("../sql/extension/72-documents.sql", name = "documents", requires = ["chunks"]);
extension_sql_file!(
    "../sql/extension/74-document-search.sql",
    name = "document_search",
    requires = ["documents"]
);
extension_sql_file!(
    "../sql/extension/76-enable-documents.sql",
    name = "enable_documents",
    requires = ["document_search"]
);
extension_sql_file!("../sql/extension/80-info.sql", name = "info", requires = ["enable_documents"]);
extension_sql_file!("../sql/extension/85-selftest.sql", name = "selftest", requires = ["info"]);
extension_sql_file!(
    "../sql/extension/91-citus-search.sql",
    name = "citus_search",
    requires = ["selftest"]
);
extension_sql_file!(
    "../sql/extension/92-citus-backfill.sql",
    name = "citus_backfill",
    requires = ["citus_search"]
);
extension_sql_file!(
    "../sql/extension/93-citus-status.sql",
    name = "citus_status",
    requires = ["citus_backfill"]
);
extension_sql_file!(
    "../sql/extension/94-citus-documents.sql",
    name = "citus_documents",
    requires = ["citus_status"],
    finalize
);

/// Called by Postgres when the library is loaded. Defines the settings, raises the default of
/// pgvector's iterative scan, installs the hook of searches without LIMIT, and in the postmaster
/// (`shared_preload_libraries`) loads the model. Starts no thread: a thread does not survive the
/// fork.
#[allow(non_snake_case)]
#[pg_guard]
pub extern "C-unwind" fn _PG_init() {
    settings::define(embedder::memo_size_assigned);
    search::iterative_scan::begin(settings::iterative_scan());
    search::below::install();
    if settings::in_postmaster() {
        embedder::preload();
    }
}
