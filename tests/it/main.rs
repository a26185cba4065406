//! The one integration test binary.

#[cfg(feature = "torch")]
mod accuracy;
#[cfg(feature = "torch")]
mod adapt;
#[cfg(feature = "torch")]
mod bursts;
mod checkpoints;
mod cli;
mod docs;
#[cfg(feature = "torch")]
mod experiment;
#[cfg(feature = "torch")]
mod families;
mod field;
mod fuzz;
mod hostile;
mod input;
mod layers;
mod output;
#[cfg(feature = "torch")]
mod pipeline;
