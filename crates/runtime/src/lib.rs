//! Runs sparse margay models on the CPU without libtorch.
#![forbid(unsafe_code)]

mod error;
mod plan;
mod profile;
mod session;

pub use error::RuntimeError;
pub use margay_kernels::{ISA_VARIABLE, Isa, IsaError};
pub use plan::KernelChoice;
pub use profile::{Profile, StepProfile};
pub use session::{Session, SessionOptions};
