/// Declares `unsafe fn name(isa, args…)` that runs a kernel body on the instruction set asked for.
///
/// The body is `unsafe fn body<S: Simd>(token: S, args…)`, inlined into one entry function per
/// instruction set. Where the CPU lacks the one asked for, the portable body runs: no value of
/// [`Isa`](crate::Isa) can execute an instruction that is not there.
macro_rules! dispatch {
    ($(#[$meta:meta])* fn $name:ident($($arg:ident: $ty:ty),* $(,)?) = $body:path) => {
        $(#[$meta])*
        pub(crate) unsafe fn $name(isa: $crate::Isa, $($arg: $ty),*) {
            #[cfg(target_arch = "x86_64")]
            {
                use $crate::simd::{Avx2, Avx512};

                #[target_feature(enable = "avx2,fma")]
                unsafe fn avx2(token: Avx2, $($arg: $ty),*) {
                    // SAFETY: same contract as this function.
                    unsafe { $body(token, $($arg),*) }
                }

                #[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")]
                unsafe fn avx512(token: Avx512, $($arg: $ty),*) {
                    // SAFETY: same contract as this function.
                    unsafe { $body(token, $($arg),*) }
                }

                if isa == $crate::Isa::Avx512 {
                    if let Some(token) = Avx512::new() {
                        // SAFETY: the token exists; the caller keeps the body's contract.
                        return unsafe { avx512(token, $($arg),*) };
                    }
                }
                if isa == $crate::Isa::Avx2 {
                    if let Some(token) = Avx2::new() {
                        // SAFETY: the token exists; the caller keeps the body's contract.
                        return unsafe { avx2(token, $($arg),*) };
                    }
                }
            }
            // SAFETY: the caller keeps the body's contract.
            unsafe { $body($crate::simd::Portable, $($arg),*) }
        }
    };
}
