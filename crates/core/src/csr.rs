use crate::{Mask, Pattern, PatternError};

/// A sparse matrix in compressed sparse row form.
///
/// Row `r` holds the entries `row_ptr[r] .. row_ptr[r + 1]` of `col_idx` and `values`, columns
/// strictly ascending. Explicit zeros are allowed: the support is the mask, not the values.
#[derive(Clone, Debug, PartialEq)]
pub struct Csr {
    rows: usize,
    cols: usize,
    row_ptr: Vec<u32>,
    col_idx: Vec<u32>,
    values: Vec<f32>,
    pattern: Pattern,
}

/// Why arrays are no CSR matrix.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CsrError {
    /// `row_ptr` does not have one entry per row and one more.
    #[error("row_ptr has {got} entries, expected {expected}")]
    RowPtrLength {
        /// `rows + 1`.
        expected: usize,
        /// Entries given.
        got: usize,
    },
    /// `row_ptr` descends, or does not run from 0 to the number of values.
    #[error("row_ptr is not ascending from 0 to the number of values at row {row}")]
    RowPtrOrder {
        /// First bad row.
        row: usize,
    },
    /// `col_idx` and `values` differ in length.
    #[error("{columns} column indices for {values} values")]
    LengthMismatch {
        /// Length of `col_idx`.
        columns: usize,
        /// Length of `values`.
        values: usize,
    },
    /// A column index is out of range or not above its predecessor in the row.
    #[error("column {column} in row {row} is out of range or out of order")]
    Column {
        /// Row of the entry.
        row: usize,
        /// The bad index.
        column: u32,
    },
}

impl Csr {
    /// Checks the arrays and wraps them.
    pub fn new(
        rows: usize,
        cols: usize,
        row_ptr: Vec<u32>,
        col_idx: Vec<u32>,
        values: Vec<f32>,
    ) -> Result<Self, CsrError> {
        if row_ptr.len() != rows + 1 {
            return Err(CsrError::RowPtrLength { expected: rows + 1, got: row_ptr.len() });
        }
        if col_idx.len() != values.len() {
            return Err(CsrError::LengthMismatch { columns: col_idx.len(), values: values.len() });
        }
        if row_ptr[0] != 0 || row_ptr[rows] as usize != values.len() {
            return Err(CsrError::RowPtrOrder { row: if row_ptr[0] == 0 { rows } else { 0 } });
        }
        for row in 0..rows {
            let (start, end) = (row_ptr[row] as usize, row_ptr[row + 1] as usize);
            if start > end || end > values.len() {
                return Err(CsrError::RowPtrOrder { row });
            }
            check_columns(row, cols, &col_idx[start..end])?;
        }
        Ok(Self { rows, cols, row_ptr, col_idx, values, pattern: Pattern::Unstructured })
    }

    /// Takes the kept entries of a row-major dense matrix `[rows, cols]`.
    ///
    /// # Panics
    /// If the dense matrix or the mask is not `rows · cols` long.
    pub fn from_dense(rows: usize, cols: usize, dense: &[f32], mask: &Mask) -> Self {
        assert_eq!(dense.len(), rows * cols);
        assert_eq!(mask.len(), rows * cols);
        let kept = mask.count();
        let mut row_ptr = Vec::with_capacity(rows + 1);
        let (mut col_idx, mut values) = (Vec::with_capacity(kept), Vec::with_capacity(kept));
        row_ptr.push(0);
        for r in 0..rows {
            for c in (0..cols).filter(|c| mask.get(r * cols + c)) {
                col_idx.push(c as u32);
                values.push(dense[r * cols + c]);
            }
            row_ptr.push(values.len() as u32);
        }
        Self { rows, cols, row_ptr, col_idx, values, pattern: Pattern::Unstructured }
    }

    /// The same matrix, whose support is said to have a pattern.
    pub fn with_pattern(mut self, pattern: Pattern) -> Result<Self, PatternError> {
        pattern.check(&self)?;
        self.pattern = pattern;
        Ok(self)
    }

    /// The same support with other values.
    pub fn with_values(&self, values: Vec<f32>) -> Result<Self, CsrError> {
        if values.len() != self.nnz() {
            return Err(CsrError::LengthMismatch { columns: self.nnz(), values: values.len() });
        }
        let (row_ptr, col_idx) = (self.row_ptr.clone(), self.col_idx.clone());
        Ok(Self { row_ptr, col_idx, values, ..*self })
    }

