//! A model: its files, its configuration, its tensors and its pooling.

pub(crate) mod checkpoint;
pub(crate) mod config;
pub(crate) mod files;
pub(crate) mod known;
pub(crate) mod pooling;
