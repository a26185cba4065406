use std::collections::BTreeMap;

use margay_core::Conv2d;

use crate::layout::{Layout, MAX_LEN, Margin};

/// Largest extent of a map, window, step or padding: keeps all arithmetic far from overflow.
const MAX_EXTENT: usize = 1 << 16;

/// Where the windows of a convolution read, as seen from the place they write.
///
/// A strided convolution reads *phase planes*: input plane `c` is split into one plane per residue of
/// the row and column modulo the stride that a tap uses, so that neighbouring windows read neighbouring
/// values. Tap `(i, j)` of output `(y, x)` is then value `(y + dy, x + dx)` of its phase. With stride 1
/// there is one phase: the input itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taps {
    stride: [usize; 2],
    input: [usize; 3],
    output: [usize; 3],
    groups: usize,
    phases: Vec<[usize; 2]>,
    window: Vec<Tap>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Tap {
    phase: usize,
    dy: isize,
    dx: isize,
}

impl Taps {
    /// The taps of `conv` on an input of `height` × `width`; nothing if no window fits, or if the
    /// extents are beyond any real network's.
    pub fn new(conv: &Conv2d, [height, width]: [usize; 2]) -> Option<Self> {
        let extents = [conv.kernel, conv.stride, conv.padding, [height, width]];
        let offsets = conv.kernel[0].checked_mul(conv.kernel[1])?.checked_mul(conv.in_channels)?;
        if extents.as_flattened().iter().any(|e| *e > MAX_EXTENT) || offsets.max(conv.out_channels) > MAX_LEN
        {
            return None;
        }
        let windows = |size: usize, axis: usize| {
            let padded = size.checked_add(conv.padding[axis].checked_mul(2)?)?;
            Some(padded.checked_sub(conv.kernel[axis])?.checked_div(conv.stride[axis])? + 1)
        };
        let output = [conv.out_channels, windows(height, 0)?, windows(width, 1)?];
        if conv.groups == 0 || conv.kernel.contains(&0) {
            return None;
        }
        let mut taps = Self {
            stride: conv.stride,
            input: [conv.in_channels, height, width],
            output,
            groups: conv.groups,
            phases: Vec::new(),
            window: Vec::new(),
        };
        let mut known = BTreeMap::new();
        for i in 0..conv.kernel[0] {
            for j in 0..conv.kernel[1] {
                let place = [i as isize - conv.padding[0] as isize, j as isize - conv.padding[1] as isize];
                taps.push(place, &mut known);
            }
        }
        Some(taps)
    }

    /// Adds a tap; `known` is where each phase stands among the phases.
    fn push(&mut self, [down, across]: [isize; 2], known: &mut BTreeMap<[usize; 2], usize>) {
        let [sy, sx] = self.stride.map(|s| s as isize);
        let wanted = [down.rem_euclid(sy) as usize, across.rem_euclid(sx) as usize];
        let phase = *known.entry(wanted).or_insert_with(|| {
            self.phases.push(wanted);
            self.phases.len() - 1
        });
        self.window.push(Tap { phase, dy: down.div_euclid(sy), dx: across.div_euclid(sx) });
    }

    /// Whether the convolution reads phase planes and not its input.
    pub fn is_strided(&self) -> bool {
        self.stride != [1, 1]
    }

    /// Residues `[row, column]` of the phases, in the order of the phase planes of each channel.
    pub fn phases(&self) -> &[[usize; 2]] {
        &self.phases
    }

    /// Step between windows, down and across.
    pub const fn stride(&self) -> [usize; 2] {
        self.stride
    }

    /// Extents `[channels, height, width]` of the input.
    pub const fn input(&self) -> [usize; 3] {
        self.input
    }

    /// Extents `[channels, height, width]` of the output.
    pub const fn output(&self) -> [usize; 3] {
        self.output
    }

    /// Number of channel groups.
    pub const fn groups(&self) -> usize {
        self.groups
    }

    /// Weights per output channel: `in / groups · kh · kw`.
    pub fn columns(&self) -> usize {
        self.input[0] / self.groups * self.window.len()
    }

    /// Extents `[channels, height, width]` of what the windows read: the input, or its phase planes
    /// (channel `c`, phase `p` is plane `c · phases + p`) without the parts that no window reaches.
    pub fn source(&self) -> [usize; 3] {
        if !self.is_strided() {
            return self.input;
        }
        let [_, out_height, out_width] = self.output;
        let reach = |axis: usize, out: usize, far: isize| {
            let stored = self
                .phases
                .iter()
                .map(|p| self.input[axis + 1].saturating_sub(p[axis]).div_ceil(self.stride[axis]));
            stored.max().unwrap_or(0).min((out as isize + far).max(0) as usize)
        };
        let height = reach(0, out_height, self.most(|t| t.dy));
        let width = reach(1, out_width, self.most(|t| t.dx));
        [self.input[0] * self.phases.len(), height, width]
    }

