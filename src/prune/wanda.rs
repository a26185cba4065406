use tch::Tensor;

use super::support::largest;
use super::{LayerProblem, LayerSolution, SolveError, Solver};

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
        let mask = match problem.pattern.block() {
            [1, _] => by_row(&scores, problem)?,
            // Rows of a block cannot have shares of their own.
            _ => largest(&scores, problem.keep, problem.pattern)?,
        };
        Ok(LayerSolution { weight: problem.weight.f_mul(&mask)?, mask })
    }
}

/// The largest of each row.
fn by_row(scores: &Tensor, problem: &LayerProblem) -> Result<Tensor, SolveError> {
    let rows = scores.size()[0] as usize;
    let masks = (0..rows)
        .map(|row| {
            largest(&scores.f_narrow(0, row as i64, 1)?, quota(problem.keep, rows, row), problem.pattern)
        })
        .collect::<Result<Vec<Tensor>, _>>()?;
    Ok(Tensor::f_cat(&masks, 0)?)
}

/// Share of row `row` when `keep` weights are spread evenly over `rows`; the shares add up to `keep`.
pub(super) fn quota(keep: usize, rows: usize, row: usize) -> usize {
    keep * (row + 1) / rows - keep * row / rows
}
