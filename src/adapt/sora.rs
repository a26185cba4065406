use tch::Tensor;
use tch::nn::{Init, Path};

use super::{Adapter, Cost, Delta, LOW_RANK, LowRank, Site, Split};
use crate::recipe::AdaptSpec;
use crate::torch::TorchError;

/// `ΔW = (α / r) B diag(g / g_0) A` with gates `g[r]`.
///
/// The penalty `λ ‖g‖₁` is a proximal step after each step down the loss, which makes gates exactly zero:
/// `g ← sign(g) max(|g| − η λ, 0)`.
struct Gated {
    low_rank: LowRank,
    gates: Tensor,
    /// `g_0`.
    open: f64,
    /// `η λ` at the first step.
    pull: f64,
}

impl Gated {
    /// `B diag(g / g_0)`.
    fn gated(&self) -> Result<Tensor, TorchError> {
        Ok(self.low_rank.b().f_mul(&self.gates.f_div_scalar(self.open)?)?)
    }
}

impl Delta for Gated {
    fn delta(&self, _base: &Tensor) -> Result<Tensor, TorchError> {
        self.low_rank.delta_with(&self.gated()?)
    }

    fn factors(&self) -> Result<Option<[Tensor; 2]>, TorchError> {
        Ok(Some(self.low_rank.factors_with(&self.gated()?)?))
    }

    fn after_step(&mut self, step: usize, total: usize) -> Result<(), TorchError> {
        let _no_grad = tch::no_grad_guard();
        let pull = self.pull * (1.0 - step as f64 / total.max(1) as f64);
        let size = self.gates.f_abs()?.f_sub_scalar(pull)?.f_clamp_min(0.0)?;
        self.gates.f_copy_(&self.gates.f_sign()?.f_mul(&size)?)?;
        Ok(())
    }
}

/// Low-rank adaptation that finds its ranks (SoRA, arXiv 2311.11696).
pub struct Sora;

impl Adapter for Sora {
    fn name(&self) -> &'static str {
        "sora"
    }

    fn about(&self) -> &'static str {
        "low-rank with gates that close: M ⊙ (W0 + B diag(g) A)"
    }

    fn split(&self, _spec: &AdaptSpec) -> Split {
        Split { low_rank: 1.0, sparse: 0.0 }
    }

    fn cost(&self, [m, n]: [usize; 2]) -> Cost {
        Cost { fixed: 0, per_rank: m + n + 1 }
    }

    fn attach(
        &self,
        site: &Site,
        spec: &AdaptSpec,
        path: &Path,
    ) -> Result<Option<Box<dyn Delta>>, TorchError> {
        let Some(low_rank) = LowRank::attach(site, spec, path)? else { return Ok(None) };
        let rank = low_rank.b().size2()?.1;
        let gates = path.set_group(LOW_RANK).f_var("gates", &[rank], Init::Const(spec.sora.open))?;
        Ok(Some(Box::new(Gated {
            low_rank,
            gates,
            open: spec.sora.open,
            pull: spec.sora.pull * spec.lora_lr,
        })))
    }
}
