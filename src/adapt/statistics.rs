use std::collections::BTreeMap;

use margay_core::{Mask, NodeId};
use tch::{Kind, Tensor};

use crate::calibrate::{Hessian, hessians};
use crate::torch::{TorchError, TorchModel, stream};

/// What an adapter may want to know of a layer, collected only if it asks.
#[derive(Debug, Default)]
pub struct Statistics {
    /// Mean squared (or mean) gradient of the weight in force `[m, n]`.
    pub gradient: Option<Tensor>,
    /// Right singular vectors of the layer's inputs `[k, n]`, orthonormal, largest first.
    pub inputs: Option<Tensor>,
    /// What pruning took away.
    pub residual: Option<Residual>,
}

/// `W − W0` of a pruned layer, and how strongly its inputs use each column.
#[derive(Debug)]
pub struct Residual {
    /// Dense minus sparse weight `[m, n]`.
    pub weight: Tensor,
    /// Root of the inputs' mean square `[n]`.
    pub scale: Tensor,
}

impl Residual {
    /// `B[m, r]`, `A[r, n]` with `scale · B A` the best approximation of the residual, its columns weighted
    /// (SLiM, arXiv 2410.09615).
    pub fn leading(&self, rank: i64, scale: f64) -> Result<[Tensor; 2], TorchError> {
        let weighted = self.weight.f_mul(&self.scale)?;
        let (left, values, right) = weighted.f_svd(true, true)?;
        let right = right.f_transpose(0, 1)?;
        let root = values.f_narrow(0, 0, rank)?.f_div_scalar(scale)?.f_sqrt()?;
        let b = left.f_narrow(1, 0, rank)?.f_mul(&root)?;
        let a = right.f_narrow(0, 0, rank)?.f_mul(&root.f_unsqueeze(1)?)?.f_div(&self.scale)?;
        Ok([b, a])
    }
}

/// Rounds of subspace iteration; each multiplies the error by the ratio of neighbouring eigenvalues.
const ROUNDS: usize = 8;

/// Principal components of each layer's inputs, as many as its rank.
pub(super) fn principal_inputs(
    model: &TorchModel,
    batches: &[Tensor],
    ranks: &BTreeMap<NodeId, usize>,
) -> Result<BTreeMap<NodeId, Tensor>, TorchError> {
    let mut components = BTreeMap::new();
    visit(model, batches, ranks, |id, hessian, rank| {
        components.insert(id, leading(hessian, rank)?);
        Ok(())
    })?;
    Ok(components)
}

/// What pruning took from each layer that has a mask.
pub(super) fn residuals(
    model: &TorchModel,
    dense: &TorchModel,
    masks: &BTreeMap<String, Mask>,
    batches: &[Tensor],
    ranks: &BTreeMap<NodeId, usize>,
) -> Result<BTreeMap<NodeId, Residual>, TorchError> {
    let mut residuals = BTreeMap::new();
    visit(model, batches, ranks, |id, hessian, _| {
        let name = model.graph.node(id).weight();
        if masks.contains_key(&name) {
            let weight = dense.get(&name)?.f_sub(&model.get(&name)?)?.f_flatten(1, -1)?;
            let scale = hessian.scale()?;
            residuals.insert(id, Residual { weight, scale });
        }
        Ok(())
    })?;
    Ok(residuals)
}

fn visit(
    model: &TorchModel,
    batches: &[Tensor],
    ranks: &BTreeMap<NodeId, usize>,
    mut see: impl FnMut(NodeId, &Hessian, usize) -> Result<(), TorchError>,
) -> Result<(), TorchError> {
    stream(&mut model.deep_clone()?, batches, |id, inputs, model| match ranks.get(&id) {
        Some(&rank) if rank > 0 => {
            // Groups read different channels but share the factor: the first stands for all.
            let hessian = hessians(model.graph.node(id), inputs)?.swap_remove(0);
            see(id, &hessian, rank)
        }
        _ => Ok::<(), TorchError>(()),
    })?;
    Ok(())
}

/// Leading eigenvectors `[rank, n]` of a Hessian by subspace iteration from fixed random directions.
fn leading(hessian: &Hessian, rank: usize) -> Result<Tensor, TorchError> {
    let h = hessian.matrix()?;
    let (n, _) = h.size2()?;
    let wide = (2 * rank as i64 + 4).min(n);
    let mut basis = Tensor::f_randn([n, wide], (Kind::Float, h.device()))?;
    for _ in 0..ROUNDS {
        basis = Tensor::f_linalg_qr(&h.f_matmul(&basis)?, "reduced")?.0;
    }
    let small = basis.f_transpose(0, 1)?.f_matmul(&h)?.f_matmul(&basis)?;
    let (_, vectors) = small.f_linalg_eigh("L")?;
    let sorted = basis.f_matmul(&vectors.f_flip([1])?)?;
    Ok(sorted.f_narrow(1, 0, (rank as i64).min(wide))?.f_transpose(0, 1)?.f_contiguous()?)
}
