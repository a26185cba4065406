//! Runs sparse margay models on the CPU without libtorch.
//!
//! A [`Classifier`] opens a model file and names what is on photos; `margay predict` and `margay eval` are loops around
//! it. [`decode`], [`Preprocessor`] and [`Session`] are its parts.
//!
//! A [`Session`] plans a [`SparseModel`](margay_core::SparseModel) once: convolutions are fused with
//! the sums and rectifiers behind them, every layer gets the kernel that is faster at its density
//! (sparse or dense), and every value a place in buffers that are reused from image to image. Then it
//! classifies batches. [`Session::trace`] shows the value of every node and [`Session::profile`] where
//! the time goes.
//!
//! For the same model, instruction set and [`Precision`], outputs are equal bit for bit whatever the
//! number of threads, the batch and the run. Instruction sets differ in rounding only.
#![forbid(unsafe_code)]

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}

mod classifier;
mod cost;
#[cfg(feature = "photos")]
mod decode;
mod error;
mod extensions;
mod photo;
mod plan;
mod prediction;
mod preprocess;
mod profile;
mod rivals;
mod session;

pub use classifier::{Classifier, ClassifierError, Region};
pub use cost::{LayerCost, layer_costs, thinned};
#[cfg(feature = "photos")]
pub use decode::{
    MAX_DECODER_BYTES, MAX_FILE_BYTES, MAX_FREE_PIXELS, MAX_PIXELS_PER_BYTE, MAX_SCANNED_PIXELS, MAX_SCANS,
    PhotoError, decode, decode_bytes, decode_with, dimensions,
};
pub use error::RuntimeError;
pub use extensions::{PHOTO_EXTENSIONS, has_photo_extension};
pub use margay_kernels::{ISA_VARIABLE, Isa, IsaError, Precision, PrecisionError, cpu_name};
pub use photo::{Defect, MAX_PIXELS, Note, Photo};
pub use plan::KernelChoice;
#[doc(hidden)]
pub use plan::fuzz_tune_cache;
#[cfg(feature = "photos")]
pub use prediction::PredictionError;
pub use prediction::{Prediction, Ranked, check_logits, highest, softmax};
pub use preprocess::Preprocessor;
pub use profile::{Profile, Rival, StepProfile};
pub use session::{Prepared, Session, SessionOptions};
