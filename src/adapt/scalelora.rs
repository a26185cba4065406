use tch::Tensor;
use tch::nn::Path;

use super::{Adapter, Delta, LowRank, Site, Split};
use crate::recipe::AdaptSpec;
use crate::torch::TorchError;

/// `ΔW = W0 ⊙ √n (α / r) B A`: kept weights are rescaled, pruned ones stay zero by themselves.
///
/// The entries of `A[r, n]` start with deviation `1 / √n`, which suits a sum over inputs; times `√n` a factor
/// changes as fast as a weight does in LoRA, relative to its size.
struct Rescaled(LowRank);

impl Delta for Rescaled {
    fn delta(&self, base: &Tensor) -> Result<Tensor, TorchError> {
        let root = (base.size2()?.1 as f64).sqrt();
        Ok(self.0.delta(base)?.f_mul_scalar(root)?.f_mul(base)?)
    }
}

/// Multiplicative low-rank adapter.
pub struct ScaleLora;

impl Adapter for ScaleLora {
    fn name(&self) -> &'static str {
        "scalelora"
    }

    fn about(&self) -> &'static str {
        "low-rank factors of each weight: W0 ⊙ (1 + BA)"
    }

    fn split(&self, _spec: &AdaptSpec) -> Split {
        Split { low_rank: 1.0, sparse: 0.0 }
    }

    fn attach(
        &self,
        site: &Site,
        spec: &AdaptSpec,
        path: &Path,
    ) -> Result<Option<Box<dyn Delta>>, TorchError> {
        Ok(LowRank::attach(site, spec, path)?.map(|part| Box::new(Rescaled(part)) as Box<dyn Delta>))
    }
}
