//! What the SQL functions use of PostgreSQL: its calling convention, texts,
//! encodings, rows, cached plans and subtransactions.

pub mod blank;
pub mod call;
pub mod encoding;
pub mod guc;
pub mod list;
pub mod lossy;
pub mod plans;
pub mod row;
pub mod rows;
pub mod stored;
pub mod text;
pub mod transaction;
pub mod user;
