use margay_core::Shape;

/// Values that interiors of planes are aligned to: one cache line, one AVX-512 vector.
pub const ALIGN: usize = 16;

/// Largest number of values a buffer may hold (1 GB): offsets are `u32`, and a broken model must not
/// take all memory.
pub const MAX_LEN: usize = 1 << 28;

/// Where the values of a feature map lie in a flat buffer.
///
/// Value `(c, y, x)` is at `origin + c · plane + y · pitch + x`. Everything else in the buffer is zero
/// and stays zero: `pitch − width` columns right of each row, which double as the left padding of the
/// next row, at least `before` values in front of a plane and `after` behind it. A convolution tap is
/// therefore one flat offset, wherever the window is. Planes start on a cache line, and `plane` is an
/// odd number of lines, so that equal places of neighbouring planes fall into different cache sets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Layout {
    /// Number of planes.
    pub(crate) channels: usize,
    /// Rows of a plane.
    pub(crate) height: usize,
    /// Columns of a row.
    pub(crate) width: usize,
    /// Distance of two rows.
    pub(crate) pitch: usize,
    /// Distance of two planes.
    pub(crate) plane: usize,
    /// Place of the first value.
    pub(crate) origin: usize,
    /// Length of the buffer.
    pub(crate) len: usize,
}

/// Zeros that the readers of a feature map count on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Margin {
    /// Least distance of two rows.
    pub pitch: usize,
    /// Zeros in front of a plane.
    pub before: usize,
    /// Zeros behind a plane.
    pub after: usize,
}

impl Margin {
    /// The margin that satisfies both.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        Self {
            pitch: self.pitch.max(other.pitch),
            before: self.before.max(other.before),
            after: self.after.max(other.after),
        }
    }
}

impl Layout {
    /// The layout of `[channels, height, width]` with these margins, or nothing if it would be too large.
    pub fn new([channels, height, width]: [usize; 3], margin: Margin) -> Option<Self> {
        let pitch = margin.pitch.max(width);
        let body = height.checked_mul(pitch)?;
        let gap = margin.before.max(margin.after);
        let lines = body.checked_add(gap)?.div_ceil(ALIGN).max(1) | 1;
        let (plane, origin) = (lines * ALIGN, margin.before.next_multiple_of(ALIGN));
        let tail = (margin.after + ALIGN).next_multiple_of(ALIGN);
        let len = plane.checked_mul(channels)?.checked_add(origin)?.checked_add(tail)?;
        (len <= MAX_LEN).then_some(Self { channels, height, width, pitch, plane, origin, len })
    }

    /// The layout of a vector: its values side by side.
    pub fn vector(features: usize) -> Option<Self> {
        Self::new([1, 1, features], Margin::default())
    }

    /// The layout of a value of this shape.
    pub fn of(shape: Shape, margin: Margin) -> Option<Self> {
        match shape {
            Shape::Map { channels, height, width } => Self::new([channels, height, width], margin),
            // Positions lie side by side in memory, as those of a map do.
            Shape::Tokens { count, features } => Self::new([features, 1, count], margin),
            Shape::Vector { features } => Self::vector(features),
        }
    }

    /// Values from the first of a plane to behind its last row, padding columns included.
    pub const fn body(&self) -> usize {
        self.height * self.pitch
    }

    /// Extents `[channels, height, width]`.
    pub const fn dims(&self) -> [usize; 3] {
        [self.channels, self.height, self.width]
    }

    /// Distance of two rows.
    pub const fn pitch(&self) -> usize {
        self.pitch
    }

    /// Whether every plane has room for its body rounded up to whole vectors.
    pub(crate) const fn holds_strips(&self) -> bool {
        let span = self.body().next_multiple_of(ALIGN);
        span <= self.plane && self.origin + self.channels * self.plane <= self.len
    }

    /// Number of values without padding.
    pub const fn values(&self) -> usize {
        self.channels * self.height * self.width
    }

    /// Which places of a plane's body are no padding.
    pub(crate) fn interior(&self) -> Interior {
        let mut words = vec![0; self.body().div_ceil(ALIGN)];
        for y in 0..self.height {
            for i in y * self.pitch..y * self.pitch + self.width {
                words[i / ALIGN] |= 1 << (i % ALIGN);
            }
        }
        Interior(words)
    }
}

/// One bit per place of a plane's body, set where it is no padding: word `i` covers places
/// `16 i .. 16 i + 16`.
#[derive(Clone, Debug)]
pub(crate) struct Interior(Vec<u16>);

