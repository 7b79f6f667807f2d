//! PostgreSQL's own forms of calls, texts and rows.

pub mod call;
pub mod encoding;
pub mod row;
pub mod rows;
pub mod stored;
pub mod text;
