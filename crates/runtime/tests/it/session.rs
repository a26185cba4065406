use margay_core::{
    BatchNorm, Conv2d, GraphBuilder, Linear, MaxPool2d, Op, Params, Pattern, Preprocess, Provenance, Shape,
    SparseModel, Weight,
};
use margay_runtime::{Isa, KernelChoice, Precision, RuntimeError, Session, SessionOptions, layer_costs};
use ndarray::ArrayD;

use crate::interpreter;
use crate::nets::resnet::{self, Spec};
use crate::nets::{self, noise};

pub const CHOICES: [KernelChoice; 3] = [KernelChoice::Auto, KernelChoice::Sparse, KernelChoice::Dense];

fn small(bottleneck: bool, groups: usize, sparsity: f64) -> SparseModel {
    sized([37, 45], bottleneck, groups, sparsity)
}

fn sized(size: [usize; 2], bottleneck: bool, groups: usize, sparsity: f64) -> SparseModel {
    let blocks = vec![1, 2, 2];
    let spec = Spec { size, bottleneck, blocks, width: 8, groups, classes: 5 };
    nets::pack(&resnet::graph(&spec).unwrap(), sparsity).unwrap()
}

pub fn isas() -> impl Iterator<Item = Isa> {
    Isa::ALL.into_iter().filter(|isa| isa.is_available())
}

pub fn open(model: &SparseModel, threads: usize, isa: Isa, kernel: KernelChoice) -> Session {
    open_in(model, threads, isa, kernel, Precision::F32)
}

pub fn open_in(
    model: &SparseModel,
    threads: usize,
    isa: Isa,
    kernel: KernelChoice,
    precision: Precision,
) -> Session {
    let isa = Some(isa);
    let options =
        SessionOptions { threads, isa, kernel, precision, tune: false, ..SessionOptions::default() };
    Session::new(model, &options).unwrap()
}

/// Every node against the definition, in both precisions.
pub fn compare(model: &SparseModel, isa: Isa, kernel: KernelChoice) {
    compare_in(model, isa, kernel, Precision::F32, 1e-5);
    if kernel != KernelChoice::Auto {
        return;
    }
    // Each layer rounds to 8 bits; the nets have a dozen, and norms of small random values amplify.
    compare_in(model, isa, kernel, Precision::Bf16, 4e-2);
}

fn compare_in(model: &SparseModel, isa: Isa, kernel: KernelChoice, precision: Precision, bound: f64) {
    let mut session = open_in(model, 1, isa, kernel, precision);
    let image = noise(session.image_len(), 3);
    let expected = interpreter::run(model, &image);
    let traced = session.trace(&image).unwrap();
    assert!(traced.len() > 3);
    for (id, got) in &traced {
        let (node, expected) = (model.graph.node(*id), &expected[id.index()]);
        let scale = expected.iter().fold(0.0_f64, |m, v| m.max(v.abs()));
        assert_eq!(got.len(), expected.len(), "{}", node.name);
        for (i, (got, expected)) in got.iter().zip(expected).enumerate() {
            let error = (f64::from(*got) - expected).abs();
            assert!(
                error <= bound * scale,
                "{} {isa} {kernel:?} {precision}: value {i} {got} {expected}",
                node.name
            );
        }
    }
    assert_eq!(traced.last().unwrap().0, model.graph.output());
}

#[test]
fn small_resnets_match_the_definition_node_by_node() {
    for (bottleneck, groups, sparsity) in
        [(false, 1, 0.9), (true, 1, 0.8), (true, 4, 0.5), (true, 8, 0.5), (false, 1, 0.0)]
    {
        let model = small(bottleneck, groups, sparsity);
        isas().for_each(|isa| CHOICES.iter().for_each(|kernel| compare(&model, isa, *kernel)));
    }
}

#[test]
fn an_answer_does_not_depend_on_the_images_before() {
    // Strided layers read maps of odd sides here, and buffers are reused.
    for side in [33, 40, 50, 68, 72, 100] {
        for bottleneck in [true, false] {
            let model = sized([side, side + 8], bottleneck, 1, 0.8);
            let mut session = open(&model, 1, Isa::Portable, KernelChoice::Auto);
            let images: Vec<Vec<f32>> = (0..3).map(|i| noise(session.image_len(), i)).collect();
            for image in &images {
                let fresh = logits(&mut open(&model, 1, Isa::Portable, KernelChoice::Auto), image);
                assert_eq!(logits(&mut session, image), fresh, "side {side}");
            }
            compare(&model, Isa::Portable, KernelChoice::Auto);
        }
    }
}

