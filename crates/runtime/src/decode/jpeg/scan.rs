//! One scan, walked through without decoding a pixel: every code read, every count kept.

use super::bits::Bits;
use super::huffman::Huffman;

/// What is wrong with a scan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// The data end before the picture does.
    Ended,
    /// The data contradict their format.
    Broken,
    /// The picture ends before the data do: something went wrong on the way, nobody knows where.
    Miscounted,
}

/// A component of the picture.
#[derive(Clone, Debug)]
pub struct Component {
    pub id: u8,
    /// Horizontal and vertical sampling factor, 1 to 4.
    pub sampling: [usize; 2],
    pub quantization: usize,
    /// Columns and rows of blocks that a scan of this component alone has.
    pub own: [usize; 2],
    /// Blocks per row in `nonzero`.
    pub stride: usize,
    /// Progressive only: which coefficients of each block are known not to be zero.
    pub nonzero: Vec<u64>,
    /// Rows of MCUs that are there.
    pub bands: usize,
    /// Progressive only: lowest bit that is known of each coefficient, 255 where none is.
    pub lowest: [u8; 64],
}

/// What a scan codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Sequential,
    DcFirst,
    DcRefine,
    AcFirst { from: usize, to: usize },
    AcRefine { from: usize, to: usize },
}

/// A component's part in a scan.
pub struct Part<'t> {
    /// Position among the frame's components.
    pub component: usize,
    pub dc: Option<&'t Huffman>,
    pub ac: Option<&'t Huffman>,
    /// Largest absolute DC value that samples of 8 bits can have.
    pub dc_limit: i32,
    /// Most bits that a coefficient of samples of 8 bits can have, in zigzag order.
    pub limits: [u8; 64],
}

/// A scan about to be walked.
pub struct Scan<'t, 'a> {
    pub kind: Kind,
    pub parts: Vec<Part<'t>>,
    /// Columns and rows of MCUs.
    pub mcus: [usize; 2],
    /// MCUs between two restart markers; 0 for none.
    pub restart: usize,
    pub data: &'a [u8],
    pub start: usize,
}

/// How far a scan was sound.
#[derive(Debug)]
pub struct Outcome {
    /// Where each row of MCUs that is there ends, in bytes.
    pub rows: Vec<usize>,
    pub flaw: Option<Flaw>,
    /// The first byte behind what was read.
    pub end: usize,
}

/// What is carried from block to block, until a restart.
#[derive(Default)]
struct Carry {
    /// Last DC value, by part.
    dc: [i32; 4],
    /// Blocks still to come without new coefficients.
    run: usize,
}

impl Scan<'_, '_> {
    /// Walks the scan.
    pub fn walk(&self, components: &mut [Component]) -> Outcome {
        let plan = self.plan(components);
        let (mut bits, mut carry) = (Bits::new(self.data, self.start), Carry::default());
        let (mut rows, mut done) = (Vec::new(), 0);
        let [columns, height] = self.mcus;
        for row in 0..height {
            for column in 0..columns {
                if self.restart > 0 && done > 0 && done % self.restart == 0 {
                    match self.behind_marker(bits.position(), done / self.restart - 1) {
                        Some(start) if carry.run == 0 => {
                            (bits, carry) = (Bits::new(self.data, start), Carry::default());
                        }
                        _ => return self.stopped(rows, &bits),
                    }
                }
                let sound = plan
                    .iter()
                    .try_for_each(|part| self.block(*part, [column, row], &mut bits, &mut carry, components));
                if bits.overran() || sound.is_none() {
                    return self.stopped(rows, &bits);
                }
                done += 1;
            }
            rows.push(bits.position());
        }
        let (flaw, end) = self.leftover(bits.position());
        let flaw = flaw.or((carry.run > 0).then_some(Flaw::Miscounted));
        Outcome { rows, flaw, end }
    }

    /// The parts whose blocks follow one another in an MCU.
    fn plan(&self, components: &[Component]) -> Vec<usize> {
        if let [_] = self.parts[..] {
            return vec![0];
        }
        let blocks = |part: &Part| components[part.component].sampling.iter().product();
        self.parts.iter().enumerate().flat_map(|(at, part)| vec![at; blocks(part)]).collect()
    }

    /// `None` if the block contradicts its format.
    fn block(
        &self,
        part: usize,
        [column, row]: [usize; 2],
        bits: &mut Bits,
        carry: &mut Carry,
        components: &mut [Component],
    ) -> Option<()> {
        let (at, part) = (part, &self.parts[part]);
        let component = &mut components[part.component];
        match self.kind {
            Kind::Sequential => {
                dc(part, bits, &mut carry.dc[at])?;
                ac(part, bits)
            }
            Kind::DcFirst => dc(part, bits, &mut carry.dc[at]),
            Kind::DcRefine => {
                bits.bit();
                Some(())
            }
            Kind::AcFirst { from, to } => {
                let nonzero = &mut component.nonzero[row * component.stride + column];
                ac_first(part, bits, from..=to, nonzero, &mut carry.run)
            }
            Kind::AcRefine { from, to } => {
                let nonzero = &mut component.nonzero[row * component.stride + column];
                ac_refine(part, bits, from..=to, nonzero, &mut carry.run)
            }
        }
    }

    /// The first byte behind restart marker `number`, which must stand at `at`.
    fn behind_marker(&self, at: usize, number: usize) -> Option<usize> {
        let (code, behind) = marker_at(self.data, at)?;
        (usize::from(code) == 0xD0 + number % 8).then_some(behind)
    }

