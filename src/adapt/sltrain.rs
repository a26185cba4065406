use rand::SeedableRng;
use rand::seq::index::sample;
use rand_chacha::ChaCha8Rng;
use tch::nn::Path;
use tch::{Kind, Tensor};

use super::{Adapter, Delta, LowRank, Site, Sparse, Split, Sum};
use crate::recipe::AdaptSpec;
use crate::torch::TorchError;

/// `ΔW = (α / r) B A + S`, the support of `S` drawn at random and fixed (SLTrain, arXiv 2406.02214).
///
/// The support is drawn among the kept weights. Values start at zero, not at random as in training from scratch.
pub struct SlTrain;

impl Adapter for SlTrain {
    fn name(&self) -> &'static str {
        "sltrain"
    }

    fn about(&self) -> &'static str {
        "low-rank + sparse on a random support: M ⊙ (W0 + BA + S)"
    }

    fn split(&self, _spec: &AdaptSpec) -> Split {
        Split { low_rank: 0.5, sparse: 0.5 }
    }

    fn attach(
        &self,
        site: &Site,
        spec: &AdaptSpec,
        path: &Path,
    ) -> Result<Option<Box<dyn Delta>>, TorchError> {
        let mut parts: Vec<Box<dyn Delta>> = Vec::new();
        if let Some(part) = LowRank::attach(site, spec, path)? {
            parts.push(Box::new(part));
        }
        let support = support(site)?;
        if support.numel() > 0 {
            parts.push(Box::new(Sparse::on(support, path)?));
        }
        Ok(if parts.is_empty() { None } else { Some(Box::new(Sum(parts))) })
    }
}

/// Random allowed positions `[k]` of the flat weight, ascending.
fn support(site: &Site) -> Result<Tensor, TorchError> {
    let room = match site.allowed {
        Some(allowed) => allowed.f_flatten(0, -1)?.f_nonzero()?.f_squeeze_dim(1)?,
        None => Tensor::f_arange(site.weight.numel() as i64, (Kind::Int64, site.weight.device()))?,
    };
    let mut rng = ChaCha8Rng::seed_from_u64(site.seed);
    let count = site.size.count.min(room.numel());
    let chosen: Vec<i64> = sample(&mut rng, room.numel(), count).iter().map(|i| i as i64).collect();
    let chosen = Tensor::f_from_slice(&chosen)?.f_to_device(room.device())?;
    Ok(room.f_index_select(0, &chosen.f_sort(0, false)?.0)?)
}
