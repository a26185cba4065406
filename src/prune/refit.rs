//! Least squares on a fixed support.
//!
//! For each row with support S: `w_S = (H_SS)⁻¹ (H w₀)_S`, the minimiser of the layer error.

use tch::{Kind, Tensor};

use super::SolveError;

/// Entries of one batch of gathered sub-matrices.
const BATCH_ENTRIES: i64 = 1 << 25;

/// Rows with more kept weights than this are refitted by conjugate gradients.
const EXACT_LIMIT: i64 = 768;

/// Best values `[r, d]` on `mask[r, d]` for targets `w0[r, d]` under the positive definite `h[d, d]`.
pub fn refit(w0: &Tensor, h: &Tensor, mask: &Tensor) -> Result<Tensor, SolveError> {
    if let Some(columns) = shared_columns(mask)? {
        return refit_shared(w0, h, &columns);
    }
    let longest = mask.f_sum_dim_intlist(1, false, Kind::Int64)?.f_max()?.int64_value(&[]);
    if longest > EXACT_LIMIT { refit_iterative(w0, h, mask, 40) } else { refit_exact(w0, h, mask) }
}

/// The columns that every row keeps, where all rows keep the same.
fn shared_columns(mask: &Tensor) -> Result<Option<Tensor>, SolveError> {
    let first = mask.f_narrow(0, 0, 1)?;
    let same = mask.f_logical_xor(&first)?.f_any()?.int64_value(&[]) == 0;
    Ok(if same { Some(first.f_squeeze_dim(0)?.f_nonzero()?.f_squeeze_dim(1)?) } else { None })
}

/// [`refit`] of rows that keep the same columns K, in f64: `W_K = (W₀ H)_K (H_KK)⁻¹`, one factorisation for all.
fn refit_shared(w0: &Tensor, h: &Tensor, columns: &Tensor) -> Result<Tensor, SolveError> {
    let (h, w0) = (h.f_to_kind(Kind::Double)?, w0.f_to_kind(Kind::Double)?);
    let of_columns = h.f_index_select(1, columns)?;
    let factor = cholesky(&of_columns.f_index_select(0, columns)?)?;
    let values = w0.f_matmul(&of_columns)?.f_tr()?.f_cholesky_solve(&factor, false)?.f_tr()?;
    Ok(w0.f_zeros_like()?.f_index_copy(1, columns, &values)?.f_to_kind(Kind::Float)?)
}

/// [`refit`] by one Cholesky factorisation per row, in f64.
pub fn refit_exact(w0: &Tensor, h: &Tensor, mask: &Tensor) -> Result<Tensor, SolveError> {
    let (h, w0) = (h.f_to_kind(Kind::Double)?, w0.f_to_kind(Kind::Double)?);
    let target = w0.f_matmul(&h)?;
    let out = w0.f_zeros_like()?;
    for rows in Rows::of(mask)? {
        let solved = rows.values(&rows.factor(&h)?, &target)?;
        let _ = out.shallow_clone().f_index_copy_(0, &rows.indices, &solved)?;
    }
    Ok(out.f_to_kind(Kind::Float)?)
}

/// Best values as [`refit_exact`] finds them, and by how much the layer error rises if a kept weight goes and the rest
/// of its row is refitted: `w_j² / (H_SS⁻¹)_jj` (Optimal Brain Surgeon), both `[r, d]`, zero off the mask.
pub(super) fn saliencies(w0: &Tensor, h: &Tensor, mask: &Tensor) -> Result<(Tensor, Tensor), SolveError> {
    let (h, w0) = (h.f_to_kind(Kind::Double)?, w0.f_to_kind(Kind::Double)?);
    let target = w0.f_matmul(&h)?;
    let (values, inverse) = (w0.f_zeros_like()?, w0.f_ones_like()?);
    for rows in Rows::of(mask)? {
        let factor = rows.factor(&h)?;
        let solved = rows.values(&factor, &target)?;
        let _ = values.shallow_clone().f_index_copy_(0, &rows.indices, &solved)?;
        let diagonal = rows.spread(&inverse_diagonal(&factor)?, &h)?;
        let _ = inverse.shallow_clone().f_index_copy_(0, &rows.indices, &diagonal)?;
    }
    let rise = values.f_square()?.f_div(&inverse.f_clamp_min(f64::MIN_POSITIVE)?)?.f_mul(mask)?;
    Ok((values.f_to_kind(Kind::Float)?, rise.f_to_kind(Kind::Float)?))
}

/// Some rows of a mask, each padded to the longest.
struct Rows {
    /// Which rows `[n]`.
    indices: Tensor,
    /// Kept columns first, in order `[n, longest]`.
    columns: Tensor,
    /// Which of them are kept.
    kept: Tensor,
}

