//! Sparse and dense CPU kernels of the margay runtime.
