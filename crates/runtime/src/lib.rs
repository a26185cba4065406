//! Runs sparse margay models on the CPU without libtorch.
#![forbid(unsafe_code)]

mod error;
mod photo;
mod plan;
mod preprocess;
mod profile;
mod session;

pub use error::RuntimeError;
pub use margay_kernels::{ISA_VARIABLE, Isa, IsaError};
pub use photo::{MAX_FILE_BYTES, MAX_PIXELS, Photo, PhotoError, decode, decode_bytes, dimensions};
pub use plan::KernelChoice;
pub use preprocess::Preprocessor;
pub use profile::{Profile, StepProfile};
pub use session::{Session, SessionOptions};
