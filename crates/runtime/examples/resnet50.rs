//! Times a ResNet-50 with random weights at 224² and several sparsities.
//!
//! `cargo run --release -p margay-runtime --example resnet50 -- [threads] [runs] [sparsity] [kernel] [precision]`
//!
//! With a sparsity it prints every step.

use std::io::Write as _;

use margay_runtime::{KernelChoice, Precision, Session, SessionOptions};

#[path = "../tests/it/nets/mod.rs"]
mod nets;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut out = std::io::stdout().lock();
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number = |i: usize, default: usize| args.get(i).map_or(Ok(default), |a| a.parse());
    let (threads, runs) = (number(0, 1)?, number(1, 15)?);
    let images = nets::noise(3 * 224 * 224, 7);
    let kernel = match args.get(3).map(String::as_str) {
        Some("dense") => KernelChoice::Dense,
        Some("sparse") => KernelChoice::Sparse,
        _ => KernelChoice::Auto,
    };
    let precision = args.get(4).map_or(Ok(Precision::F32), |name| name.parse())?;
    let sparsities = match args.get(2) {
        Some(sparsity) => vec![sparsity.parse()?],
        None => vec![0.0, 0.5, 0.7, 0.8, 0.9, 0.95],
    };
    let verbose = args.len() > 2;
    for sparsity in sparsities {
        let model = nets::pack(&nets::resnet::resnet50()?, sparsity)?;
        let options = SessionOptions { threads, kernel, precision, ..SessionOptions::default() };
        let mut session = Session::new(&model, &options)?;
        session.profile(&images, 2)?;
        let profile = session.profile(&images, runs)?;
        let (isa, ms, min) = (&profile.isa, profile.median_ms, profile.min_ms);
        writeln!(
            out,
            "sparsity {sparsity:.2} {kernel:?} on {isa} in {precision}, {threads} threads: {ms:.2} ms, min {min:.2} ms"
        )?;
        for step in profile.steps.iter().filter(|_| verbose) {
            let (nodes, shape, ms) = (step.nodes.join("+"), &step.shape, step.min_ms);
            let density = step.density.map_or_else(String::new, |d| format!("{d:.3}"));
            writeln!(out, "  {ms:7.3} ms  {:<13} {shape:?} {density} {nodes}", step.kernel)?;
        }
    }
    Ok(())
}
