//! Everything that talks to libtorch directly.

pub mod cuda;
