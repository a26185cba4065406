//! One file per command.

pub mod adapt;
pub mod bench;
pub mod completions;
pub mod compress;
pub mod demo;
pub mod eval;
pub mod experiment;
pub mod export;
pub mod front;
pub mod inspect;
pub mod list;
pub mod predict;
pub mod report;
pub mod train;

mod engine;
#[cfg(feature = "torch")]
mod plan;
#[cfg(feature = "torch")]
mod run;
#[cfg(not(feature = "torch"))]
mod without_torch;
