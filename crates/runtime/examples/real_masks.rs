//! Does a mask that was chosen cost more than one that was drawn?
//!
//! ```text
//! taskset -c 1 cargo run --release -p margay-runtime --example real_masks -- specialist.margay ...
//! ```
//! Times each model beside a twin whose layers keep as many multiply-adds in total, spread uniformly over layers and at
//! random within them, in turns; prints both medians and the ratio.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::time::Instant;

use margay_core::{Mask, SparseModel, Weight};
use margay_runtime::{Precision, Session, SessionOptions};

#[path = "../tests/it/nets/mod.rs"]
mod nets;

type Error = Box<dyn std::error::Error>;

const ROUNDS: usize = 41;

fn main() -> Result<(), Error> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "FLOP density  precision  real ms  uniform ms  ratio  model")?;
    for path in std::env::args().skip(1) {
        let model = SparseModel::read(&path)?;
        let density = flop_density(&model)?;
        let twin = uniform(&model, density)?;
        for precision in [Precision::F32, Precision::Bf16] {
            let [real, drawn] = in_turns(&model, &twin, precision)?;
            let ratio = real / drawn;
            writeln!(
                out,
                "{density:>12.4}  {precision:<9}  {real:>7.3}  {drawn:>10.3}  {ratio:>5.2}  {path}"
            )?;
        }
    }
    Ok(())
}

/// Multiply-adds of the stored weights of sparse layers over those of dense ones.
fn flop_density(model: &SparseModel) -> Result<f64, Error> {
    let macs = model.graph.macs()?;
    let (mut kept, mut all) = (0.0, 0.0);
    for id in model.graph.ids() {
        if let Some(Weight::Csr(csr)) = model.weights.get(&model.graph.node(id).weight()) {
            let dense = macs[id.index()] as f64;
            kept += dense * csr.nnz() as f64 / (csr.rows() * csr.cols()) as f64;
            all += dense;
        }
    }
    Ok(kept / all)
}

/// The same network with random masks of one density.
fn uniform(model: &SparseModel, density: f64) -> Result<SparseModel, Error> {
    let mut masks = BTreeMap::new();
    for (seed, (name, weight)) in model.weights.iter().enumerate() {
        if let Weight::Csr(csr) = weight {
            let scores = nets::noise(csr.rows() * csr.cols(), seed as u64);
            let kept = (density * scores.len() as f64).round() as usize;
            masks.insert(name.clone(), Mask::top_k(&scores, kept));
        }
    }
    let mut params = model.to_params();
    for name in masks.keys() {
        // Values do not matter, but zeros would be stored as such.
        params.get_mut(name).into_iter().flatten().for_each(|value| *value += 0.01);
    }
    let SparseModel { graph, labels, preprocess, provenance, .. } = model.clone();
    Ok(SparseModel::pack(graph, &params, &masks, labels, preprocess, provenance)?)
}

/// Medians in milliseconds.
fn in_turns(real: &SparseModel, drawn: &SparseModel, precision: Precision) -> Result<[f64; 2], Error> {
    let options = SessionOptions { threads: 1, precision, ..SessionOptions::default() };
    let mut sessions = [Session::new(real, &options)?, Session::new(drawn, &options)?];
    let image = nets::noise(sessions[0].image_len(), 7);
    let mut logits = vec![0.0; sessions[0].classes()];
    let mut times = [Vec::new(), Vec::new()];
    for round in 0..ROUNDS + 3 {
        for (session, times) in sessions.iter_mut().zip(&mut times) {
            let begun = Instant::now();
            session.run(&image, &mut logits)?;
            if round >= 3 {
                times.push(begun.elapsed().as_secs_f64() * 1e3);
            }
        }
    }
    Ok(times.map(|mut times| {
        times.sort_by(f64::total_cmp);
        times[ROUNDS / 2]
    }))
}
