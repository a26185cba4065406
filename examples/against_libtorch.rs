//! Times the runtime against dense libtorch on a ResNet-50 with random weights, in turns, in one process.
//!
//! ```text
//! taskset -c 0 cargo run --release --example against_libtorch -- [runs] [image side]
//! ```
//! Prints, per uniform sparsity, the median ms of both on one thread, batch 1, and the ratio.

#![expect(clippy::print_stdout, reason = "a program that prints a table")]

use std::collections::BTreeMap;
use std::time::Instant;

use margay::models::{Design, build};
use margay::pipeline::random_params;
use margay::torch::{Norms, TorchModel, forward, set_threads};
use margay_core::{Graph, Mask, Params, Preprocess, Provenance, SparseModel, Sparsity, fold};
use margay_runtime::{Precision, Session, SessionOptions};
use tch::{Device, Tensor};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let runs: usize = args.next().map_or(Ok(21), |a| a.parse())?;
    let side: usize = args.next().map_or(Ok(224), |a| a.parse())?;
    set_threads(1);
    let design =
        Design { variant: "resnet50".into(), width: None, depth: None, classes: 12, image: [side, side] };
    let graph = build(&design)?;
    let (graph, params) = fold::all(&graph, &random_params(&graph, 0))?;
    println!("sparsity  libtorch ms  margay ms  ratio  largest |dlogit| / |logit|  file bytes / dense");
    for percent in [0, 50, 70, 80, 90, 95] {
        row(&graph, &params, f64::from(percent) / 100.0, runs, side)?;
    }
    Ok(())
}

fn row(
    graph: &Graph,
    params: &Params,
    sparsity: f64,
    runs: usize,
    side: usize,
) -> Result<(), Box<dyn std::error::Error>> {
    let (params, masks) = masked(graph, params, Sparsity::new(sparsity)?)?;
    let labels: Vec<String> = (0..graph.classes()).map(|i| format!("class {i}")).collect();
    let pack = |masks: &BTreeMap<String, Mask>| {
        let provenance = Provenance::default();
        SparseModel::pack(
            graph.clone(),
            &params,
            masks,
            labels.clone(),
            Preprocess::torchvision(side),
            provenance,
        )
    };
    let (sparse, dense) = (pack(&masks)?, pack(&BTreeMap::new())?);
    let model = TorchModel::new(graph.clone(), &params, Device::Cpu)?;
    let mut session = Session::new(
        &sparse,
        &SessionOptions { threads: 1, precision: Precision::F32, ..SessionOptions::default() },
    )?;
    let image: Vec<f32> =
        (0..session.image_len()).map(|i| ((i * 7919 % 511) as f32 - 255.0) / 128.0).collect();
    let input = Tensor::from_slice(&image).reshape([1, 3, side as i64, side as i64]);
    let mut logits = vec![0.0; session.classes()];
    let (mut times, mut expected) = ([Vec::new(), Vec::new()], Vec::new());
    let _no_grad = tch::no_grad_guard();
    for run in 0..runs + 2 {
        let begun = Instant::now();
        let out = forward(&model.graph, &model, Norms::Stored, &input, &[])?.logits;
        let torch = begun.elapsed();
        expected = Vec::<f32>::try_from(out.reshape([-1]))?;
        let begun = Instant::now();
        session.run(&image, &mut logits)?;
        // Two runs warm up caches, the allocator and libtorch's primitives.
        if run >= 2 {
            times[0].push(torch.as_secs_f64() * 1e3);
            times[1].push(begun.elapsed().as_secs_f64() * 1e3);
        }
    }
    for times in &mut times {
        times.sort_by(f64::total_cmp);
    }
    let [torch, ours] = times.map(|t| t[t.len() / 2]);
    let gap = expected.iter().zip(&logits).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    let scale = expected.iter().map(|a| a.abs()).fold(0.0, f32::max);
    let share = sparse.to_bytes()?.len() as f64 / dense.to_bytes()?.len() as f64;
    println!(
        "{:7.0} %  {torch:11.2}  {ours:9.2}  {:5.2}  {:26.1e}  {:17.2} %",
        100.0 * sparsity,
        torch / ours,
        gap / scale,
        100.0 * share
    );
    Ok(())
}

/// Keeps the same share of each prunable layer: its largest weights.
fn masked(
    graph: &Graph,
    params: &Params,
    sparsity: Sparsity,
) -> Result<(Params, BTreeMap<String, Mask>), Box<dyn std::error::Error>> {
    let (mut params, mut masks) = (params.clone(), BTreeMap::new());
    for id in graph.prunable().filter(|_| sparsity.fraction() > 0.0) {
        let name = graph.node(id).weight();
        let value = params.get_mut(&name).ok_or("a weight is missing")?;
        let scores: Vec<f32> = value.iter().map(|v| v.abs()).collect();
        let mask = Mask::top_k(&scores, sparsity.kept(scores.len()));
        value.iter_mut().zip(mask.iter()).filter(|(_, kept)| !kept).for_each(|(v, _)| *v = 0.0);
        masks.insert(name, mask);
    }
    Ok((params, masks))
}
