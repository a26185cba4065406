//! What of a JPEG is there.
//!
//! Decoders answer a damaged JPEG with a picture and no word: what is missing becomes grey, and behind a broken
//! code every block is another's. So the file is walked before it is decoded: markers, tables and every code of every
//! scan, but no pixel. A whole picture has exactly the blocks that its header announces, no code that is none, no
//! coefficient that eight bits cannot have, and no data left over.

use std::borrow::Cow;

use self::huffman::{Huffman, standard_segment};
use self::scan::{Component, Flaw, Kind, Part, Scan, marker_at};
use super::fault::Fault;
use super::{MAX_PIXELS, PhotoError};
use crate::photo::Defect;

mod bits;
mod huffman;
mod scan;
mod sector;

/// JPEGs with more scans are refused.
pub const MAX_SCANS: usize = 500;

/// JPEGs whose scans have more pixels, all together, are refused.
pub const MAX_SCANNED_PIXELS: u64 = 4_000_000_000;

/// What a walk through a JPEG found.
#[derive(Debug)]
pub struct Survey<'a> {
    /// What a decoder should be given: the sound part, ended properly, with the tables it needs.
    pub bytes: Cow<'a, [u8]>,
    /// What is wrong.
    pub fault: Option<Fault>,
}

struct Frame {
    progressive: bool,
    width: usize,
    height: usize,
    /// Largest sampling factors.
    sampling: [usize; 2],
    /// Columns and rows of MCUs.
    mcus: [usize; 2],
    components: Vec<Component>,
}

struct Walk<'a> {
    data: &'a [u8],
    frame: Option<Frame>,
    dc: [Option<Huffman>; 4],
    ac: [Option<Huffman>; 4],
    quantization: [Option<[u16; 64]>; 4],
    restart: usize,
    scans: usize,
    scanned: u64,
    /// Where the standard tables have to be put in.
    without_tables: Option<usize>,
    /// The first flaw, the sound rows of its scan, and where decoding should end.
    flaw: Option<(Flaw, usize)>,
    has_end: bool,
}

/// Walks through a JPEG.
pub fn survey(data: &[u8]) -> Result<Survey<'_>, PhotoError> {
    let mut walk = Walk::new(data);
    walk.segments()?;
    Ok(walk.finish())
}

impl<'a> Walk<'a> {
    fn new(data: &'a [u8]) -> Self {
        Self {
            data,
            frame: None,
            dc: Default::default(),
            ac: Default::default(),
            quantization: [None; 4],
            restart: 0,
            scans: 0,
            scanned: 0,
            without_tables: None,
            flaw: None,
            has_end: false,
        }
    }

    /// Goes from marker to marker until the end or the first flaw.
    fn segments(&mut self) -> Result<(), PhotoError> {
        let mut at = 2;
        while self.flaw.is_none() {
            let Some((code, body, next)) = self.segment(at) else { break };
            at = match code {
                0xD9 => {
                    self.has_end = true;
                    break;
                }
                0xDA => self.scan(at, body, next)?,
                _ => {
                    if self.header(code, body)?.is_none() {
                        self.flaw = Some((Flaw::Broken, at));
                    }
                    next
                }
            };
        }
        if self.scans == 0 && !self.has_end && self.flaw.is_none() {
            return Err(PhotoError::Truncated { rows: None });
        }
        Ok(())
    }

    /// Marker, body and end of the next segment from `at` on; `None` at the end of the file.
    fn segment(&self, at: usize) -> Option<(u8, &'a [u8], usize)> {
        let mut from = at;
        loop {
            from += self.data.get(from..)?.iter().position(|byte| *byte == 0xFF)?;
            match marker_at(self.data, from) {
                None | Some((0x01 | 0xD0..=0xD8, _)) => from += 1,
                Some((0xD9, behind)) => return Some((0xD9, &[], behind)),
                Some((code, behind)) => {
                    let length = self.data.get(behind..behind + 2)?;
                    let end = behind + usize::from(u16::from_be_bytes([length[0], length[1]])).max(2);
                    return Some((code, self.data.get(behind + 2..end)?, end));
                }
            }
        }
    }

