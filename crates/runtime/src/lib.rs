//! Runs sparse margay models on the CPU without libtorch.
#![forbid(unsafe_code)]