    fn stopped(&self, rows: Vec<usize>, bits: &Bits) -> Outcome {
        let end = bits.position();
        // A cut file has nothing more, or an end marker that somebody put behind the cut.
        let rest = &self.data[end.min(self.data.len())..];
        let over =
            rest.iter().all(|byte| *byte == 0xFF) || matches!(marker_at(self.data, end), Some((0xD9, _)));
        Outcome { rows, flaw: Some(if over { Flaw::Ended } else { Flaw::Broken }), end }
    }

    /// Whether what lies between the last MCU and the next marker is too much, and where that marker is.
    ///
    /// Constant bytes are padding, unless the picture's own data end in them: then these were read as blocks. A file
    /// without an end marker may have a short trailer of its camera's.
    fn leftover(&self, at: usize) -> (Option<Flaw>, usize) {
        const TRAILER: usize = 512;
        let rest = &self.data[at.min(self.data.len())..];
        let marker = rest.windows(2).position(|pair| pair[0] == 0xFF && !matches!(pair[1], 0 | 0xFF));
        let between = &rest[..marker.unwrap_or(rest.len())];
        let padding = match between.first() {
            Some(value) => {
                between.iter().all(|byte| byte == value) && !self.data[..at].ends_with(&[*value; 8])
            }
            None => true,
        };
        let sound = padding || marker.is_none() && between.len() < TRAILER;
        ((!sound).then_some(Flaw::Miscounted), at + between.len())
    }
}

/// The marker that begins at `at`, fill bytes before it allowed, and the first byte behind it.
pub fn marker_at(data: &[u8], at: usize) -> Option<(u8, usize)> {
    let fill = data.get(at..)?.iter().take_while(|byte| **byte == 0xFF).count();
    let code = *data.get(at + fill)?;
    (fill > 0 && code != 0).then_some((code, at + fill + 1))
}

fn dc(part: &Part, bits: &mut Bits, last: &mut i32) -> Option<()> {
    let size = u32::from(part.dc?.read(bits)?);
    if size > 11 {
        return None;
    }
    let value = bits.take(size) as i32;
    let negative = size > 0 && value < 1 << (size - 1);
    *last += if negative { value + 1 - (1 << size) } else { value };
    (last.abs() <= part.dc_limit).then_some(())
}

fn ac(part: &Part, bits: &mut Bits) -> Option<()> {
    let table = part.ac?;
    let mut k = 1;
    while k < 64 {
        match split(table.read(bits)?) {
            (0, 0) => return Some(()),
            (15, 0) => {
                k += 16;
                if k > 63 {
                    return None;
                }
            }
            (run, size) => {
                k += run;
                coefficient(part, k, 63, size)?;
                bits.skip(size);
                k += 1;
            }
        }
    }
    Some(())
}

fn ac_first(
    part: &Part,
    bits: &mut Bits,
    band: std::ops::RangeInclusive<usize>,
    nonzero: &mut u64,
    run_of_blocks: &mut usize,
) -> Option<()> {
    if *run_of_blocks > 0 {
        *run_of_blocks -= 1;
        return Some(());
    }
    let table = part.ac?;
    let (mut k, to) = (*band.start(), *band.end());
    while k <= to {
        match split(table.read(bits)?) {
            (15, 0) => k += 16,
            (run, 0) => {
                *run_of_blocks = (1 << run) + bits.take(run as u32) - 1;
                break;
            }
            (run, size) => {
                k += run;
                coefficient(part, k, to, size)?;
                bits.skip(size);
                *nonzero |= 1 << k;
                k += 1;
            }
        }
    }
    Some(())
}

fn ac_refine(
    part: &Part,
    bits: &mut Bits,
    band: std::ops::RangeInclusive<usize>,
    nonzero: &mut u64,
    run_of_blocks: &mut usize,
) -> Option<()> {
    let table = part.ac?;
    let (mut k, to) = (*band.start(), *band.end());
    let known = *nonzero;
    let is_known = |k: usize| known >> k & 1 == 1;
    while *run_of_blocks == 0 && k <= to {
        let (mut zeros, size) = split(table.read(bits)?);
        match size {
            0 if zeros < 15 => {
                *run_of_blocks = (1 << zeros) + bits.take(zeros as u32);
                break;
            }
            0 => {}
            1 => {
                bits.bit();
            }
            _ => return None,
        }
        // Passes over `zeros` coefficients that stay zero, and a bit for each that is known.
        while k <= to && (is_known(k) || zeros > 0) {
            if is_known(k) {
                bits.bit();
            } else {
                zeros -= 1;
            }
            k += 1;
        }
        if size == 1 {
            if k > to {
                return None;
            }
            *nonzero |= 1 << k;
        }
        k += 1;
    }
    if *run_of_blocks > 0 {
        (k..=to).filter(|k| is_known(*k)).for_each(|_| {
            bits.bit();
        });
        *run_of_blocks -= 1;
    }
    Some(())
}

/// Run of zeros and bits of the coefficient behind it.
fn split(symbol: u8) -> (usize, u32) {
    (usize::from(symbol >> 4), u32::from(symbol & 15))
}

/// `None` if coefficient `k` lies behind `to`, or cannot have that many bits.
fn coefficient(part: &Part, k: usize, to: usize, size: u32) -> Option<()> {
    (k <= to && size > 0 && size <= u32::from(part.limits[k])).then_some(())
}
