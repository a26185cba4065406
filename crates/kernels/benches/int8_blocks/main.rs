//! A study: u8 activations times i8 weights in blocks of four inputs (`vpdpbusd`) beside our bf16 kernels.
//!
//! `taskset -c 1 cargo bench -p margay-kernels --bench int8_blocks`, on a processor with AVX-512 VNNI. docs/performance.md
//! says what came of it.

#[cfg(target_arch = "x86_64")]
mod kernel;
#[cfg(target_arch = "x86_64")]
#[path = "../../tests/oracle/noise.rs"]
mod noise;
#[cfg(target_arch = "x86_64")]
mod study;

#[cfg(target_arch = "x86_64")]
fn main() {
    study::run();
}

#[cfg(not(target_arch = "x86_64"))]
fn main() {}