    /// Takes what a segment says; `None` if it contradicts its format.
    fn header(&mut self, code: u8, body: &'a [u8]) -> Result<Option<()>, PhotoError> {
        let feature = match code {
            0xC0..=0xC2 => return self.start_of_frame(code == 0xC2, body),
            0xC4 => return Ok(self.huffman_tables(body)),
            0xDB => return Ok(self.quantization_tables(body)),
            0xDD => {
                self.restart = body.first_chunk().map_or(0, |pair| usize::from(u16::from_be_bytes(*pair)));
                return Ok(Some(()));
            }
            0xC3 => "lossless coding",
            0xC5..=0xC7 | 0xDE => "hierarchical coding",
            0xC9..=0xCB | 0xCD..=0xCF => "arithmetic coding",
            0xF7 => "JPEG-LS coding",
            _ => return Ok(Some(())),
        };
        Err(PhotoError::Unsupported { feature: feature.to_owned() })
    }

    fn start_of_frame(&mut self, progressive: bool, body: &[u8]) -> Result<Option<()>, PhotoError> {
        let &[precision, h1, h0, w1, w0, _, ref list @ ..] = body else { return Ok(None) };
        if precision != 8 {
            return Err(PhotoError::Unsupported { feature: format!("{precision} bits per sample") });
        }
        let [height, width] = [[h1, h0], [w1, w0]].map(|pair| usize::from(u16::from_be_bytes(pair)));
        if !(1..=MAX_PIXELS).contains(&(width as u64 * height as u64)) {
            return Err(PhotoError::Dimensions { width: width as u32, height: height as u32 });
        }
        let listed = list.as_chunks::<3>().0;
        let factors = |packed: u8| [usize::from(packed >> 4), usize::from(packed & 15)];
        let sound = |[_, packed, table]: &[u8; 3]| {
            factors(*packed).iter().all(|factor| (1..=4).contains(factor)) && *table < 4
        };
        if self.frame.is_some() || !(1..=4).contains(&listed.len()) || !listed.iter().all(sound) {
            return Ok(None);
        }
        let most =
            |axis: usize| listed.iter().map(|[_, packed, _]| factors(*packed)[axis]).max().unwrap_or(1);
        let sampling = [most(0), most(1)];
        let mcus = [width.div_ceil(8 * sampling[0]), height.div_ceil(8 * sampling[1])];
        let component = |[id, packed, table]: &[u8; 3]| {
            let mine = factors(*packed);
            let own = own_blocks([width, height], mine, sampling);
            let (stride, lowest) = (mcus[0] * mine[0], [255; 64]);
            let quantization = usize::from(*table);
            Component {
                id: *id,
                sampling: mine,
                quantization,
                own,
                stride,
                nonzero: Vec::new(),
                bands: 0,
                lowest,
            }
        };
        let components = listed.iter().map(component).collect();
        self.frame = Some(Frame { progressive, width, height, sampling, mcus, components });
        Ok(Some(()))
    }

    fn huffman_tables(&mut self, mut body: &[u8]) -> Option<()> {
        while let Some((id, rest)) = body.split_first() {
            let (counts, rest) = rest.split_first_chunk::<16>()?;
            let total: usize = counts.iter().map(|count| usize::from(*count)).sum();
            let (symbols, rest) = rest.split_at_checked(total)?;
            let tables = if id >> 4 == 0 { &mut self.dc } else { &mut self.ac };
            *tables.get_mut(usize::from(id & 15))? = Some(Huffman::new(counts, symbols)?);
            body = rest;
        }
        Some(())
    }

    fn quantization_tables(&mut self, mut body: &[u8]) -> Option<()> {
        while let Some((id, rest)) = body.split_first() {
            let wide = id >> 4 != 0;
            let (values, rest) = rest.split_at_checked(if wide { 128 } else { 64 })?;
            let value = |k: usize| {
                if wide {
                    u16::from_be_bytes([values[2 * k], values[2 * k + 1]])
                } else {
                    u16::from(values[k])
                }
            };
            *self.quantization.get_mut(usize::from(id & 15))? = Some(std::array::from_fn(value));
            body = rest;
        }
        Some(())
    }

