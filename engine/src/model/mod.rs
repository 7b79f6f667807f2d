//! A model directory: its files, its configuration and its tensors.

pub(crate) mod checkpoint;
pub(crate) mod config;
pub(crate) mod files;
pub(crate) mod known;