impl Interior {
    /// The bits of a vector at `place`, a multiple of its lanes, lowest first.
    ///
    /// # Safety
    /// `place` is within the body rounded up to `ALIGN`.
    #[inline(always)]
    pub(crate) unsafe fn bits(&self, place: usize) -> u32 {
        // SAFETY: there is one word per `ALIGN` places of the body.
        u32::from(unsafe { *self.0.get_unchecked(place / ALIGN) }) >> (place % ALIGN)
    }
}

/// One cache line of values.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([f32; ALIGN]);

/// A feature map or vector in its layout.
#[derive(Clone, Default)]
pub struct Tensor {
    layout: Layout,
    lines: Vec<Line>,
}

impl std::fmt::Debug for Tensor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tensor").field("layout", &self.layout).finish_non_exhaustive()
    }
}

impl Tensor {
    /// All zeros.
    pub fn zeros(layout: Layout) -> Self {
        let lines = vec![Line([0.0; ALIGN]); layout.len.div_ceil(ALIGN)];
        Self { layout, lines }
    }

    /// Where the values lie.
    pub const fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The whole buffer, padding included.
    pub fn as_slice(&self) -> &[f32] {
        // SAFETY: a `Line` is exactly `ALIGN` values without padding between them.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.lines.len() * ALIGN) }
    }

    /// The whole buffer, to change. Whoever writes into the padding must write zeros.
    pub(crate) fn as_mut_slice(&mut self) -> &mut [f32] {
        let len = self.lines.len() * ALIGN;
        // SAFETY: a `Line` is exactly `ALIGN` values without padding between them.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), len) }
    }

    /// Takes over `values`, row-major without padding.
    ///
    /// # Panics
    /// If there are not as many values as the layout holds.
    pub fn fill(&mut self, values: &[f32]) {
        let layout = self.layout;
        assert_eq!(values.len(), layout.values());
        let buffer = self.as_mut_slice();
        for (row, source) in values.chunks_exact(layout.width.max(1)).enumerate() {
            let start = layout.row(row);
            buffer[start..start + layout.width].copy_from_slice(source);
        }
    }

    /// The values, row-major without padding.
    pub fn to_dense(&self) -> Vec<f32> {
        let mut dense = vec![0.0; self.layout().values()];
        self.copy_to(&mut dense);
        dense
    }

    /// Writes the values, row-major without padding.
    ///
    /// # Panics
    /// If there is not room for exactly as many values as the layout holds.
    pub fn copy_to(&self, values: &mut [f32]) {
        let layout = self.layout();
        assert_eq!(values.len(), layout.values());
        for (row, target) in values.chunks_exact_mut(layout.width.max(1)).enumerate() {
            let start = layout.row(row);
            target.copy_from_slice(&self.as_slice()[start..start + layout.width]);
        }
    }
}

impl Layout {
    /// Place of the first value of row `row`, rows counted through all planes.
    pub(crate) const fn row(&self, row: usize) -> usize {
        self.origin + row / self.height * self.plane + row % self.height * self.pitch
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn planes_are_odd_lines_and_keep_their_margins() {
        for [c, h, w, pitch, before, after] in
            [[3, 7, 7, 8, 9, 9], [1, 1, 1, 1, 0, 0], [5, 16, 16, 17, 18, 40]]
        {
            let layout = Layout::new([c, h, w], Margin { pitch, before, after }).unwrap();
            assert!(layout.plane.is_multiple_of(ALIGN) && layout.plane / ALIGN % 2 == 1);
            assert!(layout.origin >= before && layout.plane >= layout.body() + before.max(after));
            let last = layout.origin + (c - 1) * layout.plane + layout.body();
            assert!(layout.len >= last + after);
            assert_eq!(layout.interior().0.iter().map(|w| w.count_ones()).sum::<u32>() as usize, h * w);
        }
    }

    #[test]
    fn filling_and_reading_back_touch_no_padding() {
        let layout = Layout::new([2, 3, 5], Margin { pitch: 7, before: 8, after: 9 }).unwrap();
        let mut tensor = Tensor::zeros(layout);
        let values: Vec<f32> = (1..=30).map(|v| v as f32).collect();
        tensor.fill(&values);
        assert_eq!(tensor.to_dense(), values);
        assert_eq!(tensor.as_slice().iter().sum::<f32>(), values.iter().sum::<f32>());
    }

    #[test]
    fn a_huge_layout_is_refused() {
        assert_eq!(Layout::new([usize::MAX / 8, 9, 9], Margin::default()), None);
        assert_eq!(Layout::new([1, 1 << 40, 1 << 40], Margin::default()), None);
    }
}
