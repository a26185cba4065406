/// Declares `unsafe fn name(target, args…)` that runs a kernel body on the instruction set asked for and on
/// values stored as asked for.
///
/// The body is `unsafe fn body<S: Simd>(token: S, args…)`, inlined into one entry function per
/// instruction set and precision. Where the CPU lacks the one asked for, the portable body runs: no value of
/// [`Isa`](crate::Isa) can execute an instruction that is not there.
///
/// `f32 fn name(isa, args…)` is for kernels of vectors, which are never stored by halves.
macro_rules! dispatch {
    ($(#[$meta:meta])* fn $name:ident($($arg:ident: $ty:ty),* $(,)?) = $body:path) => {
        $(#[$meta])*
        pub(crate) unsafe fn $name(target: $crate::simd::Target, $($arg: $ty),*) {
            /// # Safety
            /// As for the function around it.
            unsafe fn halves(isa: $crate::Isa, $($arg: $ty),*) {
                dispatch!(@run $crate::simd::Half, isa, $body, ($($arg: $ty),*));
            }
            match target.precision {
                $crate::Precision::F32 => dispatch!(@run std::convert::identity, target.isa, $body, ($($arg: $ty),*)),
                // SAFETY: the caller keeps the body's contract.
                $crate::Precision::Bf16 => unsafe { halves(target.isa, $($arg),*) },
            }
        }
    };
    ($(#[$meta:meta])* f32 fn $name:ident($($arg:ident: $ty:ty),* $(,)?) = $body:path) => {
        $(#[$meta])*
        pub(crate) unsafe fn $name(isa: $crate::Isa, $($arg: $ty),*) {
            dispatch!(@run std::convert::identity, isa, $body, ($($arg: $ty),*));
        }
    };
    (@run $wrap:path, $isa:expr, $body:path, ($($arg:ident: $ty:ty),*)) => {{
        #[cfg(target_arch = "x86_64")]
        {
            use $crate::simd::{Avx2, Avx512};

            #[target_feature(enable = "avx2,fma")]
            unsafe fn avx2(token: Avx2, $($arg: $ty),*) {
                // SAFETY: same contract as this function.
                unsafe { $body($wrap(token), $($arg),*) }
            }

            #[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")]
            unsafe fn avx512(token: Avx512, $($arg: $ty),*) {
                // SAFETY: same contract as this function.
                unsafe { $body($wrap(token), $($arg),*) }
            }

            if $isa == $crate::Isa::Avx512 {
                if let Some(token) = Avx512::new() {
                    // SAFETY: the token exists; the caller keeps the body's contract.
                    return unsafe { avx512(token, $($arg),*) };
                }
            }
            if $isa == $crate::Isa::Avx2 {
                if let Some(token) = Avx2::new() {
                    // SAFETY: the token exists; the caller keeps the body's contract.
                    return unsafe { avx2(token, $($arg),*) };
                }
            }
        }
        // SAFETY: the caller keeps the body's contract.
        unsafe { $body($wrap($crate::simd::Portable), $($arg),*) }
    }};
}
