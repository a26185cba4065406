//! The best support of a pattern.

use margay_core::Pattern;
use tch::{Kind, Tensor};

use crate::torch::{TorchError, top_k_mask};

/// The support of `keep` weights, of a pattern, with the largest sum of `scores[r, d]`, which are not negative.
///
/// Blocks stay or go as a whole, so that the count is only as near to `keep` as they allow; of a pattern n:m no more
/// than n of m weights stay, however many are asked for.
pub(super) fn best(scores: &Tensor, keep: usize, pattern: Pattern) -> Result<Tensor, TorchError> {
    Ok(match pattern {
        Pattern::Unstructured => top_k_mask(scores, keep)?,
        Pattern::NM { n, m } => {
            let (_, width) = scores.size2()?;
            let groups = blocks(scores, [1, i64::from(m)])?;
            let (_, places) = groups.f_topk(i64::from(n), -1, true, false)?;
            let allowed = groups.f_zeros_like()?.f_to_kind(Kind::Bool)?.f_scatter_value(-1, &places, 1.0)?;
            let allowed = allowed.f_flatten(1, -1)?.f_narrow(1, 0, width)?;
            let possible = allowed.f_sum(Kind::Int64)?.int64_value(&[]) as usize;
            // What is forbidden comes after what scores nothing.
            let scores = scores.f_where_self(&allowed, &scores.f_full_like(-1.0)?)?;
            top_k_mask(&scores, keep.min(possible))?
        }
        Pattern::Block { rows, cols } => {
            let [rows, cols] = [i64::from(rows), i64::from(cols)];
            let (height, width) = scores.size2()?;
            let sums =
                blocks(scores, [rows, cols])?.f_sum_dim_intlist([-1_i64].as_slice(), false, Kind::Float)?;
            let count = (keep as f64 / (rows * cols) as f64).round().max(1.0) as usize;
            let chosen = top_k_mask(&sums, count)?;
            let whole = chosen.f_repeat_interleave_self_int(rows, 0, None)?;
            let whole = whole.f_repeat_interleave_self_int(cols, 1, None)?;
            whole.f_narrow(0, 0, height)?.f_narrow(1, 0, width)?.f_contiguous()?
        }
    })
}

/// [`best`] for values: by their size, or the sum of their squares where blocks compete.
pub(super) fn largest(values: &Tensor, keep: usize, pattern: Pattern) -> Result<Tensor, TorchError> {
    let scores = if pattern.block() == [1, 1] { values.f_abs()? } else { values.f_square()? };
    best(&scores, keep, pattern)
}

/// `scores[r, d]` in blocks `[⌈r / rows⌉, ⌈d / cols⌉, rows · cols]`, those at the end filled up with zeros.
fn blocks(scores: &Tensor, [rows, cols]: [i64; 2]) -> Result<Tensor, TorchError> {
    let (height, width) = scores.size2()?;
    let missing = |length: i64, step: i64| (step - length % step) % step;
    let padded = scores.f_constant_pad_nd([0, missing(width, cols), 0, missing(height, rows)])?;
    let (height, width) = padded.size2()?;
    let cut = padded.f_reshape([height / rows, rows, width / cols, cols])?;
    Ok(cut.f_transpose(1, 2)?.f_flatten(2, 3)?)
}
