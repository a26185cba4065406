use tch::Tensor;

use crate::torch::TorchError;

/// A trainable change of one layer. Its variables live in the store it was attached to.
pub trait Delta {
    /// `ΔW[m, n]` for the base `W0[m, n]`.
    fn delta(&self, base: &Tensor) -> Result<Tensor, TorchError>;

    /// Change of the layer's bias `b0[m]`, which is zero where the layer has none.
    fn bias_delta(&self, _bias: &Tensor) -> Result<Option<Tensor>, TorchError> {
        Ok(None)
    }

    /// Factors `B[m, r]`, `A[r, n]` of the part of `ΔW` that can run as a branch of its own.
    fn factors(&self) -> Result<Option<[Tensor; 2]>, TorchError> {
        Ok(None)
    }

    /// Positions `[k]` of the sparse part in the flat weight, and its values `[k]`.
    fn entries(&self) -> Option<[Tensor; 2]> {
        None
    }

    /// Positions `[k]` in the flat weight, ascending, outside of which `ΔW` is always zero, if there are fewer than all.
    fn support(&self) -> Option<Tensor> {
        None
    }

    /// Added to the loss.
    fn penalty(&self) -> Result<Option<Tensor>, TorchError> {
        Ok(None)
    }

    /// Called when gradients are there.
    fn before_step(&mut self) -> Result<(), TorchError> {
        Ok(())
    }

    /// Called when step `step` of `total` is taken.
    fn after_step(&mut self, _step: usize, _total: usize) -> Result<(), TorchError> {
        Ok(())
    }
}

/// The sum of deltas.
pub struct Sum(pub Vec<Box<dyn Delta>>);

impl Delta for Sum {
    fn delta(&self, base: &Tensor) -> Result<Tensor, TorchError> {
        let parts = self.0.iter().map(|part| part.delta(base)).collect::<Result<Vec<_>, _>>()?;
        total(parts).map_or_else(|| Ok(base.f_zeros_like()?), Ok)
    }

    fn bias_delta(&self, bias: &Tensor) -> Result<Option<Tensor>, TorchError> {
        let parts = self.0.iter().filter_map(|part| part.bias_delta(bias).transpose());
        Ok(total(parts.collect::<Result<Vec<_>, _>>()?))
    }

    fn factors(&self) -> Result<Option<[Tensor; 2]>, TorchError> {
        self.0.iter().find_map(|part| part.factors().transpose()).transpose()
    }

    fn entries(&self) -> Option<[Tensor; 2]> {
        self.0.iter().find_map(|part| part.entries())
    }

    fn penalty(&self) -> Result<Option<Tensor>, TorchError> {
        let parts = self.0.iter().filter_map(|part| part.penalty().transpose());
        Ok(total(parts.collect::<Result<Vec<_>, _>>()?))
    }

    fn before_step(&mut self) -> Result<(), TorchError> {
        self.0.iter_mut().try_for_each(|part| part.before_step())
    }

    fn after_step(&mut self, step: usize, total: usize) -> Result<(), TorchError> {
        self.0.iter_mut().try_for_each(|part| part.after_step(step, total))
    }
}

fn total(parts: Vec<Tensor>) -> Option<Tensor> {
    parts.into_iter().reduce(|a, b| a + b)
}
