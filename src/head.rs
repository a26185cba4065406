//! Heads for the user's classes: rows of the pretrained classifier, or a ridge probe.

use margay_core::{Graph, Node, NodeId, Params};
use ndarray::Axis;
use tch::{Device, Kind, Tensor};

use crate::distill::Examples;
use crate::torch::{Norms, TorchError, TorchModel, forward};

/// Why a head cannot be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HeadError {
    /// The graph has no classifier layer.
    #[error("the network has no linear classifier to replace")]
    NoHead,
    /// The executor failed.
    #[error(transparent)]
    Torch(#[from] TorchError),
}

impl From<tch::TchError> for HeadError {
    fn from(error: tch::TchError) -> Self {
        Self::Torch(error.into())
    }
}

/// Keeps the given outputs of the network, in the given order; those of a group are joined (`log Σ exp`).
///
/// Outputs that are joined already come with all their rows.
pub fn slice(graph: &mut Graph, params: &mut Params, groups: &[Vec<usize>]) -> Result<(), HeadError> {
    let members = members(graph);
    let groups: Vec<Vec<usize>> = groups
        .iter()
        .map(|group| group.iter().flat_map(|output| members[*output].clone()).collect())
        .collect();
    let rows = groups.concat();
    for head in heads(graph)? {
        for spec in head.params() {
            let value = params.get(&spec.name).map_err(TorchError::from)?.select(Axis(0), &rows);
            params.insert(spec.name, value);
        }
    }
    graph.set_classes(rows.len());
    graph.join_outputs(&groups.iter().map(Vec::len).collect::<Vec<_>>());
    Ok(())
}

/// Rows of the classifier behind each output.
fn members(graph: &Graph) -> Vec<std::ops::Range<usize>> {
    let sizes = graph.joined().map_or_else(|| vec![1; graph.classes()], <[usize]>::to_vec);
    let mut start = 0;
    let member = |size: usize| {
        start += size;
        start - size..start
    };
    sizes.into_iter().map(member).collect()
}

fn heads(graph: &Graph) -> Result<Vec<Node>, HeadError> {
    let heads: Vec<Node> = graph.heads().into_iter().map(|id| graph.node(id).clone()).collect();
    if heads.is_empty() { Err(HeadError::NoHead) } else { Ok(heads) }
}

/// Candidate ridges, relative to the mean eigenvalue of the features' Gram matrix.
const RIDGES: [f64; 13] = [1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0];

/// Fits a new classifier for `classes` classes on pooled features, in closed form.
///
/// Ridge regression on one-hot targets; the ridge is the one with the least leave-one-out error, and the
/// scores are scaled so that their softmax has the least leave-one-out cross-entropy.
pub fn probe(
    graph: &mut Graph,
    params: &mut Params,
    examples: &Examples,
    classes: usize,
) -> Result<(), HeadError> {
    let _no_grad = tch::no_grad_guard();
    for head in heads(graph)? {
        fit(graph, params, examples, classes, &head)?;
    }
    graph.set_classes(classes);
    Ok(())
}

/// Logits `[n, classes]` that a probe gives each example when it is fitted on the others.
pub fn left_out(
    graph: &Graph,
    params: &Params,
    examples: &Examples,
    classes: usize,
) -> Result<Tensor, HeadError> {
    let _no_grad = tch::no_grad_guard();
    let head = heads(graph)?.swap_remove(0);
    let problem = Problem::new(graph, params, examples, classes, &head)?;
    let fit = problem.best_ridge()?;
    Ok(fit.left_out.f_mul_scalar(fit.scale)?.f_to_device(examples.classes.device())?)
}

/// Fits one classifier layer on the features that it reads.
fn fit(
    graph: &Graph,
    params: &mut Params,
    examples: &Examples,
    classes: usize,
    head: &Node,
) -> Result<(), HeadError> {
    let problem = Problem::new(graph, params, examples, classes, head)?;
    let fit = problem.best_ridge()?;
    let Problem { centred, mean, share, .. } = &problem;
    let weight =
        centred.f_transpose(0, 1)?.f_matmul(&fit.dual)?.f_transpose(0, 1)?.f_mul_scalar(fit.scale)?;
    let bias = share.f_mul_scalar(fit.scale)?.f_sub(&mean.f_matmul(&weight.f_transpose(0, 1)?)?)?;
    params.insert(head.weight(), crate::torch::to_array(&weight)?);
    params.insert(head.bias(), crate::torch::to_array(&bias.f_flatten(0, -1)?)?);
    Ok(())
}

