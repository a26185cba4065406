//! Laws on whole networks.

use margay_core::branch::{can_branch, with_branches};
use margay_core::fold;

use super::*;
use crate::distill::{Examples, Stepper, Training, fit};
use crate::progress::Silent;
use crate::recipe::{AdapterSchedule, Policy, RecoverySpec};
use crate::torch::{Bits, to_array};

/// Two classes that differ in brightness.
fn examples(side: i64) -> Examples {
    let classes = Tensor::from_slice(&[0_i64, 1, 0, 1, 0, 1, 0, 1, 0, 1]);
    let shift = (classes.to_kind(Kind::Float) - 0.5).reshape([10, 1, 1, 1]);
    Examples::new(normal(&[10, 3, side, side], 50) * 0.3 + shift, classes)
}

fn side(graph: &Graph) -> i64 {
    match graph.input {
        Shape::Map { height, .. } => height as i64,
        _ => unreachable!("networks read images"),
    }
}

fn spec(adapter: &dyn Adapter, policy: Policy, init: AdapterInit) -> AdaptSpec {
    AdaptSpec {
        method: adapter.name().to_owned(),
        policy,
        init,
        r: 2,
        d: 0.05,
        schedule: AdapterSchedule::WarmUp(1),
        ..AdaptSpec::default()
    }
}

fn adapted(pruned: &Pruned, adapter: &dyn Adapter, spec: &AdaptSpec, epochs: usize) -> Merged {
    let recovery = RecoverySpec { epochs, batch: 5, cross_entropy: Some(1.0), ..RecoverySpec::default() };
    let examples = examples(side(&pruned.base.graph));
    let problem = Problem {
        base: &pruned.base,
        masks: &pruned.masks,
        teacher: Some(&pruned.dense),
        examples: &examples,
        recovery: &recovery,
        spec,
        seed: 1,
        pace: 1.0,
    };
    adapt(&problem, adapter, &mut Silent).unwrap()
}

#[test]
fn no_step_changes_no_answer() {
    for (name, graph) in networks() {
        let pruned = Pruned::new(&graph);
        let images = examples(side(&graph)).images;
        let before = logits(&graph, &pruned.base, &images);
        for adapter in ADAPTERS {
            for init in INITS {
                let merged = adapted(&pruned, *adapter, &spec(*adapter, Policy::Keep, init), 0);
                let gap = largest(&(logits(&graph, &merged.model, &images) - &before));
                assert!(gap <= 1e-6 * largest(&before), "{name} {} {init:?}: {gap}", adapter.name());
            }
        }
    }
}

#[test]
fn trained_weights_stay_on_their_masks() {
    for (name, graph) in networks() {
        let pruned = Pruned::new(&graph);
        for adapter in ADAPTERS {
            for policy in [Policy::Keep, Policy::Grow, Policy::Branch] {
                let merged = adapted(&pruned, *adapter, &spec(*adapter, policy, AdapterInit::Default), 1);
                for (weight, before) in &pruned.masks {
                    let context = format!("{name} {} {policy:?} {weight}", adapter.name());
                    let mask = &merged.masks[weight];
                    assert_eq!(mask.count(), before.count(), "{context}");
                    assert!(policy == Policy::Grow || mask == before, "{context}");
                    let value = to_array(&merged.model.get(weight).unwrap()).unwrap();
                    let off = value.iter().zip(mask.iter()).filter(|(_, kept)| !kept);
                    assert!(off.into_iter().all(|(value, _)| *value == 0.0), "{context}");
                }
            }
        }
    }
}

#[test]
fn grown_positions_are_used() {
    let graph = grouped();
    let pruned = Pruned::new(&graph);
    for adapter in [&SparseOnly as &dyn Adapter, &Rosa] {
        let merged = adapted(&pruned, adapter, &spec(adapter, Policy::Grow, AdapterInit::Default), 2);
        let moved = pruned.masks.iter().filter(|(name, mask)| merged.masks[*name] != **mask).count();
        assert!(moved > 0, "{}", adapter.name());
    }
}

