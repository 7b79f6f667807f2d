//! `embed_model()` and `embed_stats()`.

#![allow(unsafe_code)]

use pgrx::pg_sys;

use crate::embedder::{self, Model};
use crate::errors::{Outcome, from_engine, may_see_settings};
use crate::pg::call::{Call, export};
use crate::pg::row::{bigint, boolean, composite, float, integer, text};
use crate::settings;

export!(embed_model_gte_small, pg_finfo_embed_model_gte_small, embed_model);
export!(embed_stats_gte_small, pg_finfo_embed_stats_gte_small, embed_stats);

/// One row: the model of this backend. Loads it if it is not loaded yet.
fn embed_model(call: Call) -> Outcome<pg_sys::Datum> {
    let model = Model::current()?;
    let encoder = model.encoder()?;
    let info = encoder.info();
    let identity = encoder.identity().map_err(|e| from_engine(&e))?;
    let source = may_see_settings().then(|| settings::model_dir().display().to_string());
    composite(
        call,
        &[
            text(&identity.name),
            text(&identity.fingerprint),
            integer(gte_engine::DIMS),
            integer(info.max_tokens),
            identity.suggested_threshold.and_then(float),
            text(info.precision.name()),
            text(info.kernels),
            integer(encoder.threads()),
            boolean(model.is_preloaded()),
            float(info.load_time.as_secs_f64()),
            source.as_deref().and_then(text),
            text(identity.pooling),
            text(&identity.query_prompt),
            text(&identity.document_prompt),
        ],
    )
}

/// One row: what this backend has embedded so far. Loads nothing.
fn embed_stats(call: Call) -> Outcome<pg_sys::Datum> {
    let counters = embedder::counters();
    composite(
        call,
        &[
            bigint(counters.calls),
            bigint(counters.memo_hits),
            bigint(counters.model_runs),
            bigint(counters.texts),
            bigint(counters.tokens),
            bigint(counters.truncated_texts),
            float(counters.model_seconds),
            bigint(counters.unknown_tokens),
        ],
    )
}
