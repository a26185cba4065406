//! The one integration test binary.

mod cli;
mod field;
mod layers;
#[cfg(feature = "torch")]
mod pipeline;