    /// Walks the scan whose header begins at `at` and whose data begin at `start`; returns where to go on.
    fn scan(&mut self, at: usize, header: &[u8], start: usize) -> Result<usize, PhotoError> {
        if self.scans == 0 && self.dc.iter().chain(&self.ac).all(Option::is_none) {
            self.without_tables = Some(at);
            self.huffman_tables(&standard_segment()[4..]).expect("the standard tables are tables");
        }
        self.scans += 1;
        let Some(frame) = &mut self.frame else {
            self.flaw = Some((Flaw::Broken, at));
            return Ok(start);
        };
        self.scanned += (frame.width * frame.height) as u64;
        if self.scans > MAX_SCANS || self.scanned > MAX_SCANNED_PIXELS {
            return Err(PhotoError::Scans { scans: self.scans, pixels: self.scanned });
        }
        let tables = (&self.dc, &self.ac, &self.quantization);
        let Some(scan) = frame.read_scan(header, tables, self.restart, (self.data, start)) else {
            self.flaw = Some((Flaw::Broken, at));
            return Ok(start);
        };
        let mut outcome = scan.walk(&mut frame.components);
        let blank = sector::blank(self.data, start, outcome.end, outcome.flaw.is_some())
            .or_else(|| sector::filled_tail(self.data, *outcome.rows.last()?));
        if let Some(blank) = blank {
            outcome.rows.retain(|end| *end <= blank.start);
            let flaw = if blank.to_the_end { Flaw::Ended } else { Flaw::Broken };
            (outcome.flaw, outcome.end) = (Some(flaw), blank.start);
        }
        let (kind, parts) = (scan.kind, scan.parts.iter().map(|part| part.component).collect::<Vec<_>>());
        let low = header.last().map_or(0, |packed| packed & 15);
        frame.note_scan(kind, &parts, outcome.rows.len(), low, outcome.flaw);
        if let Some(flaw) = outcome.flaw {
            let first = matches!(kind, Kind::Sequential | Kind::DcFirst);
            self.flaw = Some((flaw, if first { outcome.end } else { at }));
        }
        Ok(outcome.end)
    }

    fn finish(self) -> Survey<'a> {
        let fault = self.fault();
        let cut = match (&self.flaw, self.has_end) {
            (Some((Flaw::Ended | Flaw::Broken, end)), _) => Some((*end).min(self.data.len())),
            (None | Some((Flaw::Miscounted, _)), true) => None,
            (None | Some((Flaw::Miscounted, _)), false) => Some(self.data.len()),
        };
        let mut bytes = Cow::Borrowed(self.data);
        if let Some(cut) = cut {
            bytes = Cow::Owned([&self.data[..cut], &[0xFF, 0xD9]].concat());
        }
        if let Some(at) = self.without_tables {
            bytes = Cow::Owned([&bytes[..at], &standard_segment(), &bytes[at..]].concat());
        }
        Survey { bytes, fault }
    }

    fn fault(&self) -> Option<Fault> {
        let frame = self.frame.as_ref()?;
        let (height, sound) = (frame.height, frame.sound_rows());
        let unfinished = frame.is_unfinished(self.has_end);
        let (defect, rows) = match self.flaw {
            Some((Flaw::Miscounted, _)) if sound == height => (Defect::Damaged, None),
            Some((Flaw::Broken | Flaw::Miscounted, _)) => (Defect::Damaged, Some(sound)),
            Some((Flaw::Ended, _)) => (Defect::Truncated, Some(sound)),
            None if sound < height || unfinished => (Defect::Truncated, Some(sound)),
            None => return None,
        };
        Some(Fault { defect, rows, coarse: frame.progressive, height })
    }
}

type Tables<'t> = (&'t [Option<Huffman>; 4], &'t [Option<Huffman>; 4], &'t [Option<[u16; 64]>; 4]);