    /// What its support is said to have.
    pub fn pattern(&self) -> Pattern {
        self.pattern
    }

    /// The row-major dense matrix `[rows, cols]` with zeros where nothing is stored.
    pub fn to_dense(&self) -> Vec<f32> {
        let mut dense = vec![0.0; self.rows * self.cols];
        for r in 0..self.rows {
            for (c, v) in self.row(r) {
                dense[r * self.cols + c as usize] = v;
            }
        }
        dense
    }

    /// The support.
    pub fn mask(&self) -> Mask {
        let mut kept = vec![false; self.rows * self.cols];
        for r in 0..self.rows {
            for (c, _) in self.row(r) {
                kept[r * self.cols + c as usize] = true;
            }
        }
        Mask::from_fn(kept.len(), |i| kept[i])
    }

    /// `(column, value)` of every stored entry of row `r`.
    pub fn row(&self, r: usize) -> impl Iterator<Item = (u32, f32)> + '_ {
        let range = self.row_ptr[r] as usize..self.row_ptr[r + 1] as usize;
        self.col_idx[range.clone()].iter().copied().zip(self.values[range].iter().copied())
    }

    /// Column of every stored entry of row `r`, ascending.
    pub fn columns(&self, r: usize) -> &[u32] {
        &self.col_idx[self.row_ptr[r] as usize..self.row_ptr[r + 1] as usize]
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Start of every row in `col_idx` and `values`, and their length at the end: `[rows + 1]`.
    pub fn row_ptr(&self) -> &[u32] {
        &self.row_ptr
    }

    /// Column of every entry: `[nnz]`.
    pub fn col_idx(&self) -> &[u32] {
        &self.col_idx
    }

    /// Value of every entry: `[nnz]`.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// Number of stored entries.
    pub fn nnz(&self) -> usize {
        self.values.len()
    }

    /// Multiplies row `r` by `factors[r]`.
    ///
    /// # Panics
    /// If there is not one factor per row.
    pub fn scale_rows(&mut self, factors: &[f32]) {
        assert_eq!(factors.len(), self.rows);
        for (r, factor) in factors.iter().enumerate() {
            let range = self.row_ptr[r] as usize..self.row_ptr[r + 1] as usize;
            self.values[range].iter_mut().for_each(|v| *v *= factor);
        }
    }
}

fn check_columns(row: usize, cols: usize, columns: &[u32]) -> Result<(), CsrError> {
    let mut floor = 0;
    for &column in columns {
        if u64::from(column) < floor || column as usize >= cols {
            return Err(CsrError::Column { row, column });
        }
        floor = u64::from(column) + 1;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn dense_round_trip(rows in 1_usize..9, cols in 1_usize..70, seed: u64) {
            let n = rows * cols;
            let bit = |i: usize| (seed.rotate_left((i % 64) as u32) ^ i as u64).is_multiple_of(3);
            let mask = Mask::from_fn(n, bit);
            let dense: Vec<f32> = (0..n).map(|i| if mask.get(i) { i as f32 - 4.0 } else { 0.0 }).collect();
            let csr = Csr::from_dense(rows, cols, &dense, &mask);
            prop_assert_eq!(csr.to_dense(), dense);
            prop_assert_eq!(csr.mask(), mask);
            let again = Csr::new(rows, cols, csr.row_ptr().to_vec(), csr.col_idx().to_vec(), csr.values().to_vec());
            prop_assert_eq!(again.as_ref(), Ok(&csr));
        }
    }

    #[test]
    fn every_defect_has_its_error() {
        let new = |ptr: &[u32], col: &[u32], n: usize| {
            Csr::new(2, 3, ptr.to_vec(), col.to_vec(), vec![1.0; n]).unwrap_err()
        };
        assert_eq!(new(&[0, 1], &[0], 1), CsrError::RowPtrLength { expected: 3, got: 2 });
        assert_eq!(new(&[0, 1, 2], &[0, 1], 3), CsrError::LengthMismatch { columns: 2, values: 3 });
        assert_eq!(new(&[0, 3, 2], &[0, 1], 2), CsrError::RowPtrOrder { row: 0 });
        assert_eq!(new(&[1, 1, 2], &[0, 1], 2), CsrError::RowPtrOrder { row: 0 });
        assert_eq!(new(&[0, 2, 2], &[1, 1], 2), CsrError::Column { row: 0, column: 1 });
        assert_eq!(new(&[0, 0, 1], &[3], 1), CsrError::Column { row: 1, column: 3 });
    }
}
