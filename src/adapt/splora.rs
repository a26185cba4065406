use tch::Tensor;
use tch::nn::Path;

use super::statistics::Residual;
use super::{Adapter, Cost, Delta, LowRank, Site, Size, Split, Statistics};
use crate::recipe::AdaptSpec;
use crate::torch::TorchError;

/// `ΔW = (α / r) P B A Q`: low-rank on some rows and columns of the weight, zero elsewhere.
struct Structured {
    /// On the chosen rows and columns.
    low_rank: LowRank,
    /// Chosen rows `[⌈m / 2⌉]`.
    rows: Tensor,
    /// Chosen columns `[⌈n / 2⌉]`.
    columns: Tensor,
    shape: [i64; 2],
}

impl Delta for Structured {
    fn delta(&self, base: &Tensor) -> Result<Tensor, TorchError> {
        let [m, n] = self.shape;
        let change = placed(&self.low_rank.delta(base)?, 1, &self.columns, n)?;
        placed(&change, 0, &self.rows, m)
    }

    fn factors(&self) -> Result<Option<[Tensor; 2]>, TorchError> {
        let [b, a] = self.low_rank.factors_with(self.low_rank.b())?;
        let [m, n] = self.shape;
        Ok(Some([placed(&b, 0, &self.rows, m)?, placed(&a, 1, &self.columns, n)?]))
    }
}

/// The slices of `part` along `axis` at these places of a larger tensor of zeros.
fn placed(part: &Tensor, axis: i64, places: &Tensor, extent: i64) -> Result<Tensor, TorchError> {
    let mut shape = part.size();
    shape[axis as usize] = extent;
    let zeros = Tensor::f_zeros(shape, (part.kind(), part.device()))?;
    Ok(zeros.f_index_copy(axis, places, part)?)
}

/// The structured pruning adapter (SPLoRA, arXiv 2211.10155) as far as it carries over.
///
/// There, channels leave the network and the adapter alike. Here the network is pruned weight by weight and keeps
/// its channels; what remains is an adapter on the half of the output channels and of the input columns whose
/// kept weights are largest, at half the parameters per rank.
pub struct SpLora;

impl Adapter for SpLora {
    fn name(&self) -> &'static str {
        "splora"
    }

    fn about(&self) -> &'static str {
        "low-rank on the stronger half of rows and columns: M ⊙ (W0 + PBAQ)"
    }

    fn split(&self, _spec: &AdaptSpec) -> Split {
        Split { low_rank: 1.0, sparse: 0.0 }
    }

    fn cost(&self, [m, n]: [usize; 2]) -> Cost {
        Cost { fixed: 0, per_rank: m.div_ceil(2) + n.div_ceil(2) }
    }

    fn room(&self, [m, n]: [usize; 2]) -> Size {
        Size { rank: m.min(n).div_ceil(2), count: 0 }
    }

    fn attach(
        &self,
        site: &Site,
        spec: &AdaptSpec,
        path: &Path,
    ) -> Result<Option<Box<dyn Delta>>, TorchError> {
        let (m, n) = site.weight.size2()?;
        let (rows, columns) = (strongest(site.weight, 1)?, strongest(site.weight, 0)?);
        let cut = |x: &Tensor| x.f_index_select(0, &rows)?.f_index_select(1, &columns);
        let statistics = Statistics {
            gradient: None,
            inputs: site.statistics.inputs.as_ref().map(|x| x.f_index_select(1, &columns)).transpose()?,
            residual: match &site.statistics.residual {
                Some(Residual { weight, scale }) => {
                    Some(Residual { weight: cut(weight)?, scale: scale.f_index_select(0, &columns)? })
                }
                None => None,
            },
        };
        let part = Site { weight: &cut(site.weight)?, statistics: &statistics, ..*site };
        let Some(low_rank) = LowRank::attach(&part, spec, path)? else { return Ok(None) };
        Ok(Some(Box::new(Structured { low_rank, rows, columns, shape: [m, n] })))
    }
}

/// The half of the slices whose weights have the largest squares, summed over `axis`; ascending.
fn strongest(weight: &Tensor, axis: i64) -> Result<Tensor, TorchError> {
    let energy = weight.f_square()?.f_sum_dim_intlist([axis].as_slice(), false, weight.kind())?;
    let half = (energy.numel() as i64 + 1) / 2;
    Ok(energy.f_topk(half, 0, true, false)?.1.f_sort(0, false)?.0)
}
