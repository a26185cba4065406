//! Where pruning broke a network: how far it has gone from the dense one after each block.

use margay_core::NodeId;
use tch::{Kind, Tensor};

use super::PipelineError;
use super::networks::Base;
use crate::data::stride;
use crate::distill::Examples;
use crate::record::BlockRecord;
use crate::torch::{Norms, Outputs, TorchError, TorchModel, forward, forward_part};

/// Photos of each kind that are looked at.
const LOOKED_AT: usize = 32;
/// Photos whose values are held at once.
const AT_A_TIME: i64 = 8;

/// How far a network that was pruned without the held-out fold is from the dense one after each block, before finetuning: on the
/// shots that it was pruned on, and on those held out. Where the second are far worse, pruning learnt its shots by heart.
pub fn damage(trial: &Base, heldout: &Examples) -> Result<Vec<BlockRecord>, PipelineError> {
    let graph = &trial.dense.graph;
    let trunk = graph.trunk();
    let blocks: Vec<NodeId> = graph.blocks().iter().copied().filter(|block| trunk[block.index()]).collect();
    let [shots, heldout] = [&trial.shots, heldout].map(|part| of_part(trial, &blocks, part));
    let (shots, heldout) = (shots?, heldout?);
    let record = |(at, block): (usize, &NodeId)| BlockRecord {
        name: without_last(&graph.node(*block).name).to_owned(),
        error: [shots[at].error(), heldout[at].error()],
        divergence: [shots[at].divergence(), heldout[at].divergence()],
    };
    Ok(blocks.iter().enumerate().map(record).collect())
}

/// The name of a node's block.
fn without_last(name: &str) -> &str {
    name.rsplit_once('.').map_or(name, |(block, _)| block)
}

/// Sums over photos, of one block.
#[derive(Clone, Copy, Default)]
struct Sums {
    lost: f64,
    energy: f64,
    divergence: f64,
    photos: f64,
}

impl Sums {
    fn error(self) -> f64 {
        self.lost / self.energy.max(f64::MIN_POSITIVE)
    }

    fn divergence(self) -> f64 {
        self.divergence / self.photos
    }
}

fn of_part(trial: &Base, blocks: &[NodeId], part: &Examples) -> Result<Vec<Sums>, TorchError> {
    let _no_grad = tch::no_grad_guard();
    let Base { dense, oneshot, .. } = trial;
    let mut sums = vec![Sums::default(); blocks.len()];
    let some: Vec<i64> = (0..part.len() as i64).step_by(stride(part.len(), LOOKED_AT)).collect();
    for images in part.select(&some)?.images.f_split(AT_A_TIME, 0)? {
        let run = |model: &TorchModel| forward(&model.graph, model, Norms::Stored, &images, blocks);
        let (whole, pruned) = (run(dense)?, run(oneshot)?);
        for (at, sums) in sums.iter_mut().enumerate() {
            add(sums, dense, blocks[at], &whole, [&whole.kept[at], &pruned.kept[at]])?;
        }
    }
    Ok(sums)
}

/// Adds what a block makes of some photos, pruned up to there, and what the rest of the dense network answers.
fn add(
    sums: &mut Sums,
    dense: &TorchModel,
    block: NodeId,
    whole: &Outputs,
    [wanted, got]: [&Tensor; 2],
) -> Result<(), TorchError> {
    let sum = |x: &Tensor| Ok::<_, TorchError>(x.f_sum(Kind::Double)?.double_value(&[]));
    let rest = block.index() + 1..dense.graph.nodes().len();
    let (logits, _) = forward_part(&dense.graph, rest, dense, Norms::Stored, got, &[])?;
    let log = |logits: &Tensor| logits.f_log_softmax(1, Kind::Double);
    let target = log(&whole.logits)?;
    sums.lost += sum(&got.f_sub(wanted)?.f_square()?)?;
    sums.energy += sum(&wanted.f_square()?)?;
    sums.divergence += sum(&target.f_exp()?.f_mul(&target.f_sub(&log(&logits)?)?)?)?;
    sums.photos += wanted.size()[0] as f64;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use tch::Device;

    use super::*;
    use crate::models::{Design, build};
    use crate::pipeline::networks::{Chosen, Settled};
    use crate::pipeline::random_params;

    #[test]
    fn damage_begins_where_a_layer_was_changed() {
        for (variant, broken, last) in
            [("resnet18", "layer2.0.conv1", 7), ("vit_tiny_patch16", "blocks.5.mlp.fc1", 11)]
        {
            let image = [32, 32];
            let graph =
                build(&Design { variant: variant.into(), width: None, depth: None, classes: 4, image })
                    .unwrap();
            let dense = TorchModel::new(graph.clone(), &random_params(&graph, 3), Device::Cpu).unwrap();
            let mut oneshot = dense.deep_clone().unwrap();
            let name = format!("{broken}.weight");
            let gone = oneshot.get(&name).unwrap().zeros_like();
            oneshot.set(&name, &gone).unwrap();
            let images =
                Tensor::arange(10 * 3 * 32 * 32, (Kind::Float, Device::Cpu)).sin().reshape([10, 3, 32, 32]);
            let examples = Examples::new(images, Tensor::from_slice(&[0_i64; 10]));
            let settled = Settled { damping: 0.1, general_share: 0.0, recalibrated: 0.0 };
            let chosen = Chosen { settled, keep: BTreeMap::new(), choices: Vec::new(), pruned: None };
            let base = Base {
                dense,
                oneshot,
                masks: BTreeMap::new(),
                layers: Vec::new(),
                chosen,
                shots: examples.shallow_clone(),
                examples: examples.shallow_clone(),
                trial: None,
            };
            let blocks = damage(&base, &examples.select(&[0, 1, 2]).unwrap()).unwrap();
            assert_eq!(blocks.len(), last + 1, "{variant}");
            let begins = graph.blocks().iter().position(|block| {
                let at = |name: &str| graph.nodes().iter().position(|node| node.name == name).unwrap();
                block.index() > at(broken)
            });
            for (at, block) in blocks.iter().enumerate() {
                for kind in [block.error, block.divergence] {
                    assert!(kind.iter().all(|value| (*value > 0.0) == (at >= begins.unwrap())), "{block:?}");
                }
            }
            // Behind the last block nothing but the head is dense: its answers are those of the pruned network.
            let answers = |model: &TorchModel| {
                forward(&graph, model, Norms::Stored, &examples.images, &[])
                    .unwrap()
                    .logits
                    .log_softmax(1, Kind::Double)
            };
            let (whole, pruned) = (answers(&base.dense), answers(&base.oneshot));
            let mean = (whole.exp() * (&whole - pruned)).sum(Kind::Double).double_value(&[]) / 10.0;
            assert!((blocks[last].divergence[0] - mean).abs() < 1e-5 + 1e-3 * mean, "{mean} {blocks:?}");
        }
    }
}
