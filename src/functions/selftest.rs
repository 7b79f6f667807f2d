//! `embed_selftest()`.

#![allow(unsafe_code)]

use gte_engine::oracle;
use pgrx::pg_sys;

use crate::embedder::{Model, check_interrupts};
use crate::errors::{Outcome, from_engine};
use crate::pg::call::{Call, export};
use crate::pg::row::{composite, float, integer, text};

export!(embed_selftest_gte_small, pg_finfo_embed_selftest_gte_small, embed_selftest);

/// One row: how close the kernels of this backend are to stock candle. Neither the memo nor the
/// counters take part.
fn embed_selftest(call: Call) -> Outcome<pg_sys::Datum> {
    let model = Model::current()?;
    let encoder = model.encoder()?;
    // SAFETY: this is the backend's main thread, the only one that runs Postgres's code. The
    // helpers of the encoder run kernels, which do not use the environment.
    let one_thread = unsafe { oracle::use_one_thread() }.map_err(|e| from_engine(&e))?;
    let agreement = gte_engine::selftest(encoder, one_thread, &mut check_interrupts)
        .map_err(|e| from_engine(&e))?;
    let info = encoder.info();
    composite(
        call,
        &[
            text(info.kernels),
            text(info.precision.name()),
            integer(agreement.texts),
            float(agreement.least_cosine),
            float(agreement.max_abs),
        ],
    )
}
