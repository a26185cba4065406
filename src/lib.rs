//! margay turns a pretrained vision classifier and a few images into a small, fast, sparse specialist.
//!
//! Stages, in the order of a run: [`checkpoint`] and [`models`] read a pretrained network as a graph,
//! [`data`] draws the few shots, `calibrate`, `allocate` and `prune` make it sparse, `distill` wins
//! accuracy back, `export` writes one file, and `margay-runtime` runs it. Only modules behind the
//! `torch` feature know libtorch.

pub mod checkpoint;
pub mod cli;
pub mod data;
pub mod experiment;
pub mod front;
pub mod labels;
pub mod models;
pub mod names;
pub mod onnx;
pub mod options;
pub mod peers;
pub mod preprocess;
pub mod progress;
pub mod recipe;
pub mod record;
pub mod report;
mod scale;
pub mod thumbnails;
pub mod world;

#[cfg(feature = "torch")]
pub mod adapt;
pub mod allocate;
#[cfg(feature = "torch")]
pub mod calibrate;
#[cfg(feature = "torch")]
pub mod distill;
#[cfg(feature = "torch")]
pub mod head;
#[cfg(feature = "torch")]
pub mod pipeline;
#[cfg(feature = "torch")]
pub mod prune;
#[cfg(feature = "torch")]
pub mod torch;
