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
    let longest = mask.f_sum_dim_intlist(1, false, Kind::Int64)?.f_max()?.int64_value(&[]);
    if longest > EXACT_LIMIT { refit_iterative(w0, h, mask, 40) } else { refit_exact(w0, h, mask) }
}

/// [`refit`] by one Cholesky factorisation per row, in f64.
pub fn refit_exact(w0: &Tensor, h: &Tensor, mask: &Tensor) -> Result<Tensor, SolveError> {
    let (h, w0) = (h.f_to_kind(Kind::Double)?, w0.f_to_kind(Kind::Double)?);
    let target = w0.f_matmul(&h)?;
    let counts = mask.f_sum_dim_intlist(1, false, Kind::Int64)?;
    let out = w0.f_zeros_like()?;
    // Rows of like length share a batch, so that little is padded.
    let order = counts.f_argsort(0, true)?;
    let mut start = 0;
    while start < order.numel() as i64 {
        let longest = counts.int64_value(&[order.int64_value(&[start])]).max(1);
        let rows = (BATCH_ENTRIES / (longest * longest)).clamp(1, order.numel() as i64 - start);
        let batch = order.f_narrow(0, start, rows)?;
        let solved = solve_rows(&h, &target, &mask.f_index_select(0, &batch)?, &batch, longest)?;
        let _ = out.shallow_clone().f_index_copy_(0, &batch, &solved)?;
        start += rows;
    }
    Ok(out.f_to_kind(Kind::Float)?)
}

/// Solves the rows `batch`, each padded to `longest` unknowns with the identity.
fn solve_rows(
    h: &Tensor,
    target: &Tensor,
    mask: &Tensor,
    batch: &Tensor,
    longest: i64,
) -> Result<Tensor, SolveError> {
    // A stable sort puts the kept columns first, in order.
    let columns = mask.f_to_kind(Kind::Int8)?.f_sort_stable(true, 1, true)?.1.f_narrow(1, 0, longest)?;
    let kept = mask.f_gather(1, &columns, false)?;
    let both = kept.f_unsqueeze(2)?.f_logical_and(&kept.f_unsqueeze(1)?)?;
    let gathered = h.f_index(&[Some(columns.f_unsqueeze(2)?), Some(columns.f_unsqueeze(1)?)])?;
    let identity = Tensor::f_eye(longest, (Kind::Double, h.device()))?;
    let matrices = gathered.f_where_self(&both, &identity.f_expand_as(&gathered)?)?;
    let right = target.f_index_select(0, batch)?.f_gather(1, &columns, false)?.f_mul(&kept)?;
    let (factor, info) = matrices.f_linalg_cholesky_ex(false, false)?;
    if info.f_max()?.int64_value(&[]) != 0 {
        return Err(SolveError::Singular);
    }
    let values = right.f_unsqueeze(2)?.f_cholesky_solve(&factor, false)?.f_squeeze_dim(2)?.f_mul(&kept)?;
    let zeros = Tensor::f_zeros([batch.numel() as i64, h.size()[0]], (Kind::Double, h.device()))?;
    Ok(zeros.f_scatter_add(1, &columns, &values)?)
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
