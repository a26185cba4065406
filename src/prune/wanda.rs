use tch::Tensor;

use super::{LayerProblem, LayerSolution, SolveError, Solver};
use crate::torch::top_k_mask;

/// Wanda (arXiv 2306.11695): keeps the largest |W|·‖x‖ of each output row, values unchanged.
#[derive(Clone, Copy, Debug)]
pub struct Wanda;

impl Solver for Wanda {
    fn name(&self) -> &'static str {
        "wanda"
    }

    fn about(&self) -> &'static str {
        "largest |weight| x input norm of each row stay, values unchanged"
    }

    fn solve(&self, problem: &LayerProblem) -> Result<LayerSolution, SolveError> {
        let scores = problem.weight.f_abs()?.f_mul(&problem.hessian.diagonal()?.f_sqrt()?)?;
        let rows = scores.size()[0] as usize;
        let masks = (0..rows)
            .map(|row| top_k_mask(&scores.f_get(row as i64)?, quota(problem.keep, rows, row)))
            .collect::<Result<Vec<Tensor>, _>>()?;
        let mask = Tensor::f_stack(&masks, 0)?;
        Ok(LayerSolution { weight: problem.weight.f_mul(&mask)?, mask })
    }
}

/// Share of row `row` when `keep` weights are spread evenly over `rows`; the shares add up to `keep`.
pub(super) fn quota(keep: usize, rows: usize, row: usize) -> usize {
    keep * (row + 1) / rows - keep * row / rows
}
