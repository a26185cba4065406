use std::path::Path;

use margay_core::Sparsity;

use super::{CompressOptions, PipelineError, compress};
use crate::progress::Progress;
use crate::recipe::{Recipe, Shots};
use crate::record::RunRecord;
use crate::world::{SPECIES, Species, Survey, World};

/// The generalist that the demo starts from; its card stands beside it.
const GENERALIST: &[u8] = include_bytes!("../../models/world-resnet18-w16.safetensors");

/// What the demo's user has on the SD card.
const TASK: [&str; 6] = ["badger", "deer", "empty", "fox", "lynx", "margay"];

/// The world that the generalist knows, too.
const SEED: u64 = 1;

/// Cameras that the generalist has never seen: the task's own, and those of the evaluation.
const TRAIN_CAMERAS: std::ops::Range<u32> = 100..108;
const VAL_CAMERAS: std::ops::Range<u32> = 108..124;

/// Draws a small survey, then compresses the built-in generalist to 20× for it.
///
/// Evaluated on cameras that neither the generalist nor the specialist has learned from. Writes what
/// [`compress`] writes, and the photos and the generalist beside it.
pub fn demo(out: &Path, threads: usize, progress: &mut dyn Progress) -> Result<RunRecord, PipelineError> {
    let species: Vec<&'static Species> = SPECIES.iter().filter(|s| TASK.contains(&s.name)).collect();
    let world = World::new(SEED);
    let survey = |cameras, per_species| Survey { species: species.clone(), cameras, per_species };
    let data = out.join("photos");
    world.write_dataset(&data.join("train"), &survey(TRAIN_CAMERAS, 24), progress)?;
    world.write_dataset(&data.join("val"), &survey(VAL_CAMERAS, 64), progress)?;
    let model = out.join("generalist.safetensors");
    fs_err::write(&model, GENERALIST)?;
    let mut recipe = Recipe::new(model, data);
    recipe.threads = threads;
    recipe.shots = Shots { per_class: 16, ..Shots::default() };
    recipe.input.image_size = Some(64);
    recipe.prune.sparsity = Sparsity::from_compression(20.0).unwrap_or(Sparsity::DENSE);
    compress(&recipe, out, &CompressOptions::default(), progress)
}
