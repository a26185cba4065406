use tch::nn::Path;
use tch::{Kind, Tensor};

use super::lora::start;
use super::{Adapter, Cost, Delta, LOW_RANK, Site, Split};
use crate::recipe::AdaptSpec;
use crate::torch::TorchError;

/// `ΔW = soft_k(K)`, `K[i, j] = (α / r) (‖b_i − a_j‖ − ‖b'_i − a'_j‖)`, with rows `b[m, r]` and `a[n, r]`.
///
/// Distances give `K` full rank. The entries compete: the largest half of those on the mask stay, less the
/// largest one that does not, `soft_k(x) = sign(x) (|x| − |x|_(k + 1))`.
///
/// As published it does not start at zero. Here both pairs start alike, so that the distances cancel exactly.
struct Kernelised {
    /// Both pairs: `b[2, m, r]`.
    b: Tensor,
    /// Both pairs: `a[2, n, r]`.
    a: Tensor,
    allowed: Option<Tensor>,
    scale: f64,
    /// Share of the kept weights that may change.
    changed: f64,
}

impl Kernelised {
    /// `K` before the competition `[m, n]`.
    fn kernel(&self) -> Result<Tensor, TorchError> {
        let distances = Tensor::f_cdist(&self.b, &self.a, 2.0, None::<i64>)?;
        Ok(distances.f_get(0)?.f_sub(&distances.f_get(1)?)?.f_mul_scalar(self.scale)?)
    }

    /// Sizes of the entries `[m · n]`, negative where a change would be masked, and how many may change.
    fn competitors(&self, kernel: &Tensor) -> Result<(Tensor, usize), TorchError> {
        let sizes = kernel.f_abs()?.f_flatten(0, -1)?;
        let Some(allowed) = &self.allowed else { return Ok((sizes, kernel.numel())) };
        let pruned = allowed.f_logical_not()?.f_flatten(0, -1)?;
        Ok((sizes.f_masked_fill(&pruned, -1.0)?, allowed.f_sum(Kind::Int64)?.int64_value(&[]) as usize))
    }
}

impl Delta for Kernelised {
    fn delta(&self, _base: &Tensor) -> Result<Tensor, TorchError> {
        let kernel = self.kernel()?;
        let (sizes, room) = self.competitors(&kernel)?;
        let count = ((self.changed * room as f64) as i64).min(sizes.numel() as i64 - 1);
        let (sizes, positions) = sizes.f_topk(count + 1, 0, true, true)?;
        let positions = positions.f_narrow(0, 0, count)?;
        let winners = kernel.f_flatten(0, -1)?.f_index_select(0, &positions)?;
        let changes = winners.f_sub(&winners.f_sign()?.f_mul(&sizes.f_get(count)?)?)?;
        let zeros = Tensor::f_zeros([kernel.numel() as i64], (kernel.kind(), kernel.device()))?;
        Ok(zeros.f_scatter(0, &positions, &changes)?.f_reshape(kernel.size())?)
    }
}

/// Sparse tuning with kernelised low-rank factors (SNELL, arXiv 2411.01800; SNELLA, arXiv 2510.24037).
pub struct Snell;

impl Adapter for Snell {
    fn name(&self) -> &'static str {
        "snell"
    }

    fn about(&self) -> &'static str {
        "largest entries of a kernel of low-rank factors: M ⊙ (W0 + soft_k(κ(B, A)))"
    }

    fn split(&self, _spec: &AdaptSpec) -> Split {
        Split { low_rank: 1.0, sparse: 0.0 }
    }

    fn cost(&self, [m, n]: [usize; 2]) -> Cost {
        Cost { fixed: 0, per_rank: 2 * (m + n) }
    }

    fn attach(
        &self,
        site: &Site,
        spec: &AdaptSpec,
        path: &Path,
    ) -> Result<Option<Box<dyn Delta>>, TorchError> {
        let (m, n) = site.weight.size2()?;
        let rank = site.size.rank as i64;
        if rank == 0 {
            return Ok(None);
        }
        let path = path.set_group(LOW_RANK);
        let scale = spec.lora_alpha / spec.r as f64;
        let [_, a] = start(site, spec, rank, scale, path.kind())?;
        let bound = 1.0 / (n as f64).sqrt();
        let b = Tensor::f_empty([m, rank], (path.kind(), path.device()))?.f_uniform_(-bound, bound)?;
        let twice = |part: &Tensor| part.f_unsqueeze(0)?.f_repeat([2, 1, 1]);
        Ok(Some(Box::new(Kernelised {
            a: path.f_var_copy("a", &twice(&a.f_transpose(0, 1)?)?)?,
            b: path.f_var_copy("b", &twice(&b)?)?,
            allowed: site.allowed.map(Tensor::shallow_clone),
            scale,
            changed: spec.snell.changed,
        })))
    }
}
