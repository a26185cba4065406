//! Positions of the kept weights: per row a count, then the gaps between kept columns, Rice-coded. Where a pattern has
//! blocks, rows and columns are those of blocks.

use super::rice::{self, Reader, Writer};
use super::{Csr, FormatError};
use crate::Pattern;

/// A coded index and its two parameters.
pub(super) struct Coded {
    pub bytes: Vec<u8>,
    pub count_parameter: u8,
    pub gap_parameter: u8,
}

/// Codes the support of a matrix.
pub(super) fn encode(csr: &Csr) -> Coded {
    let [block_rows, block_cols] = csr.pattern().block();
    let blocks = |row: usize| -> Vec<u32> {
        let starts = csr.columns(row).iter().filter(|column| (**column as usize).is_multiple_of(block_cols));
        starts.map(|column| column / block_cols as u32).collect()
    };
    let rows: Vec<Vec<u32>> = (0..csr.rows()).step_by(block_rows).map(blocks).collect();
    let count_parameter = rice::best_parameter(&rows.iter().map(|row| row.len() as u32));
    let gap_parameter = rice::best_parameter(&rows.iter().flat_map(|row| gaps(row)));
    let mut writer = Writer::default();
    for row in &rows {
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
    pub pattern: Pattern,
}

impl Claim<'_> {
    /// Row starts and columns; never allocates more than the bytes that are there justify.
    pub fn decode(&self, bytes: &[u8]) -> Result<(Vec<u32>, Vec<u32>), FormatError> {
        for parameter in [self.count_parameter, self.gap_parameter] {
            if parameter > rice::MAX_PARAMETER {
                return Err(FormatError::Parameter { name: self.name.to_owned(), parameter });
            }
        }
        let refuse = |source| FormatError::Pattern { name: self.name.to_owned(), source };
        self.pattern.check_extents().map_err(refuse)?;
        let [block_rows, block_cols] = self.pattern.block();
        // Every row and every gap takes at least one bit.
        let least = self.nnz.div_ceil(block_rows * block_cols);
        if self.rows.div_ceil(block_rows).saturating_add(least) > bytes.len().saturating_mul(8) {
            return Err(self.length(0));
        }
        let mut reader = Reader::new(bytes);
        let (mut row_ptr, mut columns) = (vec![0], Vec::with_capacity(self.nnz));
        for row in (0..self.rows).step_by(block_rows) {
            let start = columns.len();
            self.decode_row(row, &mut reader, &mut columns)?;
            let end = columns.len();
            row_ptr.push(end as u32);
            for row in row + 1..self.rows.min(row + block_rows) {
                if columns.len() + end - start > self.nnz {
                    let count = (end - start) as u32;
                    return Err(FormatError::RowCount { name: self.name.to_owned(), row, count });
                }
                columns.extend_from_within(start..end);
                row_ptr.push(columns.len() as u32);
            }
        }
        if columns.len() != self.nnz {
            let (name, got) = (self.name.to_owned(), columns.len());
            return Err(FormatError::EntryCount { name, expected: self.nnz, got });
        }
        if reader.is_finished() { Ok((row_ptr, columns)) } else { Err(self.length(self.rows)) }
    }

    fn decode_row(&self, row: usize, bits: &mut Reader, columns: &mut Vec<u32>) -> Result<(), FormatError> {
        let [_, block] = self.pattern.block();
        let count = bits.take(self.count_parameter).ok_or_else(|| self.length(row))?;
        let refused = || FormatError::RowCount { name: self.name.to_owned(), row, count };
        if count as usize > self.cols.div_ceil(block) {
            return Err(refused());
        }
        let mut next = 0_u64;
        for _ in 0..count {
            let gap = bits.take(self.gap_parameter).ok_or_else(|| self.length(row))?;
            let column = (next + u64::from(gap)) * block as u64;
            if column >= self.cols as u64 {
                return Err(FormatError::Gap { name: self.name.to_owned(), row, columns: self.cols });
            }
            let end = (column + block as u64).min(self.cols as u64);
            if columns.len() + (end - column) as usize > self.nnz {
                return Err(refused());
            }
            columns.extend(column as u32..end as u32);
            next += u64::from(gap) + 1;
        }
        Ok(())
    }

    fn length(&self, row: usize) -> FormatError {
        FormatError::IndexLength { name: self.name.to_owned(), row }
    }
}