    /// Least row pitch that source and output must share.
    pub fn pitch(&self) -> usize {
        let left = self.most(|t| -t.dx).max(0) as usize;
        let right = self.most(|t| t.dx).max(0) as usize;
        (self.output[2] + right).max(self.source()[2] + left)
    }

    /// Zeros that the windows need around each plane of the source if rows are `pitch` apart.
    pub fn margin(&self, pitch: usize) -> Margin {
        let flat = |t: &Tap| t.dy * pitch as isize + t.dx;
        let before = self.most(|t| -flat(t)).max(0) as usize;
        let end = self.most(flat) + (self.output[1] * pitch) as isize;
        let after = (end - (self.source()[1] * pitch) as isize).max(0) as usize;
        Margin { pitch, before, after }
    }

    fn most(&self, value: impl Fn(&Tap) -> isize) -> isize {
        self.window.iter().map(value).max().unwrap_or(0)
    }

    /// Offset in the source's buffer of every weight of each group, `[groups][columns]`, for the first
    /// output place. Nothing if the layouts are not those of this convolution, or if any window of any
    /// strip would read or write outside its buffer.
    pub(crate) fn offsets(&self, source: &Layout, output: &Layout) -> Option<Vec<Vec<u32>>> {
        let matches = |layout: &Layout, dims: [usize; 3]| {
            [layout.channels, layout.height, layout.width] == dims && layout.pitch == output.pitch
        };
        let needed = self.margin(output.pitch);
        let zeros = source.plane.checked_sub(source.body())?;
        let wide = output.pitch >= self.pitch()
            && source.origin >= needed.before
            && source.precision == output.precision;
        if !wide || !matches(source, self.source()) || !matches(output, self.output) {
            return None;
        }
        if zeros < needed.before.max(needed.after) || !output.holds_strips() {
            return None;
        }
        let span = output.span();
        let per_group = self.input[0] / self.groups;
        let offset = |channel: usize, tap: &Tap| {
            let plane = channel * self.phases.len() + tap.phase;
            let shift = tap.dy * source.pitch as isize + tap.dx;
            let place = (source.origin + plane * source.plane).checked_add_signed(shift)?;
            (place + span <= source.len).then_some(place as u32)
        };
        let group = |g: usize| {
            let channels = g * per_group..(g + 1) * per_group;
            channels.flat_map(|c| self.window.iter().map(move |tap| offset(c, tap))).collect()
        };
        (0..self.groups).map(group).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conv(kernel: usize, stride: usize, padding: usize) -> Conv2d {
        let [kernel, stride, padding] = [kernel, stride, padding].map(|v| [v, v]);
        Conv2d { in_channels: 3, out_channels: 4, kernel, stride, padding, groups: 1, bias: false }
    }

    #[test]
    fn a_plain_window_reads_its_input() {
        let taps = Taps::new(&conv(3, 1, 1), [7, 5]).unwrap();
        assert_eq!((taps.source(), taps.output(), taps.pitch()), ([3, 7, 5], [4, 7, 5], 6));
        assert_eq!(taps.margin(6), Margin { pitch: 6, before: 7, after: 7 });
    }

    #[test]
    fn a_subsampling_window_reads_one_phase() {
        let taps = Taps::new(&conv(1, 2, 0), [7, 8]).unwrap();
        assert_eq!((taps.source(), taps.phases().len(), taps.pitch()), ([3, 4, 4], 1, 4));
    }

    #[test]
    fn the_stem_of_a_resnet_reads_four_phases() {
        let taps = Taps::new(&conv(7, 2, 3), [224, 224]).unwrap();
        assert_eq!((taps.source(), taps.pitch()), ([12, 112, 112], 114));
    }

    #[test]
    fn windows_that_do_not_fit_are_refused() {
        assert_eq!(Taps::new(&conv(9, 1, 0), [8, 8]), None);
        assert_eq!(Taps::new(&conv(3, 0, 0), [8, 8]), None);
        assert_eq!(Taps::new(&conv(1 << 40, 1, 1 << 40), [8, 8]), None);
        assert_eq!(Taps::new(&conv(3, 1, usize::MAX), [8, 8]), None);
    }
}
