//! Positions of the kept weights: per row a count, then the gaps between kept columns, Rice-coded.

use super::rice::{self, Reader, Writer};
use super::{Csr, FormatError};

/// A coded index and its two parameters.
pub(super) struct Coded {
    pub bytes: Vec<u8>,
    pub count_parameter: u8,
    pub gap_parameter: u8,
}

/// Codes the support of a matrix.
pub(super) fn encode(csr: &Csr) -> Coded {
    let counts = csr.row_ptr().windows(2).map(|ends| ends[1] - ends[0]);
    let rows = csr.row_ptr().windows(2).map(|ends| &csr.col_idx()[ends[0] as usize..ends[1] as usize]);
    let count_parameter = rice::best_parameter(&counts);
    let gap_parameter = rice::best_parameter(&rows.clone().flat_map(gaps));
    let mut writer = Writer::default();
    for row in rows {
        writer.put(row.len() as u32, count_parameter);
        gaps(row).for_each(|gap| writer.put(gap, gap_parameter));
    }
    Coded { bytes: writer.finish(), count_parameter, gap_parameter }
}

/// Columns skipped before each kept one.
fn gaps(row: &[u32]) -> impl Iterator<Item = u32> + Clone + '_ {
    row.iter().scan(0, |next, column| {
        let gap = column - *next;
        *next = column + 1;
        Some(gap)
    })
}

/// What the table says about a sparse tensor.
pub(super) struct Claim<'a> {
    pub name: &'a str,
    pub rows: usize,
    pub cols: usize,
    pub nnz: usize,
    pub count_parameter: u8,
    pub gap_parameter: u8,
}

impl Claim<'_> {
    /// Row starts and columns; never allocates more than the bytes that are there justify.
    pub fn decode(&self, bytes: &[u8]) -> Result<(Vec<u32>, Vec<u32>), FormatError> {
        for parameter in [self.count_parameter, self.gap_parameter] {
            if parameter > rice::MAX_PARAMETER {
                return Err(FormatError::Parameter { name: self.name.to_owned(), parameter });
            }
        }
        // Every row and every gap takes at least one bit.
        if self.rows.saturating_add(self.nnz) > bytes.len().saturating_mul(8) {
            return Err(self.length(0));
        }
        let mut reader = Reader::new(bytes);
        let mut row_ptr = Vec::with_capacity(self.rows + 1);
        let mut columns = Vec::with_capacity(self.nnz);
        row_ptr.push(0);
        for row in 0..self.rows {
            self.decode_row(row, &mut reader, &mut columns)?;
            row_ptr.push(columns.len() as u32);
        }
        if columns.len() != self.nnz {
            let (name, got) = (self.name.to_owned(), columns.len());
            return Err(FormatError::EntryCount { name, expected: self.nnz, got });
        }
        if reader.is_finished() { Ok((row_ptr, columns)) } else { Err(self.length(self.rows)) }
    }

    fn decode_row(&self, row: usize, bits: &mut Reader, columns: &mut Vec<u32>) -> Result<(), FormatError> {
        let count = bits.take(self.count_parameter).ok_or_else(|| self.length(row))?;
        let room = self.cols.min(self.nnz - columns.len());
        if count as usize > room {
            return Err(FormatError::RowCount { name: self.name.to_owned(), row, count });
        }
        let mut next = 0_u64;
        for _ in 0..count {
            let gap = bits.take(self.gap_parameter).ok_or_else(|| self.length(row))?;
            let column = next + u64::from(gap);
            if column >= self.cols as u64 {
                return Err(FormatError::Gap { name: self.name.to_owned(), row, columns: self.cols });
            }
            columns.push(column as u32);
            next = column + 1;
        }
        Ok(())
    }

    fn length(&self, row: usize) -> FormatError {
        FormatError::IndexLength { name: self.name.to_owned(), row }
    }
}
