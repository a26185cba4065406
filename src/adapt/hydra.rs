use tch::Tensor;
use tch::nn::Path;

use super::{Adapter, Cost, Delta, LowRank, Site, Split, Statistics};
use crate::recipe::AdaptSpec;
use crate::torch::TorchError;

/// `ΔW = (α / r) (B_p A_p + B_s A_s W0)`, `Δb = (α / r) B_s A_s b0`, with `A_p[r, n]`, `A_s[r, m]`, `B[m, r]`.
///
/// The first branch reads what the layer reads, the second what it answers. In a grouped convolution the
/// second mixes the kernels of all groups as if they read the same channels.
struct TwoHeads {
    parallel: LowRank,
    sequential: LowRank,
    /// `W0[m, n]`.
    weight: Tensor,
}

impl Delta for TwoHeads {
    fn delta(&self, base: &Tensor) -> Result<Tensor, TorchError> {
        let behind = self.sequential.delta(base)?.f_matmul(base)?;
        Ok(self.parallel.delta(base)?.f_add(&behind)?)
    }

    fn bias_delta(&self, bias: &Tensor) -> Result<Option<Tensor>, TorchError> {
        Ok(Some(self.sequential.delta(bias)?.f_mv(bias)?))
    }

    fn factors(&self) -> Result<Option<[Tensor; 2]>, TorchError> {
        let [b, a] = self.parallel.factors_with(self.parallel.b())?;
        let [up, down] = self.sequential.factors_with(self.sequential.b())?;
        let down = down.f_matmul(&self.weight)?;
        Ok(Some([Tensor::f_cat(&[b, up], 1)?, Tensor::f_cat(&[a, down], 0)?]))
    }
}

/// Parallel and sequential low-rank branches (Hydra, arXiv 2309.06922). Initialisers start the parallel one.
pub struct Hydra;

impl Adapter for Hydra {
    fn name(&self) -> &'static str {
        "hydra"
    }

    fn about(&self) -> &'static str {
        "low-rank on inputs and outputs: M ⊙ (W0 + BA + B'A'W0), bias too"
    }

    fn split(&self, _spec: &AdaptSpec) -> Split {
        Split { low_rank: 1.0, sparse: 0.0 }
    }

    fn cost(&self, [m, n]: [usize; 2]) -> Cost {
        Cost { fixed: 0, per_rank: (m + n) + (m + m) }
    }

    fn attach(
        &self,
        site: &Site,
        spec: &AdaptSpec,
        path: &Path,
    ) -> Result<Option<Box<dyn Delta>>, TorchError> {
        let answers = Site {
            weight: &site.weight.f_matmul(&site.weight.f_transpose(0, 1)?)?,
            statistics: &Statistics::default(),
            ..*site
        };
        let parallel = LowRank::attach(site, spec, &(path / "parallel"))?;
        let sequential = LowRank::attach(&answers, spec, &(path / "sequential"))?;
        let (Some(parallel), Some(sequential)) = (parallel, sequential) else { return Ok(None) };
        Ok(Some(Box::new(TwoHeads { parallel, sequential, weight: site.weight.shallow_clone() })))
    }
}
