use half::bf16;
use margay_core::Shape;

use crate::Precision;
use crate::precision::Element;

/// Rows of a vector that dense linear layers compute at once, and what vectors are rounded up to.
pub const ALIGN: usize = 16;

/// Places of one word of [`Interior`].
const WORD: usize = 32;

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
    /// How values are stored.
    pub(crate) precision: Precision,
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
    pub fn new([channels, height, width]: [usize; 3], margin: Margin, precision: Precision) -> Option<Self> {
        let line = precision.line();
        let pitch = margin.pitch.max(width);
        let body = height.checked_mul(pitch)?;
        let gap = margin.before.max(margin.after);
        let lines = body.checked_add(gap)?.div_ceil(line).max(1) | 1;
        let (plane, origin) = (lines * line, margin.before.next_multiple_of(line));
        let tail = (margin.after + line).next_multiple_of(line);
        let len = plane.checked_mul(channels)?.checked_add(origin)?.checked_add(tail)?;
        (len <= MAX_LEN).then_some(Self { channels, height, width, pitch, plane, origin, len, precision })
    }

    /// The layout of a vector: its values side by side, always in full precision.
    pub fn vector(features: usize) -> Option<Self> {
        Self::new([1, 1, features], Margin::default(), Precision::F32)
    }

    /// The layout of a value of this shape; `precision` is that of maps and tokens.
    pub fn of(shape: Shape, margin: Margin, precision: Precision) -> Option<Self> {
        match shape {
            Shape::Map { channels, height, width } => Self::new([channels, height, width], margin, precision),
            // Positions lie side by side in memory, as those of a map do.
            Shape::Tokens { count, features } => Self::new([features, 1, count], margin, precision),
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

    /// Bytes of a buffer, padding included.
    pub const fn bytes(&self) -> u64 {
        self.len as u64 * self.precision.bytes() as u64
    }

    /// How values are stored.
    pub const fn precision(&self) -> Precision {
        self.precision
    }

    /// Values of a plane from its first on, rounded up to whole vectors of every instruction set.
    pub(crate) const fn span(&self) -> usize {
        self.body().next_multiple_of(self.precision.line())
    }

    /// Whether every plane has room for its body rounded up to whole vectors.
    pub(crate) const fn holds_strips(&self) -> bool {
        let span = self.span();
        span <= self.plane && self.origin + self.channels * self.plane <= self.len
    }

    /// Number of values without padding.
    pub const fn values(&self) -> usize {
        self.channels * self.height * self.width
    }

    /// Which places of a plane's body are no padding.
    pub(crate) fn interior(&self) -> Interior {
        let mut words = vec![0; self.body().div_ceil(WORD)];
        for y in 0..self.height {
            for i in y * self.pitch..y * self.pitch + self.width {
                words[i / WORD] |= 1 << (i % WORD);
            }
        }
        Interior(words)
    }
}

/// One bit per place of a plane's body, set where it is no padding: word `i` covers places
/// `32 i .. 32 i + 32`.
#[derive(Clone, Debug)]
pub(crate) struct Interior(Vec<u32>);

impl Interior {
    /// The bits of a vector at `place`, a multiple of its lanes, lowest first.
    ///
    /// # Safety
    /// `place` is within the span of the layout.
    #[inline(always)]
    pub(crate) unsafe fn bits(&self, place: usize) -> u32 {
        // SAFETY: words cover the span.
        unsafe { *self.0.get_unchecked(place / WORD) >> (place % WORD) }
    }
}

/// One cache line.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([u64; 8]);

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
        let lines = vec![Line([0; 8]); layout.len.div_ceil(layout.precision.line())];
        Self { layout, lines }
    }

    /// Where the values lie.
    pub const fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The whole buffer, padding included.
    ///
    /// # Panics
    /// If values are stored otherwise.
    pub(crate) fn as_slice<E: Element>(&self) -> &[E] {
        assert_eq!(self.layout.precision, E::PRECISION, "precision of a tensor");
        // SAFETY: lines are plain data without padding, a whole number of elements, which are valid whatever
        // their bytes.
        unsafe {
            std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.lines.len() * E::PRECISION.line())
        }
    }

    /// The whole buffer, to change. Whoever writes into the padding must write zeros.
    ///
    /// # Panics
    /// If values are stored otherwise.
    pub(crate) fn as_mut_slice<E: Element>(&mut self) -> &mut [E] {
        assert_eq!(self.layout.precision, E::PRECISION, "precision of a tensor");
        let len = self.lines.len() * E::PRECISION.line();
        // SAFETY: as in `as_slice`.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), len) }
    }

    /// The first byte of the buffer.
    pub(crate) fn bytes(&self) -> *const u8 {
        self.lines.as_ptr().cast()
    }

    /// The first byte of the buffer, to change: see [`Tensor::as_mut_slice`].
    pub(crate) fn bytes_mut(&mut self) -> *mut u8 {
        self.lines.as_mut_ptr().cast()
    }

    /// The whole buffer as it would be in full precision, padding included.
    pub fn buffer(&self) -> Vec<f32> {
        match self.layout.precision {
            Precision::F32 => self.as_slice::<f32>().to_vec(),
            Precision::Bf16 => self.as_slice::<bf16>().iter().map(|value| value.widen()).collect(),
        }
    }

    /// Takes over `values`, row-major without padding, rounded to the tensor's precision.
    ///
    /// # Panics
    /// If there are not as many values as the layout holds.
    pub fn fill(&mut self, values: &[f32]) {
        match self.layout.precision {
            Precision::F32 => self.fill_as::<f32>(values),
            Precision::Bf16 => self.fill_as::<bf16>(values),
        }
    }

    fn fill_as<E: Element>(&mut self, values: &[f32]) {
        let layout = self.layout;
        assert_eq!(values.len(), layout.values());
        let buffer = self.as_mut_slice::<E>();
        for (row, source) in values.chunks_exact(layout.width.max(1)).enumerate() {
            let target = &mut buffer[layout.row(row)..][..layout.width];
            target.iter_mut().zip(source).for_each(|(to, from)| *to = E::narrow(*from));
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
        match self.layout.precision {
            Precision::F32 => self.copy_as::<f32>(values),
            Precision::Bf16 => self.copy_as::<bf16>(values),
        }
    }

    fn copy_as<E: Element>(&self, values: &mut [f32]) {
        let layout = self.layout();
        assert_eq!(values.len(), layout.values());
        for (row, target) in values.chunks_exact_mut(layout.width.max(1)).enumerate() {
            let source = &self.as_slice::<E>()[layout.row(row)..][..layout.width];
            target.iter_mut().zip(source).for_each(|(to, from)| *to = from.widen());
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
            for precision in Precision::ALL {
                let layout = Layout::new([c, h, w], Margin { pitch, before, after }, precision).unwrap();
                let line = precision.line();
                assert!(layout.plane.is_multiple_of(line) && layout.plane / line % 2 == 1);
                assert!(layout.origin >= before && layout.plane >= layout.body() + before.max(after));
                let last = layout.origin + (c - 1) * layout.plane + layout.body();
                assert!(layout.len >= last + after);
                assert_eq!(layout.interior().0.iter().map(|w| w.count_ones()).sum::<u32>() as usize, h * w);
            }
        }
    }

    #[test]
    fn filling_and_reading_back_touch_no_padding() {
        for precision in Precision::ALL {
            let layout = Layout::new([2, 3, 5], Margin { pitch: 7, before: 8, after: 9 }, precision).unwrap();
            let mut tensor = Tensor::zeros(layout);
            let values: Vec<f32> = (1..=30).map(|v| v as f32).collect();
            tensor.fill(&values);
            assert_eq!(tensor.to_dense(), values);
            assert_eq!(tensor.buffer().iter().sum::<f32>(), values.iter().sum::<f32>());
        }
    }

    #[test]
    fn a_huge_layout_is_refused() {
        assert_eq!(Layout::new([usize::MAX / 8, 9, 9], Margin::default(), Precision::F32), None);
        assert_eq!(Layout::new([1, 1 << 40, 1 << 40], Margin::default(), Precision::F32), None);
    }
}
