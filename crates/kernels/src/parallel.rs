//! Static partition of work over the threads of the current rayon pool.

use std::ops::Range;

use crate::layout::{Layout, Tensor};
use crate::precision::Element;

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

/// First of `0..n` in part `part` of `parts` of nearly equal cost, given the cost of all before each.
pub(crate) fn boundary(n: usize, part: usize, parts: usize, cost: impl Fn(usize) -> usize) -> usize {
    let (mut low, mut high) = (0, n);
    let target = cost(n) * part / parts;
    while low < high {
        let middle = usize::midpoint(low, high);
        if cost(middle) < target { low = middle + 1 } else { high = middle }
    }
    low
}

/// A pointer that several threads may hold; whoever writes through it writes to places of its own.
pub(crate) struct Shared<E>(*mut E);

impl<E> Clone for Shared<E> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<E> Copy for Shared<E> {}

impl<E> Shared<E> {
    pub(crate) const fn new(values: &mut [E]) -> Self {
        Self(values.as_mut_ptr())
    }

    /// The pointer. A closure that calls this captures the whole and not its field, which no thread may share.
    pub(crate) const fn get(self) -> *mut E {
        self.0
    }

    /// The pointer to `values` places further on.
    ///
    /// # Safety
    /// There must be as many.
    pub(crate) const unsafe fn offset(self, values: usize) -> Self {
        // SAFETY: same contract.
        Self(unsafe { self.0.add(values) })
    }
}

// SAFETY: the pointer itself is plain data; every dereference has its own safety argument.
unsafe impl<E> Send for Shared<E> {}
// SAFETY: as above.
unsafe impl<E> Sync for Shared<E> {}

/// A tensor that several threads write, each to places of its own.
#[derive(Clone, Copy)]
pub(crate) struct Writer {
    base: Shared<u8>,
    layout: Layout,
}

impl Writer {
    pub(crate) fn new(tensor: &mut Tensor) -> Self {
        let layout = *tensor.layout();
        assert!(layout.origin + layout.channels * layout.plane <= layout.len, "planes of a tensor");
        Self { base: Shared(tensor.bytes_mut()), layout }
    }

    /// Where the values lie.
    pub(crate) const fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The first value of the buffer.
    ///
    /// # Panics
    /// If values are stored otherwise.
    #[inline(always)]
    pub(crate) fn values<E: Element>(&self) -> *mut E {
        assert!(self.layout.precision == E::PRECISION, "precision of a tensor");
        self.base.0.cast()
    }

    /// The body of one plane.
    ///
    /// # Safety
    /// No two threads may hold the same plane, and the tensor must outlive the slice.
    #[expect(clippy::mut_from_ref, reason = "planes are disjoint and each goes to one thread")]
    pub(crate) unsafe fn plane<E: Element>(&self, plane: usize) -> &mut [E] {
        // SAFETY: same contract.
        unsafe { &mut self.whole_plane(plane)[..self.layout.body()] }
    }

    /// The body of one plane and the padding up to the next plane.
    ///
    /// # Safety
    /// As for [`Writer::plane`].
    #[expect(clippy::mut_from_ref, reason = "planes are disjoint and each goes to one thread")]
    pub(crate) unsafe fn whole_plane<E: Element>(&self, plane: usize) -> &mut [E] {
        assert!(plane < self.layout.channels);
        let start = self.layout.origin + plane * self.layout.plane;
        // SAFETY: planes do not overlap and lie inside the tensor, as checked when this was made.
        unsafe { std::slice::from_raw_parts_mut(self.values::<E>().add(start), self.layout.plane) }
    }
}