#[test]
#[ignore = "takes minutes even in release mode: cargo test --release -p margay-runtime -- --ignored"]
fn a_real_network_is_exact_to_one_in_ten_thousand() {
    for sparsity in [0.0, 0.95] {
        let model = nets::pack(&resnet::resnet50().unwrap(), sparsity).unwrap();
        let mut session = Session::new(&model, &SessionOptions::default()).unwrap();
        let image = noise(session.image_len(), 3);
        let got = logits(&mut session, &image);
        let expected = interpreter::run(&model, &image).pop().unwrap();
        let scale = expected.iter().fold(0.0_f64, |m, v| m.max(v.abs()));
        let errors = got.iter().zip(&expected).map(|(a, b)| (f64::from(*a) - b).abs());
        let worst = errors.fold(0.0_f64, f64::max) / scale;
        assert!(worst <= 1e-4 && scale > 1e-3, "sparsity {sparsity}: {worst:e} of {scale}");
        eprintln!("sparsity {sparsity}: largest error {worst:e} of the largest logit {scale}");
    }
}

pub fn logits(session: &mut Session, images: &[f32]) -> Vec<f32> {
    let mut logits = vec![0.0; images.len() / session.image_len() * session.classes()];
    session.run(images, &mut logits).unwrap();
    logits
}

#[test]
fn neither_threads_nor_batches_change_a_bit() {
    let model = small(true, 1, 0.8);
    for isa in isas() {
        let mut one = open(&model, 1, isa, KernelChoice::Auto);
        let images = noise(5 * one.image_len(), 11);
        let expected = logits(&mut one, &images);
        for threads in [1, 2, 3] {
            let mut session = open(&model, threads, isa, KernelChoice::Auto);
            for batch in [5, 1, 2] {
                let got: Vec<f32> =
                    images.chunks(batch * one.image_len()).flat_map(|c| logits(&mut session, c)).collect();
                assert_eq!(got, expected, "{threads} threads, batches of {batch}, {isa}");
            }
        }
    }
}

#[test]
fn the_trace_ends_in_the_logits_and_the_profile_names_every_node() {
    let model = small(true, 1, 0.9);
    let mut session = open(&model, 2, Isa::best(), KernelChoice::Auto);
    let images = noise(2 * session.image_len(), 5);
    let expected = logits(&mut session, &images);
    assert_eq!(session.trace(&images).unwrap().last().unwrap().1, expected);
    let profile = session.profile(&images, 3).unwrap();
    assert_eq!((profile.batch, profile.runs, profile.threads), (2, 3, 2));
    let named: std::collections::BTreeSet<&String> = profile.steps.iter().flat_map(|s| &s.nodes).collect();
    assert_eq!(named.len(), model.graph.nodes().len() - 1);
    assert!(profile.steps.iter().any(|s| s.kernel == "sparse_conv" && s.density.unwrap() < 0.2));
    assert!(profile.steps.iter().all(|s| s.min_ms > 0.0 && s.min_ms <= s.median_ms));
    assert!(profile.peak_gflops > 0.0 && profile.steps.iter().all(|s| s.bytes > 0.0));
    assert!(profile.steps.iter().all(|s| (s.flops > 0.0) == s.density.is_some()));
}

#[test]
fn the_profile_knows_another_way_to_run_every_layer_with_zeros() {
    let model = small(true, 1, 0.9);
    for kernel in CHOICES {
        let mut session = open(&model, 2, Isa::best(), kernel);
        let images = noise(2 * session.image_len(), 5);
        let expected = logits(&mut session, &images);
        let profile = session.profile_with_rivals(&model, &images, 1).unwrap();
        for step in &profile.steps {
            assert_eq!(step.rival.is_some(), step.density.is_some_and(|density| density < 1.0), "{step:?}");
            if let Some(rival) = &step.rival {
                assert!((&rival.kernel, rival.strip) != (&step.kernel, step.strip));
                assert!(rival.ms > 0.0 && rival.is_faster == (rival.ms < 0.95 * rival.chosen_ms));
            }
        }
        assert_eq!(logits(&mut session, &images), expected);
        let other = session.profile_with_rivals(&odd(), &images, 1).unwrap();
        assert!(other.steps.iter().all(|step| step.rival.is_none()));
        assert!(session.profile_with_rivals(&model, &[], 1).is_ok());
    }
}