#[test]
fn training_moves_the_adapter_and_lowers_the_loss() {
    let graph = grouped();
    let pruned = Pruned::new(&graph);
    let examples = examples(side(&graph));
    let loss = |model: &TorchModel| {
        let logits = logits(&model.graph, model, &examples.images);
        logits.cross_entropy_for_logits(&examples.classes).double_value(&[])
    };
    for adapter in ADAPTERS {
        let spec = spec(*adapter, Policy::Keep, AdapterInit::Default);
        let merged = adapted(&pruned, *adapter, &spec, 8);
        let (before, after) = (loss(&pruned.base), loss(&merged.model));
        assert!(after < before, "{}: {before} {after}", adapter.name());
        let moved = pruned
            .masks
            .keys()
            .any(|name| !merged.model.get(name).unwrap().equal(&pruned.base.get(name).unwrap()));
        assert_eq!(moved, adapter.name() != "head", "{}", adapter.name());
    }
}

/// A network whose adapters hold arbitrary values.
fn stirred<'a>(pruned: &'a Pruned, adapter: &dyn Adapter, policy: Policy, store: &VarStore) -> Adapted<'a> {
    let spec = spec(adapter, policy, AdapterInit::Default);
    let graph = &pruned.base.graph;
    let mut adapted = Adapted::new(&pruned.base, &pruned.masks).unwrap();
    for (id, size) in sizes(graph, adapter, &spec) {
        let node = graph.node(id);
        let weight = pruned.base.get(&node.weight()).unwrap().flatten(1, -1);
        let mask = weight.ne(0.0);
        let statistics = Statistics { gradient: Some(normal(&weight.size(), 60)), ..Statistics::default() };
        let site = Site {
            weight: &weight,
            allowed: Some(&mask),
            size,
            statistics: &statistics,
            seed: id.index() as u64,
        };
        let path = store.root() / node.name.replace('.', "/");
        if let Some(delta) = adapter.attach(&site, &spec, &path).unwrap() {
            adapted.attach(&node.name, delta, policy == Policy::Branch && can_branch(&node.op));
        }
    }
    stir(store, 0.05, 70);
    adapted
}

/// The model with the adapters merged.
fn merged(adapted: &Adapted) -> TorchModel {
    let mut model = adapted.base().deep_clone().unwrap();
    for spec in adapted.base().graph.params() {
        model.set(&spec.name, &adapted.merged(&spec.name).unwrap()).unwrap();
    }
    model
}

fn assert_same(context: &str, a: &Tensor, b: &Tensor) {
    let gap = largest(&(a - b));
    assert!(gap <= 1e-5 * largest(a).max(1.0), "{context}: {gap}");
}

#[test]
fn merged_networks_answer_as_adapted_ones() {
    for (name, graph) in networks() {
        let pruned = Pruned::new(&graph);
        let images = examples(side(&graph)).images;
        let base = logits(&graph, &pruned.base, &images);
        for adapter in with_parts() {
            let store = VarStore::new(Device::Cpu);
            let adapted = stirred(&pruned, adapter, Policy::Keep, &store);
            let expected = logits(&graph, &adapted, &images);
            let context = format!("{name} {}", adapter.name());
            assert!(largest(&(&expected - &base)) > 1e-3, "{context}: the adapter does something");
            assert_same(&context, &expected, &logits(&graph, &merged(&adapted), &images));
        }
    }
}

#[test]
fn branches_answer_as_the_adapted_network_also_when_norms_are_folded() {
    for (name, graph) in networks() {
        let pruned = Pruned::new(&graph);
        let images = examples(side(&graph)).images;
        for adapter in with_parts() {
            let store = VarStore::new(Device::Cpu);
            let adapted = stirred(&pruned, adapter, Policy::Branch, &store);
            let expected = logits(&graph, &adapted, &images);
            let mut factors = BTreeMap::new();
            for id in graph.prunable().filter(|id| adapted.has_branch(&graph.node(*id).weight())) {
                let node = graph.node(id);
                let [b, a] = adapted.delta(&node.weight()).unwrap().factors().unwrap().unwrap();
                factors.insert(node.name.clone(), [to_array(&b).unwrap(), to_array(&a).unwrap()]);
            }
            let products = !["sparse", "scalelora", "spp", "snell"].contains(&adapter.name());
            assert_eq!(products, !factors.is_empty(), "{name} {}", adapter.name());
            let params = merged(&adapted).to_params().unwrap();
            let (branched, params) = with_branches(&graph, &params, &factors).unwrap();
            let context = format!("{name} {}", adapter.name());
            let model = TorchModel::new(branched.clone(), &params, Device::Cpu).unwrap();
            assert_same(&context, &expected, &logits(&branched, &model, &images));
            let (folded, params) = fold::all(&branched, &params).unwrap();
            let model = TorchModel::new(folded.clone(), &params, Device::Cpu).unwrap();
            assert_same(&format!("{context} folded"), &expected, &logits(&folded, &model, &images));
        }
    }
}

