use tch::{Kind, Tensor};

use super::support::largest;
use super::{LayerProblem, LayerSolution, SolveError, Solver, refit};
use crate::torch::Spectrum;

/// ALPS (arXiv 2406.07831): ADMM between the unconstrained least-squares solution and the k-sparse set,
/// then an exact refit on the support it settles on.
///
/// With columns scaled so that `H` has a unit diagonal, and `G = W H`:
/// ```text
/// repeat: B ← (G − V + ρ D)(H + ρ I)⁻¹     in the eigenbasis of H, or by the inverse
///         D ← top-k(B + V / ρ)             over the whole layer, of the pattern
///         V ← V + ρ (B − D)
///         every 3 rounds: raise ρ, by how much of the support still changes
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Alps;

const MAX_ROUNDS: usize = 300;
const MIN_ROUNDS: usize = 30;
const CHECK_EVERY: usize = 3;
const FIRST_PENALTY: f64 = 0.1;
/// The support has settled when less than this share of it changes between checks.
const SETTLED: f64 = 3e-4;

impl Solver for Alps {
    fn name(&self) -> &'static str {
        "alps"
    }

    fn about(&self) -> &'static str {
        "ADMM on the whole layer, then exact least squares on its support (most accurate)"
    }

    fn solve(&self, problem: &LayerProblem) -> Result<LayerSolution, SolveError> {
        let Scaled { weight, hessian, scale } = Scaled::new(problem)?;
        let mask = if problem.keep >= weight.numel() {
            weight.f_ones_like()?.f_to_kind(Kind::Bool)?
        } else {
            support(&weight, &weight.f_matmul(&hessian)?, problem)?
        };
        let weight = refit(&weight, &hessian, &mask)?.f_div(&scale)?;
        Ok(LayerSolution { weight, mask })
    }
}

/// A layer with columns of like power: `W D` and `D⁻¹ H D⁻¹ + damping I`.
pub(super) struct Scaled {
    pub weight: Tensor,
    pub hessian: Tensor,
    /// The diagonal of `D`.
    pub scale: Tensor,
}

impl Scaled {
    pub fn new(problem: &LayerProblem) -> Result<Self, SolveError> {
        let scale = problem.hessian.scale()?;
        let weight = problem.weight.f_mul(&scale)?;
        let size = weight.size2()?.1;
        let ridge = Tensor::f_eye(size, (Kind::Float, weight.device()))?.f_mul_scalar(problem.damping)?;
        let hessian = problem.hessian.scaled()?.f_add(&ridge)?;
        Ok(Self { weight, hessian, scale })
    }
}

fn support(weight: &Tensor, target: &Tensor, problem: &LayerProblem) -> Result<Tensor, SolveError> {
    let keep = problem.keep;
    let spectrum = problem.hessian.spectrum()?;
    let mut penalty = FIRST_PENALTY;
    let mut inverse = Inverse::new(spectrum, weight.size()[0], penalty + problem.damping)?;
    let mut sparse = weight.f_detach_copy()?;
    let mut dual = weight.f_zeros_like()?;
    let mut mask = largest(weight, keep, problem.pattern)?;
    for round in 1..=MAX_ROUNDS {
        let right = target.f_sub(&dual)?.f_add(&sparse.f_mul_scalar(penalty)?)?;
        let free = inverse.apply(&right)?;
        let candidate = free.f_add(&dual.f_div_scalar(penalty)?)?;
        let next = largest(&candidate, keep, problem.pattern)?;
        sparse = candidate.f_mul(&next)?;
        dual = dual.f_add(&free.f_sub(&sparse)?.f_mul_scalar(penalty)?)?;
        if round % CHECK_EVERY == 0 {
            let changed = next.f_logical_xor(&mask)?.f_sum(Kind::Int64)?.int64_value(&[]) as f64;
            let change = changed / keep.max(1) as f64;
            mask = next;
            if round >= MIN_ROUNDS && change < SETTLED {
                break;
            }
            penalty *= growth(change);
            inverse = Inverse::new(spectrum, weight.size()[0], penalty + problem.damping)?;
        }
    }
    Ok(mask)
}

/// `(H + ridge I)⁻¹`, in whichever form is cheaper to apply for as long as the ridge stays.
enum Inverse<'a> {
    Eigenbasis(&'a Spectrum, f64),
    Whole(Tensor),
}

impl<'a> Inverse<'a> {
    fn new(spectrum: &'a Spectrum, rows: i64, ridge: f64) -> Result<Self, SolveError> {
        let (columns, rank) = spectrum.vectors.size2()?;
        // Multiply-adds: to form it and apply it, against two products with the eigenvectors each time.
        let rounds = CHECK_EVERY as i64;
        let whole = rank * columns * columns + rounds * rows * columns * columns;
        let eigenbasis = rounds * 2 * rows * columns * rank;
        Ok(if whole < eigenbasis {
            Self::Whole(spectrum.inverse(ridge)?)
        } else {
            Self::Eigenbasis(spectrum, ridge)
        })
    }

    fn apply(&self, right: &Tensor) -> Result<Tensor, SolveError> {
        Ok(match self {
            Self::Eigenbasis(spectrum, ridge) => spectrum.solve(right, *ridge)?,
            Self::Whole(inverse) => right.f_matmul(inverse)?,
        })
    }
}

fn growth(change: f64) -> f64 {
    if change > 0.1 {
        1.3
    } else if change > 0.005 {
        1.2
    } else {
        1.1
    }
}
