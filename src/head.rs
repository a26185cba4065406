//! Heads for the user's classes: rows of the pretrained classifier, or a ridge probe.

use margay_core::{Graph, Node, NodeId, Params};
use ndarray::Axis;
use tch::{Device, Kind, Tensor};

use crate::distill::{Examples, Groups};
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

/// Largest factor from scores to logits, and steps of the grid for each doubling.
///
/// Scores are regressed on 0 and 1: at this factor a score that is right makes logits that differ by as many nats, and one
/// that is wrong costs as many.
const LARGEST_SCALE: f64 = 32.0;
const STEPS_PER_DOUBLING: f64 = 3.0;

/// Fits a new classifier for `classes` classes on pooled features, in closed form.
///
/// Ridge regression on one-hot targets; the ridge is the one with the least leave-one-group-out error, and the
/// scores are scaled so that their softmax has the least leave-one-group-out cross-entropy. A group is what is nearly
/// the same photo ([`Groups`]): the twin of a photo would answer for it. The scale is bounded.
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

/// Logits `[n, classes]` that a probe gives each example when it is fitted on those of other groups.
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
    /// Examples of each group.
    groups: Vec<Vec<usize>>,
}

struct Ridge {
    /// Dual coefficients `[n, classes]`.
    dual: Tensor,
    /// Scores of each example by those of other groups `[n, classes]`.
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
        let features = features(graph, params, examples, head.inputs[0])?.f_to_kind(Kind::Double)?;
        let groups = Groups::of(examples)?.members();
        Self::of(&features, examples.classes.f_to_device(Device::Cpu)?, classes, groups)
    }

    /// The problem of features `[n, features]` with classes `[n]`, of which some belong together.
    fn of(
        features: &Tensor,
        truth: Tensor,
        classes: usize,
        groups: Vec<Vec<usize>>,
    ) -> Result<Self, HeadError> {
        let mean = features.f_mean_dim([0_i64].as_slice(), true, Kind::Double)?;
        let centred = features.f_sub(&mean)?;
        let one_hot = truth.f_one_hot(classes as i64)?.f_to_kind(Kind::Double)?;
        let share = one_hot.f_mean_dim([0_i64].as_slice(), true, Kind::Double)?;
        let targets = one_hot.f_sub(&share)?;
        Ok(Self { centred, mean, share, targets, truth, groups })
    }

    /// The ridge with the least cross-entropy of what is left out.
    fn best_ridge(&self) -> Result<Ridge, HeadError> {
        let kernel = self.centred.f_matmul(&self.centred.f_transpose(0, 1)?)?;
        let mean = kernel.f_diagonal(0, 0, 1)?.f_mean(Kind::Double)?.double_value(&[]).max(1e-12);
        let mut best: Option<(f64, Ridge)> = None;
        for ridge in RIDGES {
            let (dual, left_out) = self.solve(&kernel, ridge * mean)?;
            let (error, scale) = best_scale(&left_out, &self.truth, self.doubt())?;
            if best.as_ref().is_none_or(|(least, _)| error < *least) {
                best = Some((error, Ridge { dual, left_out, scale }));
            }
        }
        best.map(|(_, ridge)| ridge).ok_or(HeadError::NoHead)
    }

    /// What the groups leave room for, all of them answered right: the chance that the next is not (Laplace's rule of
    /// succession).
    fn doubt(&self) -> f64 {
        1.0 / (self.groups.len() as f64 + 2.0)
    }

    /// Kernel ridge with `K = F Fᵀ` of centred features: dual coefficients, and what each example is answered
    /// by a fit on the other groups.
    ///
    /// Residuals of a group `G` that is left out are `(A_GG − 1 1ᵀ / n λ)⁻¹ dual_G` with `A = (K + λ I)⁻¹`: the intercept
    /// is fitted without a penalty, so its direction, which centring takes out of `K`, does not count.
    fn solve(&self, kernel: &Tensor, lambda: f64) -> Result<(Tensor, Tensor), HeadError> {
        let count = kernel.size()[0];
        let eye = Tensor::f_eye(count, (Kind::Double, Device::Cpu))?;
        let inverse = Tensor::f_linalg_inv(&kernel.f_add(&eye.f_mul_scalar(lambda)?)?)?;
        let dual = inverse.f_matmul(&self.targets)?;
        let leverage = inverse.f_sub_scalar(1.0 / (count as f64 * lambda))?;
        let single = leverage.f_diagonal(0, 0, 1)?.f_unsqueeze(1)?;
        let mut residual = dual.f_div(&single)?;
        for group in self.groups.iter().filter(|group| group.len() > 1) {
            let at: Vec<i64> = group.iter().map(|at| *at as i64).collect();
            let at = Tensor::f_from_slice(&at)?;
            let block = leverage.f_index_select(0, &at)?.f_index_select(1, &at)?;
            let own = Tensor::f_linalg_solve(&block, &dual.f_index_select(0, &at)?, true)?;
            residual = residual.f_index_copy(0, &at, &own)?;
        }
        let left_out = self.targets.f_sub(&residual)?.f_add(&self.share)?;
        Ok((dual, left_out))
    }
}

