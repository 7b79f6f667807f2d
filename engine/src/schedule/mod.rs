//! Decides which texts share a forward pass and which threads run it.

pub(crate) mod apart;
mod barrier;
pub(crate) mod blocks;
pub(crate) mod run;
mod signals;
pub(crate) mod team;
pub(crate) mod threads;
mod trim;
