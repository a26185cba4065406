//! Photos as pixels, wherever they come from.

use std::fmt;

/// Photos with more pixels than this are refused from their header, before any memory is taken.
pub const MAX_PIXELS: u64 = 200_000_000;

/// What can be wrong with a photo that can be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Defect {
    /// The data end before the picture does.
    Truncated,
    /// The data contradict their format.
    Damaged,
}

/// What is wrong with a photo that is answered nevertheless; written as `truncated, 74 % of the rows`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Note {
    /// The kind of it.
    pub defect: Defect,
    /// Share of the rows that are sound, in per cent, at least 50; `None` where nobody knows which are.
    pub rows: Option<u8>,
    /// Whether the sound rows lack detail, as those of a progressive JPEG without its last scans.
    pub coarse: bool,
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self.defect {
            Defect::Truncated => "truncated",
            Defect::Damaged => "damaged",
        })?;
        if let Some(rows) = self.rows {
            write!(f, ", {rows} % of the rows")?;
        }
        if self.coarse { f.write_str(" in less detail") } else { Ok(()) }
    }
}

/// A decoded photo: upright, 8 bits per channel, red, green and blue interleaved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Photo {
    width: usize,
    height: usize,
    pixels: Vec<u8>,
    note: Option<Note>,
}

impl Photo {
    /// Wraps pixels `[height, width, 3]`, or `None` if there are not as many as the sides say, none or
    /// more than [`MAX_PIXELS`].
    pub fn from_rgb(width: usize, height: usize, pixels: Vec<u8>) -> Option<Self> {
        let count = width.checked_mul(height).filter(|count| (1..=MAX_PIXELS).contains(&(*count as u64)))?;
        (3 * count == pixels.len()).then_some(Self { width, height, pixels, note: None })
    }

    /// Wraps pixels that are known to fit.
    pub(crate) fn from_parts(width: usize, height: usize, pixels: Vec<u8>) -> Self {
        debug_assert_eq!(pixels.len(), 3 * width * height);
        Self { width, height, pixels, note: None }
    }

    /// The same, of a file with a fault.
    #[cfg(feature = "photos")]
    #[must_use]
    pub(crate) fn with_note(self, note: Option<Note>) -> Self {
        Self { note, ..self }
    }

    /// Pixels per row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Rows.
    pub fn height(&self) -> usize {
        self.height
    }

    /// Pixels `[height, width, 3]`, red, green and blue.
    pub fn pixels(&self) -> &[u8] {
        &self.pixels
    }

    /// What is wrong with the file that it comes from, if anything is.
    pub fn note(&self) -> Option<Note> {
        self.note
    }
}
