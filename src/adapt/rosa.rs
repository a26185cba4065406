use tch::nn::Path;

use super::{Adapter, Delta, LowRank, Site, Sparse, Split, Sum};
use crate::recipe::{AdaptSpec, AdapterSchedule};
use crate::torch::TorchError;

/// Low-rank and sparse parts, trained together (RoSA, arXiv 2401.04679).
pub struct Rosa;

impl Adapter for Rosa {
    fn name(&self) -> &'static str {
        "rosa"
    }

    fn about(&self) -> &'static str {
        "low-rank + sparse, trained together: M ⊙ (W0 + BA + S)"
    }

    fn split(&self, spec: &AdaptSpec) -> Split {
        match spec.schedule {
            AdapterSchedule::WarmUp(_) => Split { low_rank: 0.5, sparse: 0.5 },
            AdapterSchedule::SparseOnly => Split { low_rank: 0.0, sparse: 1.0 },
            AdapterSchedule::LowRankOnly => Split { low_rank: 1.0, sparse: 0.0 },
        }
    }

    fn needs_gradient(&self) -> bool {
        true
    }

    fn attach(
        &self,
        site: &Site,
        spec: &AdaptSpec,
        path: &Path,
    ) -> Result<Option<Box<dyn Delta>>, TorchError> {
        let low_rank = LowRank::attach(site, spec, path)?.map(|part| Box::new(part) as Box<dyn Delta>);
        let sparse = Sparse::attach(site, path)?.map(|part| Box::new(part) as Box<dyn Delta>);
        let parts: Vec<_> = low_rank.into_iter().chain(sparse).collect();
        Ok(if parts.is_empty() { None } else { Some(Box::new(Sum(parts))) })
    }
}
