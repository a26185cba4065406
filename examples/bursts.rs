//! What the defaults make of near-identical bursts: two classes, three cameras, a task drawn anew for every seed.
//!
//! ```text
//! cargo run --release --example bursts -- bursts/ 10
//! cargo run --release --example bursts -- bursts/ 10 resnet18.pth 64
//! ```
//! Each task is 16 shots per class of six bursts and more; other bursts of the same cameras are its val. The head is
//! fitted, as the classes are not the checkpoint's. Without a checkpoint the demo's generalist is taken.

#![expect(clippy::print_stdout, reason = "a program whose output is its result")]

use std::path::{Path, PathBuf};

use margay::pipeline::{CompressOptions, PipelineError, compress};
use margay::progress::Silent;
use margay::recipe::Recipe;
use margay::record::{Evaluation, RunRecord};
use margay::world::{Bursts, Species, World};

const USAGE: &str = "usage: bursts FOLDER SEEDS [CHECKPOINT [IMAGE_SIZE]]";
const GENERALIST: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/models/world-resnet18-w16.safetensors");

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [folder, seeds, rest @ ..] = args.as_slice() else { return Err(USAGE.into()) };
    let model = rest.first().map_or(GENERALIST, String::as_str);
    let size = rest.get(1).map_or(Ok(64), |size| size.parse())?;
    println!("| seed | dense | one-shot | finetuned | epochs | warnings |\n|---|---|---|---|---|---|");
    let mut sums = [0.0; 3];
    let seeds: u64 = seeds.parse()?;
    for seed in 0..seeds {
        let record = run(&Path::new(folder).join(seed.to_string()), seed, model, size)?;
        let top1 = [&record.dense, &record.oneshot, &record.specialist].map(percent);
        sums.iter_mut().zip(top1).for_each(|(sum, top1)| *sum += top1);
        let [dense, oneshot, finetuned] = top1;
        let choice = record.choices.iter().find(|choice| choice.what.contains("epochs"));
        let epochs = choice.map_or("all", |choice| choice.taken.as_str());
        let warnings = record.warnings.iter().filter(|text| text.contains("diverged")).count();
        println!("| {seed} | {dense:.1} | {oneshot:.1} | {finetuned:.1} | {epochs} | {warnings} |");
    }
    let [dense, oneshot, finetuned] = sums.map(|sum| sum / seeds.max(1) as f64);
    println!("| mean | {dense:.1} | {oneshot:.1} | {finetuned:.1} | | |");
    Ok(())
}

fn percent(evaluation: &Evaluation) -> f64 {
    100.0 * evaluation.top1.unwrap_or(f64::NAN)
}

/// Draws the task of a seed and specialises the checkpoint for it, with defaults.
fn run(folder: &Path, seed: u64, model: &str, size: usize) -> Result<RunRecord, PipelineError> {
    let data = folder.join("photos");
    if !data.exists() {
        draw(&data, seed)?;
    }
    let mut recipe = Recipe::new(PathBuf::from(model), data);
    recipe.seed = seed;
    recipe.input.image_size = Some(size);
    let out = folder.join("out");
    fs_err::create_dir_all(&out)?;
    compress(&recipe, &out, &CompressOptions::default(), &mut Silent)
}

/// The cameras of a seed: some bursts to learn from, others to judge.
fn draw(data: &Path, seed: u64) -> Result<(), PipelineError> {
    let species = |name| Species::named(name).expect("the world has it");
    let classes = vec![("nothing", species("empty")), ("visitor", species("hare"))];
    let first = 500 + 3 * seed as u32;
    let mut survey = Bursts { classes, cameras: first..first + 3, bursts: 0..2, frames: 4 };
    World::new(seed).write_bursts(&data.join("train"), &survey, &mut Silent)?;
    (survey.bursts, survey.frames) = (2..18, 2);
    World::new(seed).write_bursts(&data.join("val"), &survey, &mut Silent)?;
    Ok(())
}
