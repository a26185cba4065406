//! Every family through both executors, and a vision transformer through the main job.

use std::collections::BTreeMap;

use margay::checkpoint::load_model;
use margay::models::{ARCHITECTURES, Design, build};
use margay::pipeline::{random_params, train};
use margay::progress::Silent;
use margay::recipe::{ClassSpec, Count, InputSpec, Recalibration, Recipe, TrainSpec};
use margay::torch::{Norms, TorchModel, forward};
use margay_core::{Graph, Mask, ParamRole, Params, Preprocess, Provenance, SparseModel, Sparsity, fold};
use margay_runtime::{KernelChoice, Precision, Session, SessionOptions};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tch::{Device, Kind, Tensor};

use crate::pipeline::{GENERALIST, photos, run};

/// Narrow networks of 64 pixels, whatever the family.
fn small(variant: &str) -> Graph {
    let design =
        Design { variant: variant.into(), width: Some(16), depth: Some(2), classes: 5, image: [64, 64] };
    build(&design).unwrap_or_else(|error| panic!("{variant}: {error}"))
}

/// Random weights, norms that do something, and masks that keep a tenth.
fn weights(graph: &Graph, seed: u64) -> (Params, BTreeMap<String, Mask>) {
    let mut params = random_params(graph, seed);
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    for spec in graph.params().filter(|spec| spec.role != ParamRole::Weight) {
        let value = params.get_mut(&spec.name).unwrap();
        value.iter_mut().for_each(|v| *v += rng.random_range(0.0..0.5));
    }
    let mut masks = BTreeMap::new();
    for id in graph.prunable() {
        let value = params.get_mut(&graph.node(id).weight()).unwrap();
        let scores: Vec<f32> = value.iter().map(|v| v.abs()).collect();
        let mask = Mask::top_k(&scores, scores.len() / 10);
        value.iter_mut().zip(mask.iter()).filter(|(_, kept)| !kept).for_each(|(v, _)| *v = 0.0);
        masks.insert(graph.node(id).weight(), mask);
    }
    (params, masks)
}

/// Every value that the runtime holds, against the same node of the torch executor.
#[test]
fn both_executors_agree_on_every_family_node_by_node() {
    for (seed, variant) in (1..).zip(ARCHITECTURES.iter().flat_map(|family| family.variants())) {
        if ["large", "huge", "base", "101", "152", "_m", "_l", "_xl"].iter().any(|big| variant.contains(big))
        {
            continue;
        }
        let graph = small(variant);
        let (params, masks) = weights(&graph, seed);
        let (graph, params) = fold::all(&graph, &params).unwrap();
        let labels = (0..5).map(|i| i.to_string()).collect();
        let (preprocess, origin) = (Preprocess::squash(64), Provenance::default());
        let sparse = SparseModel::pack(graph.clone(), &params, &masks, labels, preprocess, origin).unwrap();
        let model = TorchModel::new(graph.clone(), &params, Device::Cpu).unwrap();
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let images: Vec<f32> = (0..2 * 3 * 64 * 64).map(|_| rng.random_range(-2.0..2.0)).collect();
        let input = Tensor::from_slice(&images).reshape([2, 3, 64, 64]);
        let nodes: Vec<_> = graph.ids().collect();
        let expected = forward(&graph, &model, Norms::Stored, &input, &nodes).unwrap().kept;
        let exact = model.in_double().unwrap();
        let exact = forward(&graph, &exact, Norms::Stored, &input.to_kind(Kind::Double), &[]).unwrap().logits;
        let rounding = (&exact - expected[graph.output().index()].to_kind(Kind::Double)).abs().max();
        assert!(rounding.double_value(&[]) <= 1e-4 * exact.abs().max().double_value(&[]), "{variant}");
        for kernel in [KernelChoice::Auto, KernelChoice::Sparse, KernelChoice::Dense] {
            let options =
                SessionOptions { threads: 2, kernel, precision: Precision::F32, ..SessionOptions::default() };
            let trace = Session::new(&sparse, &options).unwrap().trace(&images).unwrap();
            for (id, got) in &trace {
                let wanted = Vec::<f32>::try_from(expected[id.index()].reshape([-1])).unwrap();
                let scale = wanted.iter().map(|v| v.abs()).fold(1e-6, f32::max);
                let gap = wanted.iter().zip(got).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                let name = &graph.node(*id).name;
                assert_eq!(wanted.len(), got.len(), "{variant} {name}");
                assert!(gap <= 1e-4 * scale, "{variant} {kernel:?} {name}: {gap} of {scale}");
            }
        }
    }
}

#[test]
fn a_vision_transformer_is_trained_compressed_and_run() {
    let root = tempfile::tempdir().unwrap();
    let data = photos(&root.path().join("photos"));
    let known = root.path().join("known");
    fs_err::create_dir_all(&known).unwrap();
    for split in ["train", "val"] {
        std::os::unix::fs::symlink(data.join("train"), known.join(split)).unwrap();
    }
    let checkpoint = root.path().join("vit.safetensors");
    let spec = TrainSpec {
        arch: Some("vit_tiny_patch16".to_owned()),
        width: Some(64),
        depth: Some(2),
        data: known,
        classes: ClassSpec { follow_links: true, ..ClassSpec::default() },
        device: "cpu".into(),
        threads: 2,
        input: InputSpec { image_size: Some(64), ..InputSpec::default() },
        epochs: 120,
        batch: 8,
        weight_decay: 0.05,
        label_smoothing: 0.0,
        teacher: Some(GENERALIST.into()),
        ..TrainSpec::default()
    };
    let trained = train(&spec, &mut fs_err::File::create(&checkpoint).unwrap(), &mut Silent).unwrap();
    assert!(
        trained.top1.unwrap() > 0.45,
        "a third is chance, and it has seen these photos: {:?}",
        trained.top1
    );

    let mut recipe = Recipe::new(checkpoint, data);
    recipe.device = "cpu".into();
    recipe.threads = 2;
    recipe.shots.per_class = 8;
    // A third of so small a network is positions and patches.
    (recipe.prune.sparsity, recipe.prune.count) = (Sparsity::from_compression(4.0).unwrap(), Count::Prunable);
    // The fold is asked about norms where layers are not corrected.
    (recipe.prune.correction, recipe.recovery.recalibrate) = (0.0, Recalibration::Auto);
    recipe.recovery.epochs = 2;
    let out = root.path().join("out");
    let record = run(&recipe, &out);
    assert_eq!(record.nonzeros.sparse, (record.nonzeros.dense as f64 / 4.0).round() as u64);
    assert_eq!(record.parity.argmax_agreement, 1.0);
    let decided: Vec<&str> = record.choices.iter().map(|choice| choice.what.as_str()).collect();
    assert!(
        matches!(*decided, [norms, epochs] if norms.contains("layer norms") && epochs.contains("epochs")),
        "{decided:?}"
    );
    let written = load_model(out.join("model.safetensors"), [64, 64]).unwrap();
    assert_eq!(written.graph.architecture, "vit_64x2_patch16");
    // Learned positions follow the size of the image.
    let wider = load_model(out.join("model.safetensors"), [96, 96]).unwrap();
    assert_eq!(wider.params.get("embed.position").unwrap().shape(), [37, 64]);
}
