//! libtorch's CUDA part, which a plain link drops.

/// Placeholder until the set-up branch lands.
pub fn load_cuda_part() -> bool {
    false
}