impl Rows {
    /// All rows in batches that fit into memory; rows of like length share a batch, so that little is padded.
    fn of(mask: &Tensor) -> Result<Vec<Self>, SolveError> {
        let counts = mask.f_sum_dim_intlist(1, false, Kind::Int64)?;
        let order = counts.f_argsort(0, true)?;
        let mut batches = Vec::new();
        let mut start = 0;
        while start < order.numel() as i64 {
            let longest = counts.int64_value(&[order.int64_value(&[start])]).max(1);
            let length = (BATCH_ENTRIES / (longest * longest)).clamp(1, order.numel() as i64 - start);
            let indices = order.f_narrow(0, start, length)?;
            let mask = mask.f_index_select(0, &indices)?;
            // A stable sort puts the kept columns first, in order.
            let sorted = mask.f_to_kind(Kind::Int8)?.f_sort_stable(true, 1, true)?.1;
            let columns = sorted.f_narrow(1, 0, longest)?;
            let kept = mask.f_gather(1, &columns, false)?;
            batches.push(Self { indices, columns, kept });
            start += length;
        }
        Ok(batches)
    }

    /// Cholesky factors `[n, longest, longest]` of the rows' sub-matrices, padded with the identity.
    fn factor(&self, h: &Tensor) -> Result<Tensor, SolveError> {
        let Self { columns, kept, .. } = self;
        let both = kept.f_unsqueeze(2)?.f_logical_and(&kept.f_unsqueeze(1)?)?;
        let gathered = h.f_index(&[Some(columns.f_unsqueeze(2)?), Some(columns.f_unsqueeze(1)?)])?;
        let identity = Tensor::f_eye(columns.size()[1], (Kind::Double, h.device()))?;
        let matrices = gathered.f_where_self(&both, &identity.f_expand_as(&gathered)?)?;
        cholesky(&matrices)
    }

    /// Best values on the support `[n, d]`.
    fn values(&self, factor: &Tensor, target: &Tensor) -> Result<Tensor, SolveError> {
        let right =
            target.f_index_select(0, &self.indices)?.f_gather(1, &self.columns, false)?.f_mul(&self.kept)?;
        let values = right.f_unsqueeze(2)?.f_cholesky_solve(factor, false)?.f_squeeze_dim(2)?;
        self.spread(&values, target)
    }

    /// Values of the kept columns `[n, longest]` at their places in rows `[n, d]`, as wide as `like`.
    fn spread(&self, values: &Tensor, like: &Tensor) -> Result<Tensor, SolveError> {
        let width = like.size()[1];
        let zeros = Tensor::f_zeros([self.indices.numel() as i64, width], (Kind::Double, like.device()))?;
        Ok(zeros.f_scatter_add(1, &self.columns, &values.f_mul(&self.kept)?)?)
    }
}

/// Lower Cholesky factors of one or more matrices.
fn cholesky(matrices: &Tensor) -> Result<Tensor, SolveError> {
    crate::torch::cholesky(matrices, false)?.ok_or(SolveError::Singular)
}

/// Diagonals of the inverses `[n, longest]` of matrices with these factors.
fn inverse_diagonal(factor: &Tensor) -> Result<Tensor, SolveError> {
    let identity = Tensor::f_eye(factor.size()[1], (Kind::Double, factor.device()))?;
    let inverse = factor.f_linalg_solve_triangular(&identity.f_expand_as(factor)?, false, true, false)?;
    Ok(inverse.f_square()?.f_sum_dim_intlist(1, false, Kind::Double)?)
}

/// [`refit`] by conjugate gradients on all rows at once, projected onto the mask.
fn refit_iterative(w0: &Tensor, h: &Tensor, mask: &Tensor, steps: usize) -> Result<Tensor, SolveError> {
    let diagonal = h.f_diagonal(0, 0, 1)?;
    let dot = |a: &Tensor, b: &Tensor| a.f_mul(b)?.f_sum_dim_intlist(1, true, Kind::Float);
    let mut x = w0.f_mul(mask)?;
    let mut residual = w0.f_sub(&x)?.f_matmul(h)?.f_mul(mask)?;
    let mut scaled = residual.f_div(&diagonal)?;
    let mut direction = scaled.f_detach_copy()?;
    let mut energy = dot(&residual, &scaled)?;
    for _ in 0..steps {
        let image = direction.f_matmul(h)?.f_mul(mask)?;
        let step = energy.f_div(&dot(&direction, &image)?.f_clamp_min(1e-30)?)?;
        x = x.f_add(&direction.f_mul(&step)?)?;
        residual = residual.f_sub(&image.f_mul(&step)?)?;
        scaled = residual.f_div(&diagonal)?;
        let next = dot(&residual, &scaled)?;
        direction = scaled.f_add(&direction.f_mul(&next.f_div(&energy.f_clamp_min(1e-30)?)?)?)?;
        energy = next;
    }
    Ok(x)
}