#[test]
fn a_stated_pattern_changes_the_kernel_and_no_answer() {
    for groups in [1, 4, 8] {
        let model = nets::blocked(&small(true, groups, 0.8)).unwrap();
        let mut unstated = model.clone();
        for weight in unstated.weights.values_mut() {
            if let Weight::Csr(csr) = weight {
                *csr = csr.clone().with_pattern(Pattern::Unstructured).unwrap();
            }
        }
        for (isa, precision) in isas().flat_map(|isa| Precision::ALL.map(|precision| (isa, precision))) {
            let mut plain = open_in(&unstated, 1, isa, KernelChoice::Sparse, precision);
            let images = noise(3 * plain.image_len(), 5);
            let expected = logits(&mut plain, &images);
            for (threads, tune) in [(1, false), (2, true)] {
                // Linear layers on vectors sum in an order of their own where they are dense.
                let kernel = KernelChoice::Sparse;
                let options = SessionOptions {
                    threads,
                    isa: Some(isa),
                    kernel,
                    precision,
                    tune,
                    ..SessionOptions::default()
                };
                let mut session = Session::new(&model, &options).unwrap();
                assert_eq!(logits(&mut session, &images), expected, "{isa} {precision}");
                let profile = session.profile(&images, 1).unwrap();
                assert!(tune || profile.steps.iter().any(|step| step.kernel == "block_conv"));
            }
        }
        compare(&model, Isa::best(), KernelChoice::Sparse);
    }
}

#[test]
fn every_prunable_layer_has_a_cost_at_every_sparsity() {
    let model = small(true, 1, 0.5);
    let options = SessionOptions { threads: 1, ..SessionOptions::default() };
    let costs = layer_costs(&model, &options, &[0.0, 0.9]).unwrap();
    assert_eq!(costs.len(), 2 * model.graph.prunable().count());
    assert!(costs.iter().all(|cost| cost.ms > 0.0 && cost.matrix[0] == cost.shape[0]));
}

fn conv(from: usize, to: usize, kernel: [usize; 2], stride: [usize; 2], padding: [usize; 2]) -> Conv2d {
    Conv2d { in_channels: from, out_channels: to, kernel, stride, padding, groups: 1, bias: true }
}

/// What no residual network has: unfused norms and sums, shrinking and uneven windows, rectified linear layers.
fn odd() -> SparseModel {
    let (mut net, image) = GraphBuilder::new("odd", Shape::map(3, 19, 23));
    let push = |net: &mut GraphBuilder, name: &str, op: Op, inputs: &[_]| net.push(name, op, inputs);
    let norm = || Op::BatchNorm(BatchNorm { channels: 6, eps: 1e-3 });
    let a = push(&mut net, "a", Op::Conv2d(conv(3, 6, [3, 1], [1, 1], [0, 0])), &[image]);
    let b = push(&mut net, "b", norm(), &[a]);
    let c = push(&mut net, "c", Op::RELU, &[a]);
    let d = push(&mut net, "d", Op::Add, &[b, c]);
    let e = push(&mut net, "e", Op::Add, &[d, d]);
    let pool = MaxPool2d { kernel: [2, 3], stride: [1, 3], padding: [1, 0] };
    let f = push(&mut net, "f", Op::MaxPool2d(pool), &[e]);
    let g = push(&mut net, "g", Op::Conv2d(conv(6, 4, [5, 2], [3, 2], [2, 1])), &[f]);
    let h = push(&mut net, "h", Op::GlobalAvgPool, &[g]);
    let i = push(&mut net, "i", Op::Linear(Linear { in_features: 4, out_features: 9, bias: false }), &[h]);
    let j = push(&mut net, "j", Op::RELU, &[i]);
    push(&mut net, "k", Op::Linear(Linear { in_features: 9, out_features: 3, bias: true }), &[j]);
    let graph = net.finish().unwrap();
    let params: Params = graph
        .params()
        .enumerate()
        .map(|(i, spec)| {
            let values = noise(spec.shape.iter().product(), i as u64);
            let shift = if spec.name.ends_with("var") { 1.5 } else { 0.0 };
            let values = values.into_iter().map(|v| v + shift);
            (spec.name, ArrayD::from_shape_vec(spec.shape, values.collect()).unwrap())
        })
        .collect();
    let (masks, labels) = (std::collections::BTreeMap::new(), vec![String::new(); 3]);
    SparseModel::pack(graph, &params, &masks, labels, Preprocess::squash(19), Provenance::default()).unwrap()
}

