//! Norms after pruning: batch norms are measured anew, layer norms are brought back to the dense means.

use std::collections::BTreeMap;

use margay_core::{Node, NodeId, Op};
use tch::{Kind, Tensor};

use crate::torch::{Norms, TorchError, TorchModel, apply, rows, stream};

/// Recalibrates every norm on the images, layer by layer: each is measured on what its recalibrated
/// predecessors produce.
///
/// Batch norms get the images' statistics. Layer norms, which store none, get a bias that restores the
/// mean of each feature in the dense network (bias correction, arXiv 1906.04721). With a `share` below 1 they go
/// only so far.
pub fn recalibrate(
    model: &mut TorchModel,
    dense: &TorchModel,
    batches: &[Tensor],
    share: f64,
) -> Result<(), TorchError> {
    if share == 0.0 {
        return Ok(());
    }
    let targets = if model.graph.has_layer_norms() { layer_means(dense, batches)? } else { BTreeMap::new() };
    stream(model, batches, |id, inputs, model| {
        let node = model.graph.node(id).clone();
        match &node.op {
            Op::BatchNorm(_) => reestimate(model, &node, inputs, share),
            Op::LayerNorm(_) => match targets.get(&id) {
                Some(target) => correct(model, &node, inputs, target, share),
                None => Ok(()),
            },
            _ => Ok(()),
        }
    })?;
    Ok(())
}

fn reestimate(model: &mut TorchModel, node: &Node, inputs: &[Tensor], share: f64) -> Result<(), TorchError> {
    let (mean, var) = moments(inputs)?;
    for (statistic, fresh) in [("running_mean", mean), ("running_var", var)] {
        let name = format!("{}.{statistic}", node.name);
        let stored = model.get(&name)?.f_to_kind(Kind::Double)?;
        model.set(&name, &fresh.f_sub(&stored)?.f_mul_scalar(share)?.f_add(&stored)?)?;
    }
    Ok(())
}

fn correct(
    model: &mut TorchModel,
    node: &Node,
    inputs: &[Tensor],
    target: &Tensor,
    share: f64,
) -> Result<(), TorchError> {
    let shift = target.f_sub(&mean_output(model, node, inputs)?)?.f_mul_scalar(share)?;
    let bias = model.get(&node.bias())?.f_to_kind(Kind::Double)?.f_add(&shift)?;
    model.set(&node.bias(), &bias)
}

/// Mean of each feature behind every layer norm.
fn layer_means(dense: &TorchModel, batches: &[Tensor]) -> Result<BTreeMap<NodeId, Tensor>, TorchError> {
    let mut means = BTreeMap::new();
    stream(&mut dense.deep_clone()?, batches, |id, inputs, model| {
        let node = model.graph.node(id).clone();
        if let Op::LayerNorm(_) = node.op {
            means.insert(id, mean_output(model, &node, inputs)?);
        }
        Ok::<(), TorchError>(())
    })?;
    Ok(means)
}

fn mean_output(model: &TorchModel, node: &Node, inputs: &[Tensor]) -> Result<Tensor, TorchError> {
    let outputs = inputs.iter().map(|batch| apply(node, model, Norms::Stored, &[batch]));
    Ok(moments(&outputs.collect::<Result<Vec<_>, _>>()?)?.0)
}

/// Mean and unbiased variance of each feature over all batches and positions, summed in f64.
fn moments(batches: &[Tensor]) -> Result<(Tensor, Tensor), TorchError> {
    let rows: Vec<Tensor> = batches.iter().map(rows).collect::<Result<_, _>>()?;
    let sum = |power: &dyn Fn(&Tensor) -> Result<Tensor, tch::TchError>| -> Result<Tensor, TorchError> {
        let mut total: Option<Tensor> = None;
        for rows in &rows {
            let part = power(rows)?.f_sum_dim_intlist([0_i64].as_slice(), false, Kind::Double)?;
            total = Some(match total {
                Some(total) => total.f_add(&part)?,
                None => part,
            });
        }
        Ok(total.unwrap_or_else(|| Tensor::from_slice(&[0.0_f64])))
    };
    let count: i64 = rows.iter().map(|rows| rows.size()[0]).sum();
    let mean = sum(&|x| Ok(x.shallow_clone()))?.f_div_scalar(count.max(1) as f64)?;
    let squares = sum(&|x| x.f_to_kind(Kind::Double)?.f_sub(&mean)?.f_square())?;
    Ok((mean, squares.f_div_scalar((count - 1).max(1) as f64)?))
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;
    use crate::models::{Design, build};
    use crate::pipeline::random_params;

    #[test]
    fn means_behind_layer_norms_are_the_dense_ones_again() {
        let variant = "vit_tiny_patch16".to_owned();
        let design = Design { variant, width: Some(64), depth: Some(2), classes: 3, image: [32, 32] };
        let graph = build(&design).unwrap();
        let dense = TorchModel::new(graph.clone(), &random_params(&graph, 1), Device::Cpu).unwrap();
        let mut model = dense.deep_clone().unwrap();
        for id in graph.prunable() {
            let name = graph.node(id).weight();
            let weight = model.get(&name).unwrap().clamp_min(0.0);
            model.set(&name, &weight).unwrap();
        }
        let images = [Tensor::rand([5, 3, 32, 32], (Kind::Float, Device::Cpu))];
        let wanted = layer_means(&dense, &images).unwrap();
        let gap = |model: &TorchModel| -> f64 {
            let means = layer_means(model, &images).unwrap();
            let gaps = wanted.iter().map(|(id, mean)| (mean - &means[id]).abs().max().double_value(&[]));
            gaps.fold(0.0, f64::max)
        };
        assert_eq!(wanted.len(), 5);
        assert!(gap(&model) > 0.1, "the weights were changed: {}", gap(&model));
        recalibrate(&mut model, &dense, &images, 1.0).unwrap();
        assert!(gap(&model) < 1e-4, "{}", gap(&model));
    }
}
