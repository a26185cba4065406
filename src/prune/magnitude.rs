use super::support::largest;
use super::{LayerProblem, LayerSolution, SolveError, Solver};

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
        let mask = largest(problem.weight, problem.keep, problem.pattern)?;
        Ok(LayerSolution { weight: problem.weight.f_mul(&mask)?, mask })
    }
}
