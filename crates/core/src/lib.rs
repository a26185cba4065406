//! The torch-free heart of margay.
//!
//! A vision classifier is a [`Graph`] of [`Op`] nodes with canonical (timm) parameter names and a
//! [`Params`] table that holds their values. Compression produces a [`Mask`] per weight; the result
//! is a [`SparseModel`] that is written to one file.
//!
//! This crate knows shapes, names and sparsity. It neither trains nor runs a model: the torch
//! executor of the `margay` crate and the runtime of `margay-runtime` interpret the same graph.
#![forbid(unsafe_code)]

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}

pub mod adapter;
pub mod branch;
mod csr;
pub mod fold;
mod footprint;
mod granularity;
mod graph;
pub mod hidden;
pub mod input;
mod mask;
pub mod model;
mod op;
pub mod output;
mod params;
mod pattern;
mod preprocess;
mod shape;
mod sparsity;

pub use csr::{Csr, CsrError};
pub use footprint::{Footprint, LimitError, Limits};
pub use granularity::{Granularity, UnknownGranularity};
pub use graph::{Graph, GraphBuilder, GraphError, Node, NodeId, Role};
pub use hidden::Hidden;
pub use mask::Mask;
pub use model::{FormatError, Provenance, SparseModel, Weight};
pub use op::{
    Activation, Attention, AvgPool2d, BatchNorm, Conv2d, Embed, LayerNorm, Linear, LogSumExp, MaxPool2d,
    MeanTokens, Op, ParamRole, ParamSpec, ResponseNorm, SamePad, Scale, Token,
};
pub use params::{Params, ParamsError, nearest_name};
pub use pattern::{Pattern, PatternError};
pub use preprocess::{
    Centre, Interpolation, MAX_INPUT_SIDE, Normalization, Preprocess, PreprocessError, Resize,
};
pub use shape::Shape;
pub use sparsity::{InvalidSparsity, Sparsity};