/// Least cross-entropy of `softmax(scale · scores)` over a grid of scales, and its scale. What is sure beyond `doubt` costs:
/// without it, scores that are all right would take any scale.
fn best_scale(scores: &Tensor, truth: &Tensor, doubt: f64) -> Result<(f64, f64), HeadError> {
    let mut best = (f64::INFINITY, 1.0);
    let steps = (STEPS_PER_DOUBLING * LARGEST_SCALE.log2()) as i32;
    for step in 0..=steps {
        let scale = 2_f64.powf(f64::from(step) / STEPS_PER_DOUBLING);
        let logits = scores.f_mul_scalar(scale)?;
        let none = None::<Tensor>;
        let error = logits.f_cross_entropy_loss(truth, none, tch::Reduction::Mean, -100, doubt)?;
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

    fn kernel(problem: &Problem) -> Tensor {
        problem.centred.matmul(&problem.centred.tr())
    }

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
    fn what_is_left_out_is_answered_by_a_fit_on_the_other_groups() {
        let (count, lambda) = (9_i64, 0.3);
        let features =
            (Tensor::arange(20 * count, (Kind::Double, Device::Cpu)) * 1.7).sin().reshape([count, 20]);
        let truth = Tensor::from_slice(&[0_i64, 1, 2, 0, 1, 2, 0, 0, 1]);
        let single = |count: usize| (0..count).map(|at| vec![at]).collect::<Vec<_>>();
        let grouped = vec![vec![0, 3, 4], vec![1], vec![2, 7], vec![5], vec![6, 8]];
        for groups in [single(9), grouped] {
            let whole = Problem::of(&features, truth.shallow_clone(), 3, groups.clone()).unwrap();
            let (_, left_out) = whole.solve(&kernel(&whole), lambda).unwrap();
            for group in groups {
                let others: Vec<i64> = (0..count).filter(|at| !group.contains(&(*at as usize))).collect();
                let others = Tensor::from_slice(&others);
                let (rest, classes) = (features.index_select(0, &others), truth.index_select(0, &others));
                let left = others.numel();
                let rest = Problem::of(&rest, classes, 3, single(left)).unwrap();
                let (dual, _) = rest.solve(&kernel(&rest), lambda).unwrap();
                for at in group {
                    let own = features.narrow(0, at as i64, 1) - &rest.mean;
                    let expected = own.matmul(&rest.centred.tr()).matmul(&dual) + &rest.share;
                    let difference =
                        (left_out.narrow(0, at as i64, 1) - expected).abs().max().double_value(&[]);
                    assert!(difference < 1e-9, "example {at}: {difference}");
                }
            }
        }
    }

    /// Each photo's twin answers for it, however little there is to learn: noise is learnt by heart.
    #[test]
    fn twins_do_not_answer_for_each_other() {
        let (scenes, width) = (8_i64, 40_i64);
        tch::manual_seed(1);
        let scene = Tensor::randn([scenes, width], (Kind::Double, Device::Cpu));
        let frames = |of: &Tensor| {
            of.repeat([2, 1]) + Tensor::randn([2 * scenes, width], (Kind::Double, Device::Cpu)) * 0.01
        };
        let truth = Tensor::from_slice(&[0_i64, 1, 0, 1, 0, 1, 0, 1]).repeat([2]);
        let twins = (0..scenes as usize).map(|at| vec![at, at + scenes as usize]).collect();
        let single = (0..2 * scenes as usize).map(|at| vec![at]).collect();
        let [grouped, alone] = [twins, single].map(|groups| {
            Problem::of(&frames(&scene), truth.shallow_clone(), 2, groups).unwrap().best_ridge().unwrap()
        });
        let loss = |ridge: &Ridge| {
            let logits = &ridge.left_out * ridge.scale;
            logits.cross_entropy_for_logits(&truth).double_value(&[])
        };
        assert!(alone.scale >= 4.0 && loss(&alone) < 0.2, "{} {}", alone.scale, loss(&alone));
        assert!(grouped.scale < 2.0 && loss(&grouped) > 0.5, "{} {}", grouped.scale, loss(&grouped));
    }

    #[test]
    fn scores_that_are_all_right_do_not_make_any_scale() {
        let truth = Tensor::from_slice(&[0_i64, 1, 0, 1]);
        let right = Tensor::from_slice2(&[[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0]]);
        let scale = |scores: &Tensor, doubt| best_scale(scores, &truth, doubt).unwrap().1;
        assert!((scale(&right, 1.0 / 6.0) - 2.5).abs() < 0.3, "ln 11 = 2.4: {}", scale(&right, 1.0 / 6.0));
        assert_eq!(scale(&(&right * 1e-3), 1e-9), LARGEST_SCALE);
    }
}
