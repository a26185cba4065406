//! Runs sparse margay models on the CPU without libtorch.
#![forbid(unsafe_code)]

mod photo;
mod preprocess;

pub use photo::{MAX_FILE_BYTES, MAX_PIXELS, Photo, PhotoError, decode, decode_bytes, dimensions};
pub use preprocess::Preprocessor;
