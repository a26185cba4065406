//! Static partition of work over the threads of the current rayon pool.

use std::ops::Range;

/// Runs `work(0) … work(parts − 1)`, in parallel if there are several. Allocates nothing.
pub(crate) fn run(parts: usize, work: &(impl Fn(usize) + Sync)) {
    fn split(parts: Range<usize>, work: &(impl Fn(usize) + Sync)) {
        if parts.len() < 2 {
            return parts.for_each(work);
        }
        let middle = parts.start + parts.len() / 2;
        let (left, right) = (parts.start..middle, middle..parts.end);
        rayon::join(|| split(left, work), || split(right, work));
    }
    split(0..parts, work);
}

/// Part `part` of `0..n` cut into `parts` nearly equal ranges.
pub(crate) fn share(n: usize, part: usize, parts: usize) -> Range<usize> {
    n * part / parts..n * (part + 1) / parts
}

/// A pointer that several threads may hold; whoever writes through it writes to places of its own.
#[derive(Clone, Copy)]
pub(crate) struct Shared(pub(crate) *mut f32);

// SAFETY: the pointer itself is plain data; every dereference has its own safety argument.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}