fn features(
    graph: &Graph,
    params: &Params,
    examples: &Examples,
    pooled: NodeId,
) -> Result<Tensor, HeadError> {
    let model = TorchModel::new(graph.clone(), params, examples.images.device())?;
    let run = |batch: Tensor| -> Result<Tensor, HeadError> {
        let out = forward(&model.graph, &model, Norms::Stored, &batch, &[pooled])?;
        Ok(out.kept[0].f_to_device(Device::Cpu)?)
    };
    let parts: Vec<Tensor> = examples.batches(64)?.into_iter().map(run).collect::<Result<_, HeadError>>()?;
    Ok(Tensor::f_cat(&parts, 0)?)
}

/// Features and one-hot targets of a probe.
struct Problem {
    /// Features without their mean `[n, features]`.
    centred: Tensor,
    /// Mean of the features `[1, features]`.
    mean: Tensor,
    /// Share of each class `[1, classes]`.
    share: Tensor,
    /// One-hot targets without the shares `[n, classes]`.
    targets: Tensor,
    /// Class of each example `[n]`.
    truth: Tensor,
}

struct Ridge {
    /// Dual coefficients `[n, classes]`.
    dual: Tensor,
    /// Scores of each example by the others `[n, classes]`.
    left_out: Tensor,
    /// Factor from scores to logits.
    scale: f64,
}

impl Problem {
    fn new(
        graph: &Graph,
        params: &Params,
        examples: &Examples,
        classes: usize,
        head: &Node,
    ) -> Result<Self, HeadError> {
        let features = features(graph, params, examples, head.inputs[0])?;
        Self::of(&features.f_to_kind(Kind::Double)?, examples.classes.f_to_device(Device::Cpu)?, classes)
    }

    /// The problem of features `[n, features]` with classes `[n]`.
    fn of(features: &Tensor, truth: Tensor, classes: usize) -> Result<Self, HeadError> {
        let mean = features.f_mean_dim([0_i64].as_slice(), true, Kind::Double)?;
        let centred = features.f_sub(&mean)?;
        let one_hot = truth.f_one_hot(classes as i64)?.f_to_kind(Kind::Double)?;
        let share = one_hot.f_mean_dim([0_i64].as_slice(), true, Kind::Double)?;
        let targets = one_hot.f_sub(&share)?;
        Ok(Self { centred, mean, share, targets, truth })
    }

    /// The ridge with the least cross-entropy of what is left out.
    fn best_ridge(&self) -> Result<Ridge, HeadError> {
        let kernel = self.centred.f_matmul(&self.centred.f_transpose(0, 1)?)?;
        let mean = kernel.f_diagonal(0, 0, 1)?.f_mean(Kind::Double)?.double_value(&[]).max(1e-12);
        let mut best: Option<(f64, Ridge)> = None;
        for ridge in RIDGES {
            let (dual, left_out) = self.solve(&kernel, ridge * mean)?;
            let (error, scale) = best_scale(&left_out, &self.truth)?;
            if best.as_ref().is_none_or(|(least, _)| error < *least) {
                best = Some((error, Ridge { dual, left_out, scale }));
            }
        }
        best.map(|(_, ridge)| ridge).ok_or(HeadError::NoHead)
    }

    /// Kernel ridge with `K = F Fᵀ` of centred features: dual coefficients, and what each example is answered
    /// by a fit on the others.
    ///
    /// Residuals of the left-out are `dual / (diag((K + λ I)⁻¹) − 1 / n λ)`: the intercept is fitted without a
    /// penalty, so its direction, which centring takes out of `K`, does not count.
    fn solve(&self, kernel: &Tensor, lambda: f64) -> Result<(Tensor, Tensor), HeadError> {
        let count = kernel.size()[0];
        let eye = Tensor::f_eye(count, (Kind::Double, Device::Cpu))?;
        let inverse = Tensor::f_linalg_inv(&kernel.f_add(&eye.f_mul_scalar(lambda)?)?)?;
        let dual = inverse.f_matmul(&self.targets)?;
        let leverage = inverse.f_diagonal(0, 0, 1)?.f_sub_scalar(1.0 / (count as f64 * lambda))?;
        let residual = dual.f_div(&leverage.f_unsqueeze(1)?)?;
        let left_out = self.targets.f_sub(&residual)?.f_add(&self.share)?;
        Ok((dual, left_out))
    }
}

/// Least cross-entropy of `softmax(scale · scores)` over a grid of scales, and its scale.
fn best_scale(scores: &Tensor, truth: &Tensor) -> Result<(f64, f64), HeadError> {
    let mut best = (f64::INFINITY, 1.0);
    for step in 0..=24 {
        let scale = 2_f64.powf(f64::from(step) / 3.0);
        let logits = scores.f_mul_scalar(scale)?;
        let none = None::<Tensor>;
        let error = logits.f_cross_entropy_loss(truth, none, tch::Reduction::Mean, -100, 0.0)?;
        let error = error.double_value(&[]);
        if error < best.0 {
            best = (error, scale);
        }
    }
    Ok(best)
}

