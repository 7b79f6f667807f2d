//! `embed(text)` and `embed_query(text)`.

#![allow(unsafe_code)]

use gte_engine::Embedding;
use pgrx::{IntoDatum, PgSqlErrorCode, pg_sys};
use pgvector_compat::{MAX_DIMENSIONS, Vector};

use crate::embedder;
use crate::errors::{Outcome, error, internal};
use crate::pg::call::{Call, export};
use crate::pg::text::{Detoasted, to_utf8};

export!(embed_gte_small, pg_finfo_embed_gte_small, embed);
export!(embed_query_gte_small, pg_finfo_embed_query_gte_small, embed_query);

/// `embed(content text) → vector(384)`, STRICT: a document.
fn embed(call: Call) -> Outcome<pg_sys::Datum> {
    let content = text_argument(call)?;
    to_datum(&*embedder::embed_one(&to_utf8(content.bytes())?)?)
}

/// `embed_query(search text) → vector(384)`, STRICT: for search boxes, with the model's prompt for
/// queries. It refuses inputs that are certainly mistakes.
fn embed_query(call: Call) -> Outcome<pg_sys::Datum> {
    let argument = text_argument(call)?;
    let search = to_utf8(argument.bytes())?;
    if search.trim().is_empty() {
        return Err(error(
            PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
            "search text is blank",
            "A search for nothing would return rows by chance.",
            "Search for at least one word.",
        ));
    }
    if is_vector_literal(&search) {
        return Err(error(
            PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
            "search text is a vector literal",
            "An argument without a type is taken for text, and the numbers would be embedded as words.",
            "Cast it, as in query_embeddings('[...]'::vector, 0.8), or name the argument: embedding => '[...]'.",
        ));
    }
    if is_array_of_numbers(&search) {
        return Err(error(
            PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
            "search text is an array of numbers",
            "Drivers write an array of numbers like this, and the numbers would be embedded as words.",
            "Cast it, as in query_embeddings('{...}'::real[]::vector, 0.8), or pass the vector as '[...]': in JavaScript, JSON.stringify() writes it.",
        ));
    }
    to_datum(&*embedder::embed_search(&search)?)
}

/// The first argument of a STRICT function. The SQL script must declare it as text.
pub fn text_argument(call: Call) -> Outcome<Detoasted> {
    let datum =
        call.argument(0).ok_or_else(|| internal("a STRICT function was called with NULL"))?;
    // SAFETY: the SQL script declares the first argument as text, and the datum lives as long as
    // the call.
    Ok(unsafe { Detoasted::new(datum) })
}

/// Whether the whole string is a vector in pgvector's notation.
fn is_vector_literal(text: &str) -> bool {
    is_list(text, '[', ']', |item| item.parse::<f32>().is_ok())
}

/// Whether the whole string is an array of numbers in PostgreSQL's notation. Node's drivers put
/// each number into quotes.
fn is_array_of_numbers(text: &str) -> bool {
    is_list(text, '{', '}', |item| {
        let bare = item.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(item);
        bare.parse::<f32>().is_ok()
    })
}

/// Whether the whole string is a list of such elements in such brackets. A list of more elements
/// than a vector can have is not a vector, so the rest of a long text is not parsed.
fn is_list(text: &str, open: char, close: char, element: fn(&str) -> bool) -> bool {
    text.trim().strip_prefix(open).and_then(|rest| rest.strip_suffix(close)).is_some_and(|list| {
        let mut items = list.split(',');
        items.by_ref().take(MAX_DIMENSIONS).all(|item| element(item.trim()))
            && items.next().is_none()
    })
}

/// An engine's embedding as a `vector` datum in the current memory context.
pub fn to_datum(embedding: &Embedding) -> Outcome<pg_sys::Datum> {
    Vector::new(embedding.values.to_vec())
        .map_err(internal)?
        .into_datum()
        .ok_or_else(|| internal("no datum was made"))
}
