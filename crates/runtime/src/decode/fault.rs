use super::PhotoError;
use crate::photo::{Defect, Note};

/// Colour of what is missing: what every decoder paints there.
pub const GREY: u8 = 128;

/// What is wrong with a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The kind of it.
    pub defect: Defect,
    /// Rows from the top that are sound; `None` where nobody knows.
    pub rows: Option<usize>,
    /// Whether the sound rows lack detail.
    pub coarse: bool,
    /// Rows of the picture.
    pub height: usize,
}

impl Fault {
    /// Fails if less than half of the picture is sound.
    pub fn at_least_half(self) -> Result<Self, PhotoError> {
        match (self.rows, self.defect) {
            (Some(rows), _) if 2 * rows >= self.height => Ok(self),
            (None, _) => Ok(self),
            (Some(rows), Defect::Truncated) => Err(PhotoError::Truncated { rows: Some(self.percent(rows)) }),
            (Some(rows), Defect::Damaged) => Err(PhotoError::Broken { rows: self.percent(rows) }),
        }
    }

    /// Paints the rows that are not sound.
    pub fn paint(&self, pixels: &mut [u8]) {
        if let Some(rows) = self.rows {
            let row = pixels.len() / self.height;
            pixels[rows * row..].fill(GREY);
        }
    }

    /// What the user is told.
    pub fn note(&self) -> Note {
        let rows = self.rows.map(|rows| self.percent(rows));
        Note { defect: self.defect, rows, coarse: self.coarse }
    }

    fn percent(&self, rows: usize) -> u8 {
        (100 * rows / self.height) as u8
    }
}
