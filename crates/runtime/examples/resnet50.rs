//! Times a ResNet-50 with random weights at 224² and several sparsities.
//!
//! `cargo run --release -p margay-runtime --example resnet50 -- [threads] [runs] [profile]`

use std::io::Write as _;

use margay_core::SparseModel;
use margay_runtime::{KernelChoice, Session, SessionOptions};

#[path = "../tests/it/resnet.rs"]
mod resnet;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut out = std::io::stdout().lock();
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number = |i: usize, default: usize| args.get(i).map_or(Ok(default), |a| a.parse());
    let (threads, runs) = (number(0, 1)?, number(1, 15)?);
    let verbose = args.get(2).is_some();
    let images = resnet::noise(3 * 224 * 224, 7);
    for (sparsity, kernel) in [
        (0.0, KernelChoice::Dense),
        (0.5, KernelChoice::Auto),
        (0.5, KernelChoice::Sparse),
        (0.7, KernelChoice::Auto),
        (0.8, KernelChoice::Auto),
        (0.9, KernelChoice::Auto),
        (0.95, KernelChoice::Auto),
    ] {
        let model: SparseModel = resnet::resnet50(sparsity)?;
        let options = SessionOptions { threads, kernel, ..SessionOptions::default() };
        let mut session = Session::new(&model, &options)?;
        session.profile(&images, 2)?;
        let profile = session.profile(&images, runs)?;
        let (isa, ms) = (&profile.isa, profile.median_ms);
        writeln!(out, "sparsity {sparsity:.2} {kernel:?} on {isa}, {threads} threads: {ms:.2} ms")?;
        for step in profile.steps.iter().filter(|_| verbose) {
            let (nodes, shape, ms) = (step.nodes.join("+"), &step.shape, step.median_ms);
            let density = step.density.map_or_else(String::new, |d| format!("{d:.3}"));
            writeln!(out, "  {ms:7.3} ms  {:<13} {shape:?} {density} {nodes}", step.kernel)?;
        }
    }
    Ok(())
}
