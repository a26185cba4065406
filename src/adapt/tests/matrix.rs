//! Laws on one matrix, in f64.

use super::*;

/// A layer of 12 × 20 weights, of which a third is kept.
struct Layer {
    weight: Tensor,
    mask: Tensor,
    statistics: Statistics,
    size: Size,
}

impl Layer {
    fn new() -> Self {
        let double = |shape: &[i64], seed: u64| normal(shape, seed).to_kind(Kind::Double);
        let dense = double(&[12, 20], 1);
        let mask = top_k_mask(&double(&[12, 20], 2).abs(), 80).unwrap();
        let weight = &dense * &mask;
        let (inputs, _) = Tensor::linalg_qr(&double(&[20, 5], 3), "reduced");
        let statistics = Statistics {
            gradient: Some(double(&[12, 20], 4)),
            inputs: Some(inputs.transpose(0, 1)),
            residual: Some(Residual { weight: dense - &weight, scale: double(&[20], 5).abs() + 0.1 }),
        };
        Self { weight, mask, statistics, size: Size { rank: 3, count: 25 } }
    }

    fn attach(&self, adapter: &dyn Adapter, init: AdapterInit) -> (Box<dyn Delta>, VarStore) {
        let mut store = VarStore::new(Device::Cpu);
        store.set_kind(Kind::Double);
        let site = Site {
            weight: &self.weight,
            allowed: Some(&self.mask),
            size: self.size,
            statistics: &self.statistics,
            seed: 7,
        };
        let spec = AdaptSpec { init, ..AdaptSpec::default() };
        let delta = adapter.attach(&site, &spec, &store.root()).unwrap().unwrap();
        (delta, store)
    }

    /// `M ⊙ (W0 + ΔW)`.
    fn effective(&self, delta: &dyn Delta) -> Tensor {
        (&self.weight + delta.delta(&self.weight).unwrap()) * &self.mask
    }

    /// A loss of weight and bias in force.
    fn loss(&self, delta: &dyn Delta) -> Tensor {
        let target = normal(&[12, 20], 6).to_kind(Kind::Double) * &self.mask;
        let bias = normal(&[12], 8).to_kind(Kind::Double);
        let change = delta.bias_delta(&bias).unwrap();
        let bias = change.map_or_else(|| bias.shallow_clone(), |change| &bias + change);
        (self.effective(delta) - target).square().sum(Kind::Double) + bias.square().sum(Kind::Double)
    }
}

#[test]
fn nothing_changes_before_the_first_step() {
    let layer = Layer::new();
    for adapter in with_parts() {
        for init in INITS {
            let (delta, _store) = layer.attach(adapter, init);
            let change = largest(&delta.delta(&layer.weight).unwrap());
            assert_eq!(change, 0.0, "{} {init:?}", adapter.name());
            let bias = normal(&[12], 8).to_kind(Kind::Double);
            let change = delta.bias_delta(&bias).unwrap().map_or(0.0, |change| largest(&change));
            assert_eq!(change, 0.0, "{} {init:?}", adapter.name());
        }
    }
}

#[test]
fn gradients_are_those_of_finite_differences() {
    let layer = Layer::new();
    for adapter in with_parts() {
        for init in INITS {
            let (delta, store) = layer.attach(adapter, init);
            stir(&store, 0.1, 20);
            layer.loss(delta.as_ref()).backward();
            for (variable, number) in store.trainable_variables().iter().zip(0..) {
                let gradient = variable.grad().flatten(0, -1);
                for i in 0..variable.numel().min(12) as i64 {
                    let at = |step: f64| {
                        tch::no_grad(|| {
                            let _ = variable.flatten(0, -1).get(i).g_add_scalar_(step);
                            let loss = layer.loss(delta.as_ref()).double_value(&[]);
                            let _ = variable.flatten(0, -1).get(i).g_add_scalar_(-step);
                            loss
                        })
                    };
                    let (expected, got) = ((at(1e-6) - at(-1e-6)) / 2e-6, gradient.double_value(&[i]));
                    let close = (expected - got).abs() < 1e-6 * (1.0 + expected.abs()) * 10.0;
                    let name = adapter.name();
                    assert!(close, "{name} {init:?} variable {number}[{i}]: {expected} {got}");
                }
            }
        }
    }
}

