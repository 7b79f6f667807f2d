//! What the generated search functions need from the library, so that the index chooses which near
//! rows come, and never how many.

pub mod below;
mod index_scans;
pub mod iterative_scan;
mod nearest;
mod scan_settings;