impl Frame {
    /// Reads a scan's header; `None` if it contradicts the frame.
    fn read_scan<'t, 'a>(
        &mut self,
        header: &[u8],
        (dc, ac, quantization): Tables<'t>,
        restart: usize,
        (data, start): (&'a [u8], usize),
    ) -> Option<Scan<'t, 'a>> {
        let (count, rest) = header.split_first()?;
        let (list, rest) = rest.split_at_checked(2 * usize::from(*count))?;
        let &[from, to, bits, ..] = rest else { return None };
        let kind = self.kind([from, to].map(usize::from), bits >> 4, list.len() / 2)?;
        let shift = if self.progressive { u32::from(bits & 15) } else { 0 };
        if shift > 13 || !(1..=4).contains(&(list.len() / 2)) {
            return None;
        }
        let mut parts = Vec::new();
        for [id, packed] in list.as_chunks::<2>().0 {
            let component = self.components.iter().position(|component| component.id == *id)?;
            let steps = quantization[self.components[component].quantization].as_ref();
            let table = |tables: &'t [Option<Huffman>; 4], at: u8| tables.get(usize::from(at))?.as_ref();
            let limits = std::array::from_fn(|k| most_bits(steps.map_or(1, |steps| steps[k]), shift));
            let step = i32::from(steps.map_or(1, |steps| steps[0])).max(1) << shift;
            let dc_limit = 1024 / step + 1;
            let (dc, ac) = (table(dc, packed >> 4), table(ac, packed & 15));
            parts.push(Part { component, dc, ac, dc_limit, limits });
        }
        let mcus = if let [part] = &parts[..] { self.components[part.component].own } else { self.mcus };
        if let (Kind::AcFirst { .. } | Kind::AcRefine { .. }, [part]) = (kind, &parts[..]) {
            let component = &mut self.components[part.component];
            let blocks = component.stride * self.mcus[1] * component.sampling[1];
            component.nonzero.resize(blocks, 0);
        }
        Some(Scan { kind, parts, mcus, restart, data, start })
    }

    fn kind(&self, [from, to]: [usize; 2], high: u8, parts: usize) -> Option<Kind> {
        match (from, to) {
            _ if !self.progressive => Some(Kind::Sequential),
            (0, 0) => Some(if high == 0 { Kind::DcFirst } else { Kind::DcRefine }),
            (1..=63, ..=63) if from <= to && parts == 1 => {
                Some(if high == 0 { Kind::AcFirst { from, to } } else { Kind::AcRefine { from, to } })
            }
            _ => None,
        }
    }

    /// Remembers what a scan brought.
    fn note_scan(&mut self, kind: Kind, parts: &[usize], rows: usize, low: u8, flaw: Option<Flaw>) {
        let alone = parts.len() == 1;
        for part in parts {
            let component = &mut self.components[*part];
            if matches!(kind, Kind::Sequential | Kind::DcFirst) {
                let all = rows == if alone { component.own[1] } else { self.mcus[1] };
                let bands = if alone { rows / component.sampling[1] } else { rows };
                component.bands = if all { self.mcus[1] } else { bands };
            }
            let band = match kind {
                Kind::Sequential => 0..64,
                Kind::DcFirst | Kind::DcRefine => 0..1,
                Kind::AcFirst { from, to } | Kind::AcRefine { from, to } => from..to + 1,
            };
            let low = if self.progressive { low } else { 0 };
            if flaw.is_none() || band.start == 0 {
                component.lowest[band].fill(low);
            }
        }
    }

    /// Pixel rows from the top that every component has.
    fn sound_rows(&self) -> usize {
        let bands = self.components.iter().map(|component| component.bands).min();
        let bands = bands.expect("a frame has one to four components");
        (8 * self.sampling[1] * bands).min(self.height)
    }

    /// Whether scans are missing: bits announced and never sent, or coefficients of a file without an end.
    fn is_unfinished(&self, has_end: bool) -> bool {
        let lowest = || self.components.iter().flat_map(|component| component.lowest);
        self.progressive && lowest().any(|bit| bit != 0 && (bit != 255 || !has_end))
    }
}

/// Most bits of a coefficient, quantised in such steps and shifted down, that samples of 8 bits can have.
fn most_bits(step: u16, shift: u32) -> u8 {
    let step = u32::from(step).max(1) << shift;
    (0..=11).rev().find(|bits| *bits <= 1 || (1_u32 << (bits - 1)) * step <= 1024 + step).unwrap_or(1)
}

/// Columns and rows of blocks of a component with the sampling factors `mine` of at most `most`.
fn own_blocks(sides: [usize; 2], mine: [usize; 2], most: [usize; 2]) -> [usize; 2] {
    std::array::from_fn(|axis| (sides[axis] * mine[axis]).div_ceil(8 * most[axis]))
}

#[cfg(test)]
mod tests;
