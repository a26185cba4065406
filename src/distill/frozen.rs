//! The start of a network that training leaves as it is.

use margay_core::Graph;
use tch::Tensor;

use super::Student;
use super::batch::Batch;
use super::memory::Memory;
use crate::torch::{Norms, TorchError, forward_part};

/// Bytes of outputs that are remembered at most.
const ROOM: usize = 1 << 30;

/// Number of nodes at the start of a graph that take at most this share of its multiply-adds and hand a single value to the
/// rest.
pub(crate) fn frozen_nodes(graph: &Graph, share: f64) -> usize {
    let macs = graph.macs().unwrap_or_else(|_| unreachable!("a model's graph was checked"));
    let limit = share * macs.iter().sum::<u64>() as f64;
    let up_to = macs.iter().scan(0, |sum, macs| {
        *sum += macs;
        Some(*sum as f64)
    });
    let cut = |(node, (sum, on_trunk)): (usize, (f64, bool))| (on_trunk && sum <= limit).then_some(node + 1);
    if share == 0.0 {
        return 0;
    }
    let cut = up_to.zip(graph.trunk()).enumerate().filter_map(cut).max();
    cut.expect("the node of the image is on the trunk and multiplies nothing")
}

/// The outputs of the frozen start, each computed once where the view that it belongs to has a number.
pub(super) struct Frozen {
    /// Number of nodes.
    pub nodes: usize,
    outputs: Memory,
}

impl Frozen {
    pub fn new(nodes: usize) -> Self {
        Self { nodes, outputs: Memory::new(ROOM) }
    }

    /// What the rest of the network reads: the images, or what the frozen start makes of them.
    pub fn pass(&self, student: &dyn Student, images: &Tensor, batch: &Batch) -> Result<Tensor, TorchError> {
        if self.nodes == 0 {
            return Ok(images.shallow_clone());
        }
        let _no_grad = tch::no_grad_guard();
        let pass = |images: &Tensor| {
            let (graph, part) = (student.graph(), 0..self.nodes);
            Ok(forward_part(graph, part, student, Norms::Stored, images, &[])?.0)
        };
        match &batch.numbers {
            Some(numbers) => self.outputs.recall(images, numbers, pass),
            None => pass(images),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use tch::{Device, Kind};

    use super::*;
    use crate::distill::{Examples, Training, train};
    use crate::models::{Design, build};
    use crate::pipeline::random_params;
    use crate::progress::Silent;
    use crate::recipe::RecoverySpec;
    use crate::torch::TorchModel;

    fn graph(variant: &str) -> Graph {
        let (variant, image) = (variant.to_owned(), [32, 32]);
        build(&Design { variant, width: None, depth: None, classes: 4, image }).unwrap()
    }

    #[test]
    fn the_frozen_start_hands_on_one_value_within_its_share() {
        for variant in ["resnet18", "vit_tiny_patch16", "convnext_atto", "efficientnetv2_s"] {
            let graph = graph(variant);
            let macs = graph.macs().unwrap();
            assert_eq!(frozen_nodes(&graph, 0.0), 0);
            let mut before = 0;
            for share in [0.2, 0.5, 0.9] {
                let nodes = frozen_nodes(&graph, share);
                assert!(nodes > before && nodes < graph.nodes().len(), "{variant}: {nodes} at {share}");
                let of_start = macs[..nodes].iter().sum::<u64>() as f64;
                assert!(of_start <= share * macs.iter().sum::<u64>() as f64, "{variant}: {share}");
                assert!(graph.trunk()[nodes - 1], "{variant}: {share}");
                before = nodes;
            }
        }
    }

    #[test]
    fn only_what_is_not_frozen_is_trained_with_and_without_memory() {
        let graph = graph("resnet18");
        let params = random_params(&graph, 3);
        let images =
            Tensor::arange(6 * 3 * 32 * 32, (Kind::Float, Device::Cpu)).sin().reshape([6, 3, 32, 32]);
        let examples = Examples::new(images, Tensor::from_slice(&[0_i64, 1, 2, 3, 0, 1]));
        let trained = |freeze: f64, recompute: bool| {
            let mut model = TorchModel::new(graph.clone(), &params, Device::Cpu).unwrap();
            let teacher = model.deep_clone().unwrap();
            let spec = RecoverySpec {
                epochs: 3,
                batch: 3,
                freeze,
                fixed_views: 2,
                recompute,
                ..RecoverySpec::default()
            };
            let training = Training {
                spec: &spec,
                teacher: Some(&teacher),
                norms: Norms::Stored,
                seed: 0,
                stage: "test",
                pace: 1.0,
            };
            train(&mut model, &BTreeMap::new(), &examples, &training, &mut Silent).unwrap();
            model.to_params().unwrap()
        };
        let frozen = frozen_nodes(&graph, 0.5);
        let [plain, again] = [false, true].map(|recompute| trained(0.5, recompute));
        for (at, node) in graph.nodes().iter().enumerate() {
            for spec in
                node.params().into_iter().filter(|spec| spec.role != margay_core::ParamRole::Statistic)
            {
                let [value, twice, start] = [&plain, &again, &params].map(|of| of.get(&spec.name).unwrap());
                assert_eq!(value != start, at >= frozen, "{}", spec.name);
                let gap = (value - twice).iter().fold(0.0_f32, |most, gap| most.max(gap.abs()));
                assert!(gap < 1e-4, "{}: {gap}", spec.name);
            }
        }
    }
}
