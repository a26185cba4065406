//! Sparse and dense CPU kernels of the margay runtime.
//!
//! Activations are feature maps in a padded planar [`Layout`], stored in full or in half [`Precision`]: every
//! tap of a convolution is one flat offset into it, whatever its kernel, stride and padding ([`Taps`]).
//! Vectors, weights and all arithmetic are `f32`. On maps work
//!
//! | kernel | computes |
//! |---|---|
//! | [`SparseConv`] | `y = act(w ∗ x + b [+ r])`, one step per stored weight |
//! | [`BlockConv`] | the same, one step per block of four rows |
//! | [`DenseConv`] | the same with every weight, in register tiles |
//! | [`DenseLinear`], [`SparseLinear`] | `y = act(w · x + b)` of a vector |
//! | [`Attention`] | `softmax(q kᵀ / sqrt(d)) v` per head |
//! | [`LayerNorm`], [`ResponseNorm`] | normalisations over features and over positions |
//! | [`Embedding`], [`token`], [`concat()`], [`log_sum_exp`] | tokens of a map, one of them, vectors side by side, their groups joined |
//! | [`Pointwise`] | `y = act(f · (a [+ b]))` |
//! | [`split_phases`] | the phase planes that strided windows read |
//! | [`max_pool`], [`avg_pool`], [`global_mean`], [`pad`], [`scale`], [`gate`] | what their names say |
//!
//! Tokens `[count, features]` are planes of one row: a plane per feature, a place per token. A linear layer
//! on tokens or on a map is a 1 × 1 convolution.
//!
//! A kernel is written once over a vector trait and compiled per instruction set; [`Isa`] says which are
//! there. Whatever the number of threads, each output is summed in one fixed order, so results are equal
//! bit for bit.
//!
//! All `unsafe` code of the project is in this crate. Its argument is the same everywhere: a convolution
//! checks every offset against the layouts when it is planned, and a run asserts that its tensors have
//! these layouts.
#![expect(
    clippy::inline_always,
    reason = "a vector operation that is not inlined loses the instruction set of its caller"
)]

#[macro_use]
mod simd;
mod activation;
mod attention;
mod blocks;
mod conv;
mod dense;
mod isa;
mod layout;
mod linear;
mod machine;
mod math;
mod norm;
mod parallel;
mod plane;
mod pool;
mod precision;
mod sparse;
mod taps;
mod tokens;

pub use activation::Pointwise;
pub use attention::Attention;
pub use blocks::BlockConv;
pub use conv::{ConvError, ConvSpec};
pub use dense::DenseConv;
pub use isa::{ISA_VARIABLE, Isa, IsaError};
pub use layout::{ALIGN, Layout, MAX_LEN, Margin, Tensor};
pub use linear::{DenseLinear, SparseLinear};
pub use machine::{cpu_name, peak_bandwidth, peak_flops};
pub use norm::{LayerNorm, NormSpec, ResponseNorm};
pub use plane::{gate, pad, scale, split_phases};
pub use pool::{MAX_POOL_WINDOW, avg_pool, global_mean, max_pool};
pub use precision::{Precision, PrecisionError};
pub use sparse::SparseConv;
pub use taps::Taps;
pub use tokens::{Embedding, concat, log_sum_exp, token};
