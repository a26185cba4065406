use crate::record::{
    Answer, BadPhoto, BlockRecord, Candidate, ChangedAnswer, Choice, DataInfo, Evaluation, Latency,
    LayerRecord, Machine, ModelInfo, Nonzeros, NotedPhoto, Pair, Paired, Parity, RunRecord, Stages, Trained,
};

const LABELS: [&str; 5] = ["deer", "empty", "fox", "hare", "lynx"];

/// A small record whose parts agree with each other; nobody photographed a lynx for val.
pub(super) fn sample() -> RunRecord {
    let labels = LABELS.map(str::to_owned);
    let truth: Vec<usize> = (0..48).map(|i| i / 12).collect();
    let answers = |wrong: &[(usize, usize)]| {
        let mut predicted = truth.clone();
        for (image, class) in wrong {
            predicted[*image] = *class;
        }
        predicted
    };
    let dense = answers(&[(3, 4), (13, 0), (40, 2)]);
    let specialist = answers(&[(3, 4), (25, 3), (40, 1), (41, 1), (42, 1), (43, 2), (44, 2)]);
    let evaluate = |predicted: &[usize]| Evaluation::from_predictions(&labels, &truth, predicted);
    let right = [&dense, &specialist].map(|predicted| -> Vec<bool> {
        predicted.iter().zip(&truth).map(|(answer, class)| answer == class).collect()
    });
    let losses = right
        .each_ref()
        .map(|right| -> Vec<f64> { right.iter().map(|right| if *right { 0.25 } else { 1.5 }).collect() });
    let against_dense = Paired::of([&right[0], &right[1]], [&losses[0], &losses[1]]);
    let changed = (0..truth.len()).filter(|&i| dense[i] != specialist[i]);
    RunRecord {
        version: "0.1.0".into(),
        model: model(),
        machine: Machine { cpu: "Test CPU".into(), isa: "avx2".into(), threads: 2, device: "cpu".into() },
        recipe: "seed = 0\n".into(),
        data: DataInfo {
            path: "photos".into(),
            calibration: 52,
            holdout: 12,
            val: truth.len(),
            ..DataInfo::default()
        },
        dense: evaluate(&dense),
        oneshot: evaluate(&answers(&[(3, 4), (25, 3), (26, 3), (40, 1), (41, 1), (42, 1), (43, 2), (44, 2)])),
        specialist: Evaluation { against_dense, ..evaluate(&specialist) },
        nonzeros: Nonzeros::new(
            Pair { dense: 700_000, sparse: 35_000 },
            Pair { dense: 700_000, sparse: 35_000 },
            Pair { dense: 703_000, sparse: 38_000 },
        ),
        bytes: Pair { dense: 2_812_000, sparse: 180_500 },
        macs: Pair { dense: 37_000_000, sparse: 4_100_000 },
        latency_ms: Latency {
            dense: 1.9,
            sparse: 0.5,
            dense_range: [1.8, 2.4],
            sparse_range: [0.48, 0.62],
            runs: 50,
            batch: 1,
            threads: 1,
        },
        parity: Parity {
            max_abs_logit_difference: 1.2e-5,
            max_abs_logit: 14.0,
            max_abs_rounding: None,
            argmax_agreement: 1.0,
            bf16_agreement: Some(0.979),
            images: 48,
        },
        seconds: stages(),
        peak_rss_bytes: Some(310_000_000),
        adapter: Some(Trained { adapter: 4_218, beside: 3_012, share: 0.006 }),
        layers: layers(),
        blocks: blocks(),
        choices: vec![Choice {
            what: "batch norm re-estimation".into(),
            candidates: vec![
                Candidate { name: "kept".into(), top1: Some(0.75), loss: Some(0.71), class_drop: None },
                Candidate { name: "re-estimated".into(), top1: Some(0.5), loss: None, class_drop: None },
            ],
            taken: "kept".into(),
        }],
        bad_photos: vec![BadPhoto {
            path: "train/fox/cut.jpg".into(),
            reason: "unexpected end of file".into(),
        }],
        noted_photos: vec![NotedPhoto {
            path: "train/fox/half.jpg".into(),
            note: "truncated, 74 % of the rows".into(),
        }],
        warnings: vec!["class `lynx` has no val images".into()],
        changed: changed.map(|i| change(i, truth[i], dense[i], specialist[i])).collect(),
    }
}

fn model() -> ModelInfo {
    ModelInfo {
        architecture: "resnet18".into(),
        checkpoint: "generalist.safetensors".into(),
        sha256: "00ff".into(),
        head: "sliced".into(),
        input: [64, 64],
        provenance: [("licence".to_owned(), "MIT".to_owned())].into(),
    }
}

fn stages() -> Stages {
    let mut stages = Stages::default();
    for (name, seconds) in [("read", 0.4), ("prune", 21.5), ("recover", 64.0), ("export", 0.2)] {
        stages.add(name, seconds);
    }
    stages
}

fn layers() -> Vec<LayerRecord> {
    [("layer1.0.conv1", 0.88, 0.012), ("layer1.0.conv2", 0.9, 0.031), ("layer2.0.conv1", 0.97, 0.052)]
        .into_iter()
        .map(|(name, sparsity, error)| LayerRecord {
            name: name.into(),
            shape: vec![64, 64, 3, 3],
            sparsity,
            nonzeros: ((1.0 - sparsity) * 36_864.0) as usize,
            error,
            seconds: 1.5,
        })
        .collect()
}

fn blocks() -> Vec<BlockRecord> {
    [("layer1.0", 0.004, 0.01), ("layer1.1", 0.09, 0.2), ("layer2.0", 0.06, 0.45)]
        .into_iter()
        .map(|(name, error, divergence)| BlockRecord {
            name: name.into(),
            error: [error, 1.5 * error],
            divergence: [divergence, 2.0 * divergence],
        })
        .collect()
}

fn change(image: usize, truth: usize, dense: usize, specialist: usize) -> ChangedAnswer {
    let answer = |class: usize, confidence| Answer { label: LABELS[class].into(), confidence };
    ChangedAnswer {
        path: format!("val/{}/{image:04}.jpg", LABELS[truth]),
        label: LABELS[truth].into(),
        dense: answer(dense, 0.81),
        specialist: answer(specialist, 0.47),
    }
}
