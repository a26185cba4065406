use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Normal};
use tch::Tensor;
use tch::nn::{Init, Path};

use super::{Adapter, Delta, SPARSE, Site, Size, Split};
use crate::recipe::AdaptSpec;
use crate::torch::TorchError;

/// Most coefficients of a factor: its random matrices are in memory while it trains.
const BASES: usize = 64;

/// A factor `F_0 + Σ c_i F_i` of random `F[rows, columns]` that the layer's seed gives again at any time.
struct Mixture {
    /// `F_0 [rows, columns]`, or nothing.
    first: Option<Tensor>,
    /// `F_i [k, rows · columns]`.
    bases: Tensor,
    /// `c [k]`, zero at the start.
    coefficients: Tensor,
    shape: [i64; 2],
}

impl Mixture {
    fn value(&self) -> Result<Tensor, TorchError> {
        let mixed = self.coefficients.f_unsqueeze(0)?.f_matmul(&self.bases)?.f_reshape(self.shape)?;
        Ok(match &self.first {
            Some(first) => first.f_add(&mixed)?,
            None => mixed,
        })
    }
}

/// `ΔW = (α / r) B A` with `A = A_0 + Σ α_i A_i` and `B = Σ β_j B_j`: only `α` and `β` are trained.
///
/// One of the matrices of `A` needs no coefficient, since `B A` does not change if a factor moves from `A` to `B`.
struct Mixed {
    a: Mixture,
    b: Mixture,
    scale: f64,
}

impl Delta for Mixed {
    fn delta(&self, _base: &Tensor) -> Result<Tensor, TorchError> {
        Ok(self.b.value()?.f_matmul(&self.a.value()?)?.f_mul_scalar(self.scale)?)
    }

    fn factors(&self) -> Result<Option<[Tensor; 2]>, TorchError> {
        Ok(Some([self.b.value()?.f_mul_scalar(self.scale)?, self.a.value()?]))
    }
}

/// Random bases of low-rank factors, mixed by trained coefficients (NOLA, arXiv 2310.02556).
///
/// For tiny budgets: a layer has at most 128 parameters, whatever its size. The rank is that of the recipe.
pub struct Nola;

impl Adapter for Nola {
    fn name(&self) -> &'static str {
        "nola"
    }

    fn about(&self) -> &'static str {
        "mixtures of random low-rank factors, for tiny budgets: M ⊙ (W0 + (Σ βB)(Σ αA))"
    }

    fn split(&self, _spec: &AdaptSpec) -> Split {
        Split { low_rank: 0.0, sparse: 1.0 }
    }

    fn room(&self, [m, n]: [usize; 2]) -> Size {
        Size { rank: 0, count: (m * n).min(2 * BASES) }
    }

    fn attach(
        &self,
        site: &Site,
        spec: &AdaptSpec,
        path: &Path,
    ) -> Result<Option<Box<dyn Delta>>, TorchError> {
        let (m, n) = site.weight.size2()?;
        let rank = (spec.r as i64).min(m).min(n);
        let inner = site.size.count / 2;
        let outer = site.size.count - inner;
        if outer == 0 || rank == 0 {
            return Ok(None);
        }
        let mut rng = ChaCha8Rng::seed_from_u64(site.seed);
        // Entries that a step of the coefficients moves as far as LoRA's move by themselves.
        let deviation = 1.0 / (outer as f64).sqrt();
        let mut draw = |count: usize, shape: [i64; 2], deviation: f64| {
            random(&mut rng, [count as i64, shape[0] * shape[1]], deviation)?
                .f_to_kind(path.kind())?
                .f_to_device(path.device())
        };
        let first = draw(1, [rank, n], 1.0 / (n as f64).sqrt())?.f_reshape([rank, n])?;
        let (a, b) = (draw(inner, [rank, n], deviation)?, draw(outer, [m, rank], deviation)?);
        let path = path.set_group(SPARSE);
        let coefficients = |name: &str, count: usize| path.f_var(name, &[count as i64], Init::Const(0.0));
        let (alpha, beta) = (coefficients("alpha", inner)?, coefficients("beta", outer)?);
        Ok(Some(Box::new(Mixed {
            a: Mixture { first: Some(first), bases: a, coefficients: alpha, shape: [rank, n] },
            b: Mixture { first: None, bases: b, coefficients: beta, shape: [m, rank] },
            scale: spec.lora_alpha / spec.r as f64,
        })))
    }
}

/// Normal numbers of this deviation.
fn random(rng: &mut ChaCha8Rng, [rows, columns]: [i64; 2], deviation: f64) -> Result<Tensor, tch::TchError> {
    let normal = Normal::new(0.0, deviation).unwrap_or_else(|_| unreachable!("a finite deviation"));
    let values: Vec<f32> =
        normal.sample_iter(rng).take((rows * columns) as usize).map(|value: f64| value as f32).collect();
    Tensor::f_from_slice(&values)?.f_reshape([rows, columns])
}
