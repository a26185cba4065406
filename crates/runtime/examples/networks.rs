//! Times networks of every family with random weights at 224².
//!
//! `cargo run --release -p margay-runtime --example networks -- --model deit_s --sparsity 0.9`
//!
//! More flags: `--blocks` for masks of four rows by one column, `--threads 1`, `--runs 15`, `--kernel auto|sparse|dense`,
//! `--precision f32|bf16`, `--steps` for every step, with the next best way to run it, instead of the sums per kernel,
//! `--write FILE` to write the model and time nothing. Steps are given by their shortest times, which other programs
//! disturb least.

use std::collections::BTreeMap;
use std::io::Write as _;

use margay_core::{Graph, GraphError};
use margay_runtime::{KernelChoice, Profile, Session, SessionOptions};

#[path = "../tests/it/nets/mod.rs"]
mod nets;

use nets::{convnext, efficientnet, resnet, vit};

/// A name for `--model`, and what builds its graph.
type Model = (&'static str, fn() -> Result<Graph, GraphError>);

const MODELS: [Model; 5] = [
    ("resnet50", resnet::resnet50),
    ("deit_s", || vit::graph(&vit::Spec::deit(384))),
    ("vit_b", || vit::graph(&vit::Spec::deit(768))),
    ("convnext_t", || convnext::graph(&convnext::Spec::t224())),
    ("efficientnetv2_s", || efficientnet::graph(&efficientnet::Spec::s224())),
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let value = |flag: &str, default: &str| {
        let place = args.iter().position(|arg| arg == flag);
        place.and_then(|i| args.get(i + 1)).map_or_else(|| default.to_owned(), Clone::clone)
    };
    let (name, sparsity): (String, f64) = (value("--model", "deit_s"), value("--sparsity", "0.9").parse()?);
    let (threads, runs) = (value("--threads", "1").parse()?, value("--runs", "15").parse()?);
    let kernel = match value("--kernel", "auto").as_str() {
        "dense" => KernelChoice::Dense,
        "sparse" => KernelChoice::Sparse,
        _ => KernelChoice::Auto,
    };
    let precision = value("--precision", "f32").parse()?;
    let known = || MODELS.map(|(name, _)| name).join(", ");
    let model = MODELS.iter().find(|(known, _)| *known == name);
    let (_, build) = model.ok_or_else(|| format!("no model `{name}`; there are {}", known()))?;
    let mut model = nets::pack(&build()?, sparsity)?;
    if args.iter().any(|arg| arg == "--blocks") {
        model = nets::blocked(&model)?;
    }
    if let Some(file) = args.iter().position(|arg| arg == "--write").and_then(|i| args.get(i + 1)) {
        model.write(file)?;
        return Ok(());
    }
    let options = SessionOptions { threads, kernel, precision, ..SessionOptions::default() };
    let mut session = Session::new(&model, &options)?;
    let images = nets::noise(session.image_len(), 7);
    session.profile(&images, 2)?;
    let each = args.iter().any(|arg| arg == "--steps");
    let profile = if each {
        session.profile_with_rivals(&model, &images, runs)?
    } else {
        session.profile(&images, runs)?
    };
    let mut out = std::io::stdout().lock();
    let (isa, ms, min) = (&profile.isa, profile.median_ms, profile.min_ms);
    writeln!(
        out,
        "{name} at sparsity {sparsity} on {isa} in {precision}, {threads} threads: {ms:.2} ms, min {min:.2} ms"
    )?;
    if each { steps(&mut out, &profile) } else { sums(&mut out, &profile) }
}

fn steps(out: &mut impl std::io::Write, profile: &Profile) -> Result<(), Box<dyn std::error::Error>> {
    for step in &profile.steps {
        let (nodes, shape, ms) = (step.nodes.join("+"), &step.shape, step.min_ms);
        let density = step.density.map_or_else(String::new, |d| format!("{d:.3}"));
        let rival = step.rival.as_ref().map_or_else(String::new, |rival| {
            let mark = if rival.is_faster { "faster" } else { "" };
            format!("[{} {:?} {:.2} {mark}]", rival.kernel, rival.strip, rival.ms / rival.chosen_ms)
        });
        let (kernel, strip) = (&step.kernel, step.strip);
        writeln!(out, "  {ms:7.3} ms  {kernel:<14} {strip:?} {shape:?} {density} {nodes} {rival}")?;
    }
    Ok(())
}

fn sums(out: &mut impl std::io::Write, profile: &Profile) -> Result<(), Box<dyn std::error::Error>> {
    let mut sums: BTreeMap<&str, f64> = BTreeMap::new();
    for step in &profile.steps {
        *sums.entry(step.kernel.as_str()).or_default() += step.min_ms;
    }
    let mut sums: Vec<(&str, f64)> = sums.into_iter().collect();
    let total: f64 = sums.iter().map(|(_, ms)| ms).sum();
    sums.sort_by(|a, b| b.1.total_cmp(&a.1));
    for (kernel, ms) in sums {
        writeln!(out, "  {ms:7.3} ms  {:4.1} %  {kernel}", 100.0 * ms / total)?;
    }
    Ok(())
}
