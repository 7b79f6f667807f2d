//! `token_count(text)`, `unknown_tokens(text)` and `chunk_text(text, max_tokens, overlap)`.

#![allow(unsafe_code)]

use gte_engine::Role;
use pgrx::{IntoDatum, PgSqlErrorCode, pg_sys};

use crate::embedder::{Model, check_interrupts};
use crate::errors::{Outcome, error, from_engine, internal};
use crate::functions::embed::text_argument;
use crate::pg::call::{Call, export};
use crate::pg::row::{bigint, composite};
use crate::pg::rows::Rows;
use crate::pg::stored::Stored;
use crate::pg::text::to_utf8;

export!(token_count_gte_small, pg_finfo_token_count_gte_small, token_count);
export!(unknown_tokens_gte_small, pg_finfo_unknown_tokens_gte_small, unknown_tokens);
export!(chunk_text_gte_small, pg_finfo_chunk_text_gte_small, chunk_text);

/// The smallest chunk, in tokens: a smaller one has no room for a word beside the two special
/// tokens. The tokens of the model's prompt are added to it.
const MIN_TOKENS: usize = 8;

/// `token_count(content text) → int`, STRICT: as `embed` counts it, with the prompt for documents.
/// At most 2^30, because each token has at least one byte.
fn token_count(call: Call) -> Outcome<pg_sys::Datum> {
    let content = text_argument(call)?;
    let text = to_utf8(content.bytes())?;
    let model = Model::current()?;
    let encoder = model.encoder()?;
    let tokens = encoder.count_tokens(Role::Document, &text, &mut check_interrupts);
    number(tokens.map_err(|e| from_engine(&e))?)
}

/// `unknown_tokens(content text) → (unknown int8, tokens int8)`, STRICT: of the tokens that the model
/// reads, without those that every text has.
fn unknown_tokens(call: Call) -> Outcome<pg_sys::Datum> {
    let content = text_argument(call)?;
    let text = to_utf8(content.bytes())?;
    let model = Model::current()?;
    let counted = model.encoder()?.unknown_tokens(&text, &mut check_interrupts);
    let (unknown, tokens) = counted.map_err(|e| from_engine(&e))?;
    composite(call, &[bigint(unknown as u64), bigint(tokens as u64)])
}

/// `chunk_text(content text, max_tokens int, overlap int) → table(ordinal int, chunk text,
/// start int, tokens int)`, STRICT.
fn chunk_text(call: Call) -> Outcome<pg_sys::Datum> {
    let (max_tokens, overlap) = (integer_argument(call, 1)?, integer_argument(call, 2)?);
    let enough = |least: usize| match usize::try_from(max_tokens).ok().filter(|&n| n >= least) {
        Some(max_tokens) => Ok(max_tokens),
        None => Err(error(
            PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
            format!("max_tokens is {max_tokens}, it must be at least {least}"),
            "The text was not split.",
            "Leave max_tokens out to fill the model's whole window.",
        )),
    };
    // Before the model is loaded.
    enough(MIN_TOKENS)?;
    let mut rows = Rows::begin(call, 4)?;
    let content = text_argument(call)?;
    let text = to_utf8(content.bytes())?;
    let model = Model::current()?;
    let encoder = model.encoder()?;
    let limit = encoder.info().max_tokens.min(enough(MIN_TOKENS + encoder.prompt_tokens())?);
    let around = encoder.special_tokens() + encoder.prompt_tokens();
    let most = limit as i64 - around as i64 - 1;
    let overlap = usize::try_from(overlap).ok().filter(|&overlap| overlap as i64 <= most);
    let overlap = overlap.ok_or_else(|| {
        error(
            PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
            format!("overlap must be from 0 to {most} with chunks of {limit} tokens"),
            "Each chunk needs its special tokens and room for at least one new token.",
            "Repeat fewer tokens; a tenth of the chunk is usual.",
        )
    })?;
    let mut chunks = encoder.chunks(&text, limit, overlap).map_err(|e| from_engine(&e))?;
    let mut stored = Stored::new(content.bytes(), &text);
    let mut ordinal = 0;
    while let Some(chunk) = chunks.next(&mut check_interrupts).map_err(|e| from_engine(&e))? {
        ordinal += 1;
        let (start, bytes) = stored.locate(chunk.range)?;
        rows.put_with_text(
            [Some(number(ordinal)?), None, Some(number(start)?), Some(number(chunk.tokens)?)],
            1,
            bytes,
        )?;
    }
    // The call returns its rows through `Rows`; this value is ignored.
    Ok(pg_sys::Datum::null())
}

fn integer_argument(call: Call, n: usize) -> Outcome<i32> {
    // SAFETY: the SQL script declares the argument as int4.
    let value =
        call.argument(n).and_then(|datum| unsafe { pgrx::FromDatum::from_datum(datum, false) });
    value.ok_or_else(|| internal("a STRICT function was called with NULL"))
}

/// A number as an integer column. A text has fewer than 2^31 tokens and characters.
fn number(value: usize) -> Outcome<pg_sys::Datum> {
    let value = i32::try_from(value).map_err(internal)?;
    value.into_datum().ok_or_else(|| internal("no datum was made"))
}