#[test]
fn what_was_trained_on_a_packed_base_is_added_to_the_exact_one() {
    for (name, graph) in networks() {
        let pruned = Pruned::new(&graph);
        for bits in [Bits::Eight, Bits::Four] {
            let mut base = pruned.base.share().unwrap();
            base.pack(&pruned.masks, bits).unwrap();
            let packed = Pruned { dense: pruned.dense.share().unwrap(), base, masks: pruned.masks.clone() };
            let spec = spec(&Rosa, Policy::Keep, AdapterInit::Default);
            let mut merged = adapted(&packed, &Rosa, &spec, 1);
            merged.rebase(&packed.base, &pruned.base).unwrap();
            for (weight, change) in &merged.adapter.layers {
                let exact = pruned.base.get(weight).unwrap().flatten(1, -1);
                let rounding = largest(&(packed.base.get(weight).unwrap().flatten(1, -1) - &exact));
                assert!(rounding > 0.0, "{name} {bits:?} {weight}");
                let ([b, a], [at, values]) =
                    (change.factors.as_ref().unwrap(), change.entries.as_ref().unwrap());
                let entries = exact.zeros_like().flatten(0, -1).scatter(0, at, values);
                let sum = &exact + b.matmul(a) + entries.reshape(exact.size());
                let expected = sum * exact.ne(0.0);
                let got = merged.model.get(weight).unwrap().flatten(1, -1);
                assert_same(&format!("{name} {bits:?} {weight}"), &expected, &got);
            }
        }
    }
}

/// The variables of an adapter after a step of plain gradient descent from where they are in `start`.
fn stepped(
    pruned: &Pruned,
    adapter: &dyn Adapter,
    start: &VarStore,
    recompute: bool,
) -> BTreeMap<String, Tensor> {
    let recovery = RecoverySpec { batch: 10, cross_entropy: Some(1.0), recompute, ..RecoverySpec::default() };
    let training = Training {
        spec: &recovery,
        teacher: Some(&pruned.dense),
        norms: Norms::Stored,
        seed: 3,
        stage: "test",
        pace: 1.0,
    };
    let mut store = VarStore::new(Device::Cpu);
    let mut adapted = stirred(pruned, adapter, Policy::Keep, &store);
    store.copy(start).unwrap();
    if recompute {
        adapted.sample(1.0).unwrap();
    }
    let optimizer = Stepper::new(nn::Sgd::default().build(&store, 0.01).unwrap(), &store, &[0.01; 4]);
    let examples = examples(side(&pruned.base.graph));
    fit(&mut adapted, optimizer, &examples, &training, Some(1), &mut Silent).unwrap();
    store.variables().into_iter().map(|(name, value)| (name, value.detach())).collect()
}

#[test]
fn gradients_are_the_same_when_activations_are_computed_anew_and_gradients_sampled() {
    for (name, graph) in networks() {
        let pruned = Pruned::new(&graph);
        for adapter in with_parts() {
            let start = VarStore::new(Device::Cpu);
            stirred(&pruned, adapter, Policy::Keep, &start);
            let [held, anew] = [false, true].map(|recompute| stepped(&pruned, adapter, &start, recompute));
            let before = start.variables();
            for (variable, held) in &held {
                let context = format!("{name} {} {variable}", adapter.name());
                let moved = largest(&(held - &before[variable]));
                assert!(moved > 0.0, "{context}");
                let gap = largest(&(held - &anew[variable]));
                assert!(gap <= 1e-3 * moved + 1e-7, "{context}: {gap} of {moved}");
            }
        }
    }
}
