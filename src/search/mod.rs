//! What the generated search functions need from the library, so that the index chooses which near
//! rows come, and never how many.

pub mod below;
pub mod iterative_scan;
mod nearest;
