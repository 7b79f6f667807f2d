//! The errors of the extension: SQLSTATE, message (the fact), detail (the consequence), hint (an
//! action).

#![allow(unsafe_code)]

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::{PgLogLevel, PgSqlErrorCode, pg_sys};

use crate::pg::encoding::database_is_utf8;

/// A finished error. It is boxed, because it has 200 bytes and almost every result is a success.
pub type Failure = Box<ErrorReport>;

/// The result of everything that can fail in a user's call.
pub type Outcome<T> = Result<T, Failure>;

/// An error from its four parts.
pub fn error(
    code: PgSqlErrorCode,
    message: impl Into<String>,
    detail: impl Into<String>,
    hint: impl Into<String>,
) -> Failure {
    Box::new(
        ErrorReport::new(code, representable(message.into()), "gte_small")
            .set_detail(representable(detail.into()))
            .set_hint(representable(hint.into())),
    )
}

/// The text itself in a UTF-8 database; in others, with "?" for each character that is not ASCII.
/// Unconverted, such characters would raise an error about invalid bytes instead of the error
/// meant.
pub fn representable(text: String) -> String {
    if text.is_ascii() || database_is_utf8() {
        return text;
    }
    text.chars().map(|c| if c.is_ascii() { c } else { '?' }).collect()
}

/// Refuses to go on without memory. What a function of the extension allocates between two calls of
/// this function, `try_reserve` aside, must be small: see `gte_engine::memory`.
pub fn check_memory() -> Outcome<()> {
    gte_engine::memory::check().map_err(|e| from_engine(&e))
}

/// Makes sure that there is memory to parse JSON of this many bytes, until the result is dropped.
/// Raises 53200, because its callers return no error.
pub fn hold_for_json(bytes: usize) -> Option<gte_engine::memory::Hold> {
    match gte_engine::memory::hold_for_json(bytes) {
        Ok(hold) => Some(hold),
        Err(error) => {
            from_engine(&error).report(PgLogLevel::ERROR);
            None
        }
    }
}

/// A vector with room for `count` values.
///
/// # Errors
/// 53200.
pub fn vector<T>(count: usize) -> Outcome<Vec<T>> {
    gte_engine::memory::vector(count).map_err(|e| from_engine(&e))
}

/// A state that should be impossible, reported as an error and not as a panic.
pub fn internal(fact: impl std::fmt::Display) -> Failure {
    from_engine(&gte_engine::Error::Internal(fact.to_string()))
}

/// An error of the engine, in the terms of an SQL user.
pub fn from_engine(engine: &gte_engine::Error) -> Failure {
    use gte_engine::Error;
    let message = engine.to_string();
    match engine {
        Error::MissingFile { .. } => error(
            PgSqlErrorCode::ERRCODE_UNDEFINED_FILE,
            message,
            with_directory(engine, "Without it no text can be embedded."),
            "Fetch the model with \"make model\" and install it with \"make install-model\", or set gte_small.model_path to the directory of a model.",
        ),
        Error::Io { .. } => error(
            PgSqlErrorCode::ERRCODE_IO_ERROR,
            message,
            with_directory(engine, "Without it no text can be embedded."),
            "See that the server's operating-system user may read the directory of the model and the files in it.",
        ),
        Error::Corrupt { .. } => error(
            PgSqlErrorCode::ERRCODE_DATA_CORRUPTED,
            message,
            with_directory(engine, "The model was not loaded."),
            "Fetch the model again with \"make model\".",
        ),
        Error::Unsupported { .. } => error(
            PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
            message,
            with_directory(engine, "The model was not loaded."),
            "Use gte-small or another BERT encoder with 384 dimensions, mean or CLS pooling and no other layer.",
        ),
        Error::TextTooLong { .. } => error(
            PgSqlErrorCode::ERRCODE_PROGRAM_LIMIT_EXCEEDED,
            message,
            "The text was not read.",
            "Split the text, or use a model with a BERT tokenizer, which reads texts of any size.",
        ),
        Error::CharacterTooLong { .. } => error(
            PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
            message,
            "The text was not split.",
            "Allow more tokens per chunk.",
        ),
        Error::NoKernels { .. } => error(
            PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
            message,
            "The model was not loaded.",
            "Set gte_small.precision to \"auto\" and leave gte_small.kernels empty.",
        ),
        Error::OutOfMemory { .. } => error(
            PgSqlErrorCode::ERRCODE_OUT_OF_MEMORY,
            message,
            "The statement was not finished.",
            "Load the model once for all sessions with shared_preload_libraries = 'gte-small', or give the server more memory: see its limits (ulimit -v, vm.overcommit_memory).",
        ),
        Error::NoThread { .. } => error(
            PgSqlErrorCode::ERRCODE_INSUFFICIENT_RESOURCES,
            message,
            "The kernels were not tested.",
            "Raise the limit of processes and threads of the server, or run it again when fewer sessions are open.",
        ),
        Error::Interrupted => error(
            PgSqlErrorCode::ERRCODE_QUERY_CANCELED,
            "embedding was interrupted",
            "Nothing was embedded.",
            "Run the statement again.",
        ),
        Error::Internal(_) => error(
            PgSqlErrorCode::ERRCODE_INTERNAL_ERROR,
            message,
            "The text was not embedded.",
            "Please report it, with the result of \"select * from embed_model()\".",
        ),
    }
}

/// `count` of the `of` texts of a call have more tokens than the model reads, `dropped` together.
pub fn truncated(count: usize, of: usize, max_tokens: usize, dropped: usize) -> Failure {
    let message = if of == 1 {
        format!("text is longer than the model's {max_tokens} tokens")
    } else {
        format!("{count} of {of} texts are longer than the model's {max_tokens} tokens")
    };
    let detail = match dropped {
        1 => "The last token has no influence on the embedding.".to_owned(),
        _ if of == 1 => format!("The last {dropped} tokens have no influence on the embedding."),
        _ => format!("The last {dropped} tokens of them have no influence on the embeddings."),
    };
    error(
        PgSqlErrorCode::ERRCODE_STRING_DATA_RIGHT_TRUNCATION,
        message,
        detail,
        "Split long texts with chunk_text(), or set gte_small.on_truncate to \"silent\".",
    )
}

/// `consequence`, after the model directory if the current user may see the server's settings.
/// Otherwise the directory goes to the server's log only.
fn with_directory(engine: &gte_engine::Error, consequence: &str) -> String {
    let Some(directory) = engine.directory().map(|directory| directory.display().to_string())
    else {
        return consequence.to_owned();
    };
    if may_see_settings() {
        format!("The model directory is \"{directory}\". {consequence}")
    } else {
        // Not LOG: with client_min_messages = log, that would reach the client.
        let line = format!("gte-small: {engine}, in the model directory \"{directory}\"");
        ErrorReport::new(PgSqlErrorCode::ERRCODE_SUCCESSFUL_COMPLETION, line, "gte_small")
            .report(PgLogLevel::LOG_SERVER_ONLY);
        consequence.to_owned()
    }
}

/// Whether the current user is a superuser or a member of `pg_read_all_settings`.
pub fn may_see_settings() -> bool {
    // SAFETY: catalogue look-ups by the OID of the current user.
    unsafe {
        pg_sys::has_privs_of_role(
            pg_sys::GetUserId(),
            pg_sys::Oid::from(pg_sys::ROLE_PG_READ_ALL_SETTINGS),
        )
    }
}
