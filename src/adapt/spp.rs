use tch::nn::{Init, Path};
use tch::{Kind, Tensor};

use super::lora::start;
use super::{Adapter, Cost, Delta, LOW_RANK, Site, Size, Split};
use crate::recipe::AdaptSpec;
use crate::torch::TorchError;

/// `ΔW = W0 ⊙ √n (α / r) rep(Wα) ⊙ wβ` with `Wα[r, n]` and `wβ[m, 1]`, which starts at zero.
///
/// `rep` repeats each row of `Wα` for `m / r` neighbouring rows of the weight; `√n` as in `scalelora`.
struct Repeated {
    alpha: Tensor,
    beta: Tensor,
    /// Row of `Wα` for each row of the weight `[m]`.
    rows: Tensor,
    scale: f64,
}

impl Delta for Repeated {
    fn delta(&self, base: &Tensor) -> Result<Tensor, TorchError> {
        let factors = self.alpha.f_index_select(0, &self.rows)?.f_mul(&self.beta)?;
        Ok(factors.f_mul_scalar(self.scale)?.f_mul(base)?)
    }
}

/// Sparsity-preserving factors of rows and columns (SPP, arXiv 2405.16057).
pub struct Spp;

impl Adapter for Spp {
    fn name(&self) -> &'static str {
        "spp"
    }

    fn about(&self) -> &'static str {
        "factors of rows and columns: W0 ⊙ (1 + rep(Wα) ⊙ wβ)"
    }

    fn split(&self, _spec: &AdaptSpec) -> Split {
        Split { low_rank: 1.0, sparse: 0.0 }
    }

    fn cost(&self, [m, n]: [usize; 2]) -> Cost {
        Cost { fixed: m, per_rank: n }
    }

    fn room(&self, [m, n]: [usize; 2]) -> Size {
        Size { rank: m.min(n), count: 0 }
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
        let [_, alpha] = start(site, spec, rank, scale, path.kind())?;
        let rows = Tensor::f_arange(m, (Kind::Int64, site.weight.device()))?;
        Ok(Some(Box::new(Repeated {
            alpha: path.f_var_copy("alpha", &alpha)?,
            beta: path.f_var("beta", &[m, 1], Init::Const(0.0))?,
            rows: rows.f_mul_scalar(rank)?.f_div_scalar_mode(m, "floor")?,
            scale: scale * (n as f64).sqrt(),
        })))
    }
}