#[test]
fn the_loss_falls() {
    let layer = Layer::new();
    for adapter in with_parts() {
        for init in INITS {
            let (mut delta, store) = layer.attach(adapter, init);
            let before: Vec<Tensor> = store.trainable_variables().iter().map(Tensor::copy).collect();
            let start = layer.loss(delta.as_ref()).double_value(&[]);
            let mut optimizer = nn::adamw(0.9, 0.999, 0.0).build(&store, 0.01).unwrap();
            for step in 0..60 {
                optimizer.zero_grad();
                layer.loss(delta.as_ref()).backward();
                delta.before_step().unwrap();
                optimizer.step();
                delta.after_step(step, 60).unwrap();
            }
            let end = layer.loss(delta.as_ref()).double_value(&[]);
            assert!(end < 0.9 * start, "{} {init:?}: {start} {end}", adapter.name());
            let moved = store.trainable_variables().iter().zip(&before).all(|(a, b)| !a.equal(b));
            assert!(moved, "{} {init:?}", adapter.name());
        }
    }
}

#[test]
fn factors_and_entries_are_the_change() {
    let layer = Layer::new();
    for adapter in with_parts() {
        for init in INITS {
            let (delta, store) = layer.attach(adapter, init);
            stir(&store, 0.1, 30);
            let change = delta.delta(&layer.weight).unwrap();
            let (factors, entries) = (delta.factors().unwrap(), delta.entries());
            if factors.is_none() && entries.is_none() {
                continue;
            }
            let mut sum = change.zeros_like();
            if let Some([b, a]) = factors {
                sum += b.matmul(&a);
            }
            if let Some([positions, values]) = entries {
                sum = sum.flatten(0, -1).scatter_add(0, &positions, &values).reshape(change.size());
            }
            assert!(largest(&(sum - change)) < 1e-12, "{} {init:?}", adapter.name());
        }
    }
}

#[test]
fn gates_that_the_loss_does_not_hold_close() {
    let layer = Layer::new();
    let (mut delta, store) = layer.attach(&Sora, AdapterInit::Default);
    for step in 0..400 {
        delta.after_step(step, 400).unwrap();
    }
    let gates = &store.variables()["gates"];
    assert_eq!(largest(gates), 0.0);
    stir(&store, 0.1, 40);
    let before = store.variables()["gates"].copy();
    delta.after_step(0, 400).unwrap();
    let shrunk = before.abs() - store.variables()["gates"].abs();
    assert!(shrunk.min().double_value(&[]) > 0.0);
}

/// The change of a base after some training.
fn stirred_change(layer: &Layer, adapter: &dyn Adapter, base: &Tensor) -> Tensor {
    let (delta, store) = layer.attach(adapter, AdapterInit::Default);
    stir(&store, 0.1, 50);
    delta.delta(base).unwrap()
}

fn rank(matrix: &Tensor) -> i64 {
    let (_, values, _) = matrix.svd(true, false);
    values.gt(1e-9).sum(Kind::Int64).int64_value(&[])
}

/// Slices across `axis` that are not zero.
fn used(x: &Tensor, axis: i64) -> i64 {
    x.abs().sum_dim_intlist([axis].as_slice(), false, Kind::Double).gt(0.0).sum(Kind::Int64).int64_value(&[])
}

#[test]
fn changes_have_the_structure_of_their_papers() {
    let layer = Layer::new();
    let ones = layer.weight.ones_like();
    let factors = stirred_change(&layer, &ScaleLora, &ones);
    assert_eq!(rank(&factors), 3);
    let factors = stirred_change(&layer, &Spp, &ones);
    assert_eq!((rank(&factors), rank(&factors.narrow(0, 4, 4))), (3, 1), "four rows share a row of Wα");
    for adapter in [&ScaleLora as &dyn Adapter, &Spp] {
        let off = stirred_change(&layer, adapter, &layer.weight) * layer.mask.logical_not();
        assert_eq!(largest(&off), 0.0, "{}: pruned weights stay zero by themselves", adapter.name());
    }
    let change = stirred_change(&layer, &SpLora, &layer.weight);
    assert_eq!((used(&change, 1), used(&change, 0), rank(&change)), (6, 10, 3));
    let change = stirred_change(&layer, &Snell, &layer.weight);
    assert_eq!(change.ne(0.0).sum(Kind::Int64).int64_value(&[]), 40, "half of the kept weights");
    assert_eq!(largest(&(&change * layer.mask.logical_not())), 0.0);
    assert!(rank(&change) > 6, "a kernel has more than the rank of its factors");
}

