/// Keeps the memory of freed tensors for the next ones.
///
/// glibc maps every tensor of 32 MB or more anew and gives it back when it is freed, so that the kernel clears its pages again
/// and again. Nothing changes with other allocators.
pub fn keep_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    for (what, value) in [(libc::M_MMAP_MAX, 0), (libc::M_TRIM_THRESHOLD, i32::MAX), (libc::M_TOP_PAD, PAD)] {
        // SAFETY: mallopt takes two numbers and may be called at any time.
        unsafe { libc::mallopt(what, value) };
    }
}

/// Bytes that the heap grows by beyond what is asked for.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const PAD: i32 = 64 << 20;
