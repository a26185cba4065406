use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::Csr;

/// Which supports a sparse weight may have, seen as a matrix `[out, in / groups · kh · kw]`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Pattern {
    /// Any.
    #[default]
    Unstructured,
    /// At most `n` of every `m` consecutive columns of a row, counted from the first.
    #[serde(rename = "nm")]
    NM {
        /// Most that stay.
        n: u8,
        /// Columns of a group; the last of a row may have fewer.
        m: u8,
    },
    /// Blocks that stay or go as a whole, counted from the first row and column; those at the end may be cut.
    Block {
        /// Rows of a block.
        rows: u32,
        /// Columns of a block.
        cols: u32,
    },
}

/// Why a matrix has not a pattern, or why a text is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PatternError {
    /// Nothing could ever stay, or more than there is.
    #[error("there is no pattern `{0}`")]
    Extents(Pattern),
    /// A row keeps what the pattern forbids.
    #[error("row {row} is not {pattern}")]
    Broken {
        /// The pattern.
        pattern: Pattern,
        /// First bad row.
        row: usize,
    },
    /// The text names no pattern.
    #[error("unknown pattern `{0}` (known: unstructured, N:M as 2:4, ROWSxCOLUMNS as 4x1)")]
    Unknown(String),
}

impl Pattern {
    /// Whether every support has it.
    pub const fn is_unstructured(&self) -> bool {
        matches!(self, Self::Unstructured)
    }

    /// Extents of its blocks: 1 by 1 where there are none.
    pub const fn block(self) -> [usize; 2] {
        match self {
            Self::Block { rows, cols } => [rows as usize, cols as usize],
            Self::Unstructured | Self::NM { .. } => [1, 1],
        }
    }

    /// Checks that a file may have the pattern: groups and blocks of at most 255 rows and columns, of which some stay.
    pub fn check_extents(self) -> Result<(), PatternError> {
        let possible = match self {
            Self::Unstructured => true,
            Self::NM { n, m } => (1..=m).contains(&n),
            Self::Block { rows, cols } => [rows, cols].iter().all(|extent| (1..=255).contains(extent)),
        };
        if possible { Ok(()) } else { Err(PatternError::Extents(self)) }
    }

    /// Checks that a matrix has the pattern.
    pub fn check(self, csr: &Csr) -> Result<(), PatternError> {
        self.check_extents()?;
        let bad_row = match self {
            Self::Unstructured => None,
            Self::NM { n, m } => (0..csr.rows()).find(|row| {
                csr.columns(*row)
                    .chunk_by(|a, b| a / u32::from(m) == b / u32::from(m))
                    .any(|group| group.len() > usize::from(n))
            }),
            Self::Block { rows, cols } => (0..csr.rows()).find(|row| {
                let first = csr.columns(row / rows as usize * rows as usize);
                csr.columns(*row) != first || !has_whole_blocks(first, cols as usize, csr.cols())
            }),
        };
        bad_row.map_or(Ok(()), |row| Err(PatternError::Broken { pattern: self, row }))
    }
}

/// Whether `columns` of a row of `width` are blocks of `block` of them.
fn has_whole_blocks(columns: &[u32], block: usize, width: usize) -> bool {
    let blocks = columns.chunk_by(|a, b| *a as usize / block == *b as usize / block);
    blocks.into_iter().all(|group| {
        let start = group[0] as usize / block * block;
        group.len() == block.min(width - start)
    })
}

fn pair<T: FromStr>(text: &str, by: char) -> Option<(T, T)> {
    let (a, b) = text.split_once(by)?;
    Some((a.parse().ok()?, b.parse().ok()?))
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unstructured => f.write_str("unstructured"),
            Self::NM { n, m } => write!(f, "{n}:{m}"),
            Self::Block { rows, cols } => write!(f, "{rows}x{cols}"),
        }
    }
}

impl FromStr for Pattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        let unknown = || PatternError::Unknown(text.to_owned());
        match (text, pair::<u8>(text, ':'), pair::<u32>(text, 'x')) {
            ("unstructured", ..) => Ok(Self::Unstructured),
            (_, Some((n, m)), _) => Ok(Self::NM { n, m }),
            (_, _, Some((rows, cols))) => Ok(Self::Block { rows, cols }),
            _ => Err(unknown()),
        }
        .and_then(|pattern| pattern.check_extents().map(|()| pattern).map_err(|_| unknown()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Mask;

    fn csr(rows: usize, cols: usize, keep: impl Fn(usize, usize) -> bool) -> Csr {
        let mask = Mask::from_fn(rows * cols, |i| keep(i / cols, i % cols));
        Csr::from_dense(rows, cols, &vec![1.0; rows * cols], &mask)
    }

    #[test]
    fn names_round_trip_and_others_are_refused() {
        let patterns = [
            Pattern::Unstructured,
            Pattern::NM { n: 2, m: 4 },
            Pattern::NM { n: 4, m: 8 },
            Pattern::Block { rows: 4, cols: 1 },
            Pattern::Block { rows: 1, cols: 4 },
        ];
        for pattern in patterns {
            assert_eq!(pattern.to_string().parse(), Ok(pattern));
        }
        for bad in ["", "2", "5:4", "0:4", "0x1", "4x", "4x1x1", "300:400", "256x1"] {
            assert_eq!(bad.parse::<Pattern>(), Err(PatternError::Unknown(bad.to_owned())));
        }
    }

    #[test]
    fn groups_and_blocks_may_be_cut_at_the_end() {
        let two_of_four = Pattern::NM { n: 2, m: 4 };
        assert_eq!(two_of_four.check(&csr(3, 7, |_, c| c % 4 < 2)), Ok(()));
        assert_eq!(
            two_of_four.check(&csr(3, 7, |r, c| r < 2 && c == 0 || r == 2 && c > 3)),
            broken(two_of_four, 2)
        );
        let tall = Pattern::Block { rows: 4, cols: 1 };
        assert_eq!(tall.check(&csr(6, 5, |r, c| (r / 4 + c) % 2 == 0)), Ok(()));
        assert_eq!(tall.check(&csr(6, 5, |r, c| c == 2 && r != 5)), broken(tall, 5));
        let wide = Pattern::Block { rows: 1, cols: 4 };
        assert_eq!(wide.check(&csr(6, 5, |r, c| (r + c / 4) % 2 == 0)), Ok(()));
        assert_eq!(wide.check(&csr(6, 5, |_, c| c < 3)), broken(wide, 0));
    }

    fn broken(pattern: Pattern, row: usize) -> Result<(), PatternError> {
        Err(PatternError::Broken { pattern, row })
    }

    #[test]
    fn impossible_extents_are_refused() {
        for bad in [
            Pattern::NM { n: 5, m: 4 },
            Pattern::NM { n: 0, m: 0 },
            Pattern::Block { rows: 0, cols: 4 },
            Pattern::Block { rows: 4, cols: 256 },
        ] {
            assert_eq!(bad.check(&csr(1, 1, |_, _| false)), Err(PatternError::Extents(bad)));
        }
    }
}