#[test]
fn hydra_reads_what_the_layer_reads_and_what_it_answers() {
    let layer = Layer::new();
    let (delta, store) = layer.attach(&Hydra, AdapterInit::Default);
    stir(&store, 0.1, 60);
    let variables = store.variables();
    let [down, up, below, above] =
        ["parallel.lora_A", "parallel.lora_B", "sequential.lora_A", "sequential.lora_B"]
            .map(|n| &variables[n]);
    let (x, bias) = (normal(&[20], 9).to_kind(Kind::Double), normal(&[12], 10).to_kind(Kind::Double));
    let answer = layer.weight.mv(&x) + &bias;
    let expected = &answer + up.mv(&down.mv(&x)) + above.mv(&below.mv(&answer));
    let weight = &layer.weight + delta.delta(&layer.weight).unwrap();
    let got = weight.mv(&x) + &bias + delta.bias_delta(&bias).unwrap().unwrap();
    assert!(largest(&(got - expected)) < 1e-12);
}

#[test]
fn draws_depend_on_the_seed_of_the_layer() {
    let layer = Layer::new();
    let draw = |adapter: &dyn Adapter, seed: u64| {
        let mut store = VarStore::new(Device::Cpu);
        store.set_kind(Kind::Double);
        let statistics = Statistics::default();
        let (allowed, size) = (Some(&layer.mask), layer.size);
        let site = Site { weight: &layer.weight, allowed, size, statistics: &statistics, seed };
        let delta = adapter.attach(&site, &AdaptSpec::default(), &store.root()).unwrap().unwrap();
        match delta.entries() {
            Some([positions, _]) => positions,
            None => delta.factors().unwrap().unwrap()[1].copy(),
        }
    };
    for adapter in [&SlTrain as &dyn Adapter, &Nola] {
        assert!(draw(adapter, 1).equal(&draw(adapter, 1)), "{}", adapter.name());
        assert!(!draw(adapter, 1).equal(&draw(adapter, 2)), "{}", adapter.name());
    }
}

#[test]
fn budgets_of_a_real_network_are_spent_and_not_exceeded() {
    let design =
        Design { variant: "resnet18".into(), width: None, depth: None, classes: 1000, image: [224, 224] };
    let graph = build(&design).unwrap();
    let all: usize = graph.params().map(|spec| spec.shape.iter().product::<usize>()).sum();
    let none = Statistics::default();
    for adapter in ADAPTERS {
        // A layer of NOLA has at most 128 coefficients.
        let budgets = if adapter.name() == "nola" { [5e-5, 2e-4] } else { [0.005, 0.02] };
        for budget in budgets {
            let spec = AdaptSpec { budget: Some(budget), ..AdaptSpec::default() };
            let store = VarStore::new(Device::Cpu);
            let mut expected = 0;
            for (id, size) in sizes(&graph, *adapter, &spec) {
                let [m, n] = graph.node(id).matrix().unwrap();
                let weight = Tensor::ones([m as i64, n as i64], (Kind::Float, Device::Cpu));
                let site = Site { weight: &weight, allowed: None, size, statistics: &none, seed: 0 };
                let path = store.root() / id.index();
                let _ = adapter.attach(&site, &spec, &path).unwrap();
                let cost = adapter.cost([m, n]);
                let fixed = if size.rank > 0 { cost.fixed } else { 0 };
                expected += fixed + size.rank * cost.per_rank + size.count;
            }
            let trained: usize = store.trainable_variables().iter().map(Tensor::numel).sum();
            assert_eq!(trained, expected, "{} {budget}", adapter.name());
            let split = adapter.split(&spec);
            let asked = budget * all as f64 * (split.low_rank + split.sparse);
            let spent = trained as f64;
            assert!(spent <= asked && spent >= 0.98 * asked, "{}: {spent} of {asked}", adapter.name());
        }
    }
}
