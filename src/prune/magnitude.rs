use super::{LayerProblem, LayerSolution, SolveError, Solver};
use crate::torch::top_k_mask;

/// Keeps the largest weights of the layer and changes none: the baseline that needs no data.
#[derive(Clone, Copy, Debug)]
pub struct Magnitude;

impl Solver for Magnitude {
    fn name(&self) -> &'static str {
        "magnitude"
    }

    fn about(&self) -> &'static str {
        "largest weights stay, values unchanged (baseline)"
    }

    fn solve(&self, problem: &LayerProblem) -> Result<LayerSolution, SolveError> {
        let mask = top_k_mask(&problem.weight.f_abs()?, problem.keep)?;
        Ok(LayerSolution { weight: problem.weight.f_mul(&mask)?, mask })
    }
}
