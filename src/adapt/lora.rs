use tch::nn::Path;
use tch::{Kind, Tensor};

use super::{Adapter, Delta, LOW_RANK, Site, Split};
use crate::recipe::{AdaptSpec, AdapterInit, Policy};
use crate::torch::TorchError;

/// `ΔW = (α / r) B A` with `A[r, n]`, `B[m, r]`.
pub struct LowRank {
    a: Tensor,
    b: Tensor,
    scale: f64,
    /// `B` and `A` before the first step, where their product is not zero and does not count.
    start: Option<[Tensor; 2]>,
}

impl LowRank {
    /// Of the site's rank, started as the recipe says; nothing where the rank is zero.
    ///
    /// The scale is `lora_alpha / r` of the recipe, whatever the rank of this layer.
    pub fn attach(site: &Site, spec: &AdaptSpec, path: &Path) -> Result<Option<Self>, TorchError> {
        let (m, n) = site.weight.size2()?;
        let rank = (site.size.rank as i64).min(m).min(n);
        if rank == 0 {
            return Ok(None);
        }
        let scale = spec.lora_alpha / spec.r as f64;
        let path = path.set_group(LOW_RANK);
        let [b, a] = start(site, spec, rank, scale, path.kind())?;
        let (a, b) = (path.f_var_copy("lora_A", &a)?, path.f_var_copy("lora_B", &b)?);
        // A branch may start with what pruning took; under a mask that would change nothing but the weights.
        let counts = spec.init != AdapterInit::Residual || spec.policy == Policy::Branch;
        let start = if counts {
            None
        } else {
            Some([b.f_detach()?.f_detach_copy()?, a.f_detach()?.f_detach_copy()?])
        };
        Ok(Some(Self { a, b, scale, start }))
    }
}

impl LowRank {
    pub(super) fn b(&self) -> &Tensor {
        &self.b
    }

    /// `ΔW` with another `B` in the place of its own.
    pub(super) fn delta_with(&self, b: &Tensor) -> Result<Tensor, TorchError> {
        let product = b.f_matmul(&self.a)?;
        let change = match &self.start {
            Some([b, a]) => product.f_sub(&b.f_matmul(a)?)?,
            None => product,
        };
        Ok(change.f_mul_scalar(self.scale)?)
    }

    /// Its factors with another `B` in the place of its own, scale included.
    pub(super) fn factors_with(&self, b: &Tensor) -> Result<[Tensor; 2], TorchError> {
        let scaled = b.f_mul_scalar(self.scale)?;
        Ok(match &self.start {
            // A difference of two products is one product of twice the rank.
            Some([b, a]) => [
                Tensor::f_cat(&[&scaled, &b.f_mul_scalar(-self.scale)?], 1)?,
                Tensor::f_cat(&[&self.a, a], 0)?,
            ],
            None => [scaled, self.a.shallow_clone()],
        })
    }
}

/// `B[m, r]` and `A[r, n]` before the first step, as the recipe says; `scale` is what their product is
/// multiplied with.
pub(super) fn start(
    site: &Site,
    spec: &AdaptSpec,
    rank: i64,
    scale: f64,
    kind: Kind,
) -> Result<[Tensor; 2], TorchError> {
    let (m, n) = site.weight.size2()?;
    let options = (kind, site.weight.device());
    let zero = || Tensor::f_zeros([m, rank], options);
    Ok(match (spec.init, &site.statistics.inputs, &site.statistics.residual) {
        (AdapterInit::Eva, Some(inputs), _) => [zero()?, inputs.f_narrow(0, 0, rank)?],
        (AdapterInit::Residual, _, Some(residual)) => residual.leading(rank, scale)?,
        _ => {
            let bound = 1.0 / (n as f64).sqrt();
            [zero()?, Tensor::f_empty([rank, n], options)?.f_uniform_(-bound, bound)?]
        }
    })
}

impl Delta for LowRank {
    fn delta(&self, _base: &Tensor) -> Result<Tensor, TorchError> {
        self.delta_with(&self.b)
    }

    fn factors(&self) -> Result<Option<[Tensor; 2]>, TorchError> {
        Ok(Some(self.factors_with(&self.b)?))
    }
}

/// Low-rank adaptation (LoRA, arXiv 2106.09685). With the mask in the forward pass, as here, it is MaskLoRA.
pub struct Lora;

impl Adapter for Lora {
    fn name(&self) -> &'static str {
        "lora"
    }

    fn about(&self) -> &'static str {
        "low-rank: M ⊙ (W0 + BA)"
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
        Ok(LowRank::attach(site, spec, path)?.map(|part| Box::new(part) as Box<dyn Delta>))
    }
}
