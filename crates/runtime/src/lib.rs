//! Runs sparse margay models on the CPU without libtorch.
//!
//! [`decode`] and [`Preprocessor`] turn a photo into an input, [`Session`] plans a
//! [`SparseModel`](margay_core::SparseModel) and runs it, [`Classifier`] does both.
#![forbid(unsafe_code)]

mod classifier;
mod error;
mod photo;
mod plan;
mod preprocess;
mod profile;
mod session;

pub use classifier::{Classifier, ClassifierError, Prediction, softmax};
pub use error::RuntimeError;
pub use margay_kernels::{ISA_VARIABLE, Isa, IsaError};
pub use photo::{MAX_FILE_BYTES, MAX_PIXELS, Photo, PhotoError, decode, decode_bytes, dimensions};
pub use plan::KernelChoice;
pub use preprocess::Preprocessor;
pub use profile::{Profile, StepProfile};
pub use session::{Session, SessionOptions};
