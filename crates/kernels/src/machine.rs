//! What this machine can do at most, to judge kernels by.

use std::hint::black_box;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use crate::Isa;
use crate::simd::Simd;

/// Chains of multiply-adds: enough to keep every multiplier of any CPU busy.
const CHAINS: usize = 12;
/// Multiply-adds of each chain between two looks at the clock.
const STEPS: usize = 4096;
/// Bytes that no cache holds.
const BUFFER: usize = 64 << 20;
/// How long each measurement is repeated for its best result.
const PATIENCE: Duration = Duration::from_millis(20);

/// What the processor calls itself; the architecture where it does not.
pub fn cpu_name() -> String {
    #[cfg(target_arch = "x86_64")]
    if let Some(name) = brand() {
        return name;
    }
    std::env::consts::ARCH.to_owned()
}

/// The brand string: 16 bytes in each of three leaves.
#[cfg(target_arch = "x86_64")]
#[allow(unused_unsafe, reason = "later compilers than the oldest supported know that asking is safe")]
fn brand() -> Option<String> {
    use std::arch::x86_64::__cpuid;

    const LEAVES: [u32; 3] = [0x8000_0002, 0x8000_0003, 0x8000_0004];
    // SAFETY: every x86-64 processor has the instruction and its first extended leaf.
    let most = unsafe { __cpuid(0x8000_0000) }.eax;
    // SAFETY: the leaves are there.
    let leaf = |leaf: u32| (leaf <= most).then(|| unsafe { __cpuid(leaf) });
    let leaves = LEAVES.map(leaf).into_iter().collect::<Option<Vec<_>>>()?;
    let words = leaves.iter().flat_map(|leaf| [leaf.eax, leaf.ebx, leaf.ecx, leaf.edx]);
    let bytes: Vec<u8> = words.flat_map(u32::to_le_bytes).take_while(|byte| *byte != 0).collect();
    Some(String::from_utf8_lossy(&bytes).trim().to_owned())
}

/// Floating-point operations per second of one core in f32, counting a multiply-add as two. Measured once.
pub fn peak_flops(isa: Isa) -> f64 {
    static PEAKS: [OnceLock<f64>; Isa::ALL.len()] = [const { OnceLock::new() }; Isa::ALL.len()];
    *PEAKS[isa as usize].get_or_init(|| {
        // SAFETY: the body has no contract.
        let seconds = fastest(|| unsafe { chains(isa, black_box(0.5)) });
        (2 * CHAINS * STEPS * isa.lanes()) as f64 / seconds
    })
}

/// Bytes per second that one core reads from memory. Measured once.
pub fn peak_bandwidth() -> f64 {
    static PEAK: OnceLock<f64> = OnceLock::new();
    *PEAK.get_or_init(read_memory)
}

fn read_memory() -> f64 {
    let buffer = vec![1_u64; BUFFER / size_of::<u64>()];
    let seconds = fastest(|| {
        let mut sums = [0_u64; 8];
        for line in black_box(&buffer).chunks_exact(sums.len()) {
            sums.iter_mut().zip(line).for_each(|(sum, value)| *sum ^= value);
        }
        black_box(sums);
    });
    BUFFER as f64 / seconds
}

/// The shortest of several runs in seconds.
fn fastest(mut run: impl FnMut()) -> f64 {
    let (begin, mut least) = (Instant::now(), Duration::MAX);
    while begin.elapsed() < PATIENCE {
        let start = Instant::now();
        run();
        least = least.min(start.elapsed());
    }
    least.as_secs_f64()
}

dispatch! {
    /// # Safety
    /// None.
    f32 fn chains(factor: f32) = chains_body
}

#[inline(always)]
unsafe fn chains_body<S: Simd<E = f32>>(s: S, factor: f32) {
    let (factor, mut chains) = (s.splat(factor), [s.splat(1.0); CHAINS]);
    for _ in 0..STEPS {
        for chain in &mut chains {
            *chain = s.fma(*chain, factor, factor);
        }
    }
    for chain in chains {
        let mut values = [0.0_f32; crate::ALIGN];
        // SAFETY: a vector of f32 has at most as many lanes.
        unsafe { s.spill(values.as_mut_ptr(), chain) };
        black_box(values);
    }
}

#[cfg(test)]
mod tests {
    #[test]
    #[cfg_attr(miri, ignore = "miri cannot ask the processor")]
    fn the_processor_has_a_printable_name() {
        let name = super::cpu_name();
        assert!(!name.is_empty() && !name.contains(char::is_control), "{name:?}");
    }
}
