use tch::nn::{Init, Path};
use tch::{Kind, Tensor};

use super::{Adapter, Delta, SPARSE, Site, Split};
use crate::recipe::AdaptSpec;
use crate::torch::TorchError;

/// `ΔW` with trainable values on a fixed support, zero at the start.
pub struct Sparse {
    /// Positions in the flat weight `[k]`.
    positions: Tensor,
    values: Tensor,
}

impl Sparse {
    /// On the allowed positions with the largest statistic; nothing where none may be taken.
    pub fn attach(site: &Site, path: &Path) -> Result<Option<Self>, TorchError> {
        let mut scores = match &site.statistics.gradient {
            Some(gradient) => gradient.f_abs()?.f_flatten(0, -1)?,
            None => site.weight.f_abs()?.f_flatten(0, -1)?,
        };
        let mut room = scores.numel();
        if let Some(allowed) = site.allowed {
            scores = scores.f_masked_fill(&allowed.f_flatten(0, -1)?.f_logical_not()?, f64::NEG_INFINITY)?;
            room = allowed.f_sum(Kind::Int64)?.int64_value(&[]) as usize;
        }
        let count = site.size.count.min(room);
        if count == 0 {
            return Ok(None);
        }
        let (_, positions) = scores.f_topk(count as i64, 0, true, false)?;
        Ok(Some(Self::on(positions.f_sort(0, false)?.0, path)?))
    }

    /// On these positions `[k]` of the flat weight.
    pub fn on(positions: Tensor, path: &Path) -> Result<Self, TorchError> {
        let values = path.set_group(SPARSE).f_var("values", &positions.size(), Init::Const(0.0))?;
        Ok(Self { positions, values })
    }
}

impl Delta for Sparse {
    fn delta(&self, base: &Tensor) -> Result<Tensor, TorchError> {
        let flat = Tensor::f_zeros([base.numel() as i64], (base.kind(), base.device()))?;
        Ok(flat.f_scatter(0, &self.positions, &self.values)?.f_reshape(base.size())?)
    }

    fn entries(&self) -> Option<[Tensor; 2]> {
        Some([self.positions.shallow_clone(), self.values.shallow_clone()])
    }

    fn support(&self) -> Option<Tensor> {
        Some(self.positions.shallow_clone())
    }
}

/// Only the sparse part of RoSA (as in FISH Mask, arXiv 2111.09839).
pub struct SparseOnly;

impl Adapter for SparseOnly {
    fn name(&self) -> &'static str {
        "sparse"
    }

    fn about(&self) -> &'static str {
        "values on the support with the largest gradients"
    }

    fn split(&self, _spec: &AdaptSpec) -> Split {
        Split { low_rank: 0.0, sparse: 1.0 }
    }

    fn needs_gradient(&self) -> bool {
        true
    }

    fn attach(
        &self,
        site: &Site,
        _spec: &AdaptSpec,
        path: &Path,
    ) -> Result<Option<Box<dyn Delta>>, TorchError> {
        Ok(Sparse::attach(site, path)?.map(|part| Box::new(part) as Box<dyn Delta>))
    }
}