#[cfg(test)]
mod tests {
    use margay_core::{GraphBuilder, Linear, Op, Role, Shape};
    use ndarray::{ArrayD, IxDyn};

    use super::*;

    /// Logits of the network for one image, on torch.
    fn logits(graph: &Graph, params: &Params, image: &Tensor) -> Vec<f64> {
        let model = TorchModel::new(graph.clone(), params, Device::Cpu).unwrap();
        let out = forward(&model.graph, &model, Norms::Stored, image, &[]).unwrap();
        Vec::try_from(out.logits.to_kind(Kind::Double).flatten(0, -1)).unwrap()
    }

    #[test]
    fn the_probability_of_a_joined_class_is_the_sum_of_its_members() {
        let (mut net, image) = GraphBuilder::new("tiny", Shape::map(3, 2, 2));
        let pooled = net.push("pool", Op::GlobalAvgPool, &[image]);
        net.role(Role::Head);
        let linear = Linear { in_features: 3, out_features: 5, bias: true };
        net.push("fc", Op::Linear(linear), &[pooled]);
        let graph = net.finish().unwrap();
        let mut params = Params::new();
        for spec in graph.params() {
            let values =
                (0..spec.shape.iter().product()).map(|i: usize| (i as f32 * 2.3).sin() * 3.0).collect();
            params.insert(spec.name, ArrayD::from_shape_vec(IxDyn(&spec.shape), values).unwrap());
        }
        let image = (Tensor::arange(12, (Kind::Float, Device::Cpu)) * 0.7).cos().reshape([1, 3, 2, 2]);
        let all: Vec<f64> = logits(&graph, &params, &image).into_iter().map(f64::exp).collect();
        let cut = |groups: &[Vec<usize>], from: (&Graph, &Params)| {
            let (mut graph, mut params) = (from.0.clone(), from.1.clone());
            slice(&mut graph, &mut params, groups).unwrap();
            assert_eq!(graph.classes(), groups.len());
            (graph, params)
        };
        let joined = cut(&[vec![4], vec![0, 2], vec![1]], (&graph, &params));
        let close = |graph: &Graph, params: &Params, expected: &[f64]| {
            let got: Vec<f64> = logits(graph, params, &image).into_iter().map(f64::exp).collect();
            let same = got.len() == expected.len()
                && got.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-4 * b);
            assert!(same, "{got:?} {expected:?}");
        };
        close(&joined.0, &joined.1, &[all[4], all[0] + all[2], all[1]]);
        // A joined class is one output to who slices again.
        let again = cut(&[vec![1], vec![0, 2]], (&joined.0, &joined.1));
        close(&again.0, &again.1, &[all[0] + all[2], all[4] + all[1]]);
        let single = cut(&[vec![2], vec![0]], (&joined.0, &joined.1));
        assert!(single.0.joined().is_none());
        close(&single.0, &single.1, &[all[1], all[4]]);
    }

    /// More features than examples, as few shots have: there the intercept matters most.
    #[test]
    fn what_is_left_out_is_answered_by_a_fit_on_the_others() {
        let (count, lambda) = (9_i64, 0.3);
        let features =
            (Tensor::arange(20 * count, (Kind::Double, Device::Cpu)) * 1.7).sin().reshape([count, 20]);
        let truth = Tensor::from_slice(&[0_i64, 1, 2, 0, 1, 2, 0, 0, 1]);
        let whole = Problem::of(&features, truth.shallow_clone(), 3).unwrap();
        let (_, left_out) = whole.solve(&whole.centred.matmul(&whole.centred.tr()), lambda).unwrap();
        for i in 0..count {
            let others: Vec<i64> = (0..count).filter(|j| *j != i).collect();
            let others = Tensor::from_slice(&others);
            let rest = features.index_select(0, &others);
            let rest = Problem::of(&rest, truth.index_select(0, &others), 3).unwrap();
            let (dual, _) = rest.solve(&rest.centred.matmul(&rest.centred.tr()), lambda).unwrap();
            let own = features.narrow(0, i, 1) - &rest.mean;
            let expected = own.matmul(&rest.centred.tr()).matmul(&dual) + &rest.share;
            let difference = (left_out.narrow(0, i, 1) - expected).abs().max().double_value(&[]);
            assert!(difference < 1e-9, "example {i}: {difference}");
        }
    }
}
