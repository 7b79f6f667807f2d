//! Decides which texts share a forward pass and which threads run it.

pub(crate) mod apart;
pub(crate) mod blocks;
pub(crate) mod run;
mod signals;
pub(crate) mod team;
pub(crate) mod threads;