#[test]
fn odd_graphs_match_the_definition_node_by_node() {
    let model = odd();
    isas().for_each(|isa| CHOICES.iter().for_each(|kernel| compare(&model, isa, *kernel)));
}

#[test]
fn wrong_lengths_are_refused() {
    let model = small(false, 1, 0.5);
    let mut session = open(&model, 1, Isa::Portable, KernelChoice::Auto);
    let image = session.image_len();
    let error = session.run(&vec![0.0; image + 1], &mut [0.0; 5]).unwrap_err();
    assert!(matches!(error, RuntimeError::InputLength { got, .. } if got == image + 1));
    let error = session.run(&vec![0.0; image], &mut [0.0; 4]).unwrap_err();
    assert!(matches!(error, RuntimeError::OutputLength { expected: 5, got: 4 }));
    assert!(session.run(&[], &mut []).is_ok());
}

#[test]
fn weights_that_do_not_fit_are_refused() {
    let options = SessionOptions::default();
    let mut model = small(false, 1, 0.5);
    model.weights.insert("fc.bias".to_owned(), Weight::Dense(ArrayD::zeros(vec![4])));
    let error = Session::new(&model, &options).unwrap_err();
    assert_eq!(error.to_string(), "parameter `fc.bias` has shape [4], expected [5]");
    model.weights.remove("conv1.weight");
    let error = Session::new(&model, &options).unwrap_err();
    assert_eq!(error.to_string(), "the model has no parameter `conv1.weight`");
}

#[test]
fn windows_of_padding_alone_and_very_wide_ones_are_refused() {
    let narrow = MaxPool2d { kernel: [1, 1], stride: [1, 1], padding: [1, 1] };
    let wide = MaxPool2d { kernel: [1, 65], stride: [1, 1], padding: [0, 0] };
    for (pool, why) in [(narrow, "empty"), (wide, "wider than 64")] {
        let (mut net, image) = GraphBuilder::new("bad", Shape::map(1, 4, 80));
        let x = net.push("pool", Op::MaxPool2d(pool), &[image]);
        net.push("mean", Op::GlobalAvgPool, &[x]);
        let graph = net.finish().unwrap();
        let (masks, labels) = (std::collections::BTreeMap::new(), Vec::new());
        let preprocess = Preprocess::squash(4).at([4, 80]);
        let model =
            SparseModel::pack(graph, &Params::new(), &masks, labels, preprocess, Provenance::default())
                .unwrap();
        let error = Session::new(&model, &SessionOptions::default()).unwrap_err();
        assert!(matches!(error, RuntimeError::Unsupported { ref node, .. } if node == "pool"), "{error}");
        assert!(error.to_string().contains(why), "{error}");
    }
}

#[test]
fn a_swapped_adapter_answers_as_its_merged_model_does() {
    let base = small(false, 1, 0.5);
    let [north, south] = [1, 2].map(|seed| {
        let adapter = nets::adapter(&base, 2, 0.2, seed).unwrap();
        adapter.apply(&base).unwrap()
    });
    let options = SessionOptions { threads: 1, ..SessionOptions::default() };
    let mut session = Session::new(&base, &options).unwrap();
    let images = nets::noise(2 * session.image_len(), 5);
    let logits = |session: &mut Session| {
        let mut logits = vec![0.0; 2 * session.classes()];
        session.run(&images, &mut logits).unwrap();
        logits
    };
    let alone = [&base, &north, &south].map(|model| logits(&mut Session::new(model, &options).unwrap()));
    assert!(alone[0] != alone[1] && alone[1] != alone[2]);
    let (mut first, mut second) = (session.prepare(&north).unwrap(), session.prepare(&south).unwrap());
    session.swap(&mut first);
    assert_eq!(logits(&mut session), alone[1]);
    session.swap(&mut second);
    assert_eq!(logits(&mut session), alone[2]);
    session.swap(&mut second);
    session.swap(&mut first);
    assert_eq!(logits(&mut session), alone[0]);
}
