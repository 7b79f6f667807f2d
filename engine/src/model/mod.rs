//! A model: its files, its configuration, its tensors, its pooling and its prompts.

pub(crate) mod checkpoint;
pub(crate) mod config;
pub(crate) mod files;
pub(crate) mod known;
pub(crate) mod modules;
pub(crate) mod pooling;
pub(crate) mod prompts;
