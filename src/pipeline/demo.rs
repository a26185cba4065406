use std::path::Path;

use margay_core::output;

use super::PipelineError;
use crate::progress::Progress;
use crate::recipe::Recipe;
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

/// Draws the demo's survey and writes the generalist into the folder `world`, which must exist.
///
/// The evaluation's cameras are known to neither the generalist nor the task.
pub fn demo_world(world: &Path, progress: &mut dyn Progress) -> Result<(), PipelineError> {
    let species: Vec<&'static Species> = SPECIES.iter().filter(|s| TASK.contains(&s.name)).collect();
    let survey = |cameras, per_species| Survey { species: species.clone(), cameras, per_species };
    let photos = world.join("photos");
    World::new(SEED).write_dataset(&photos.join("train"), &survey(TRAIN_CAMERAS, 24), progress)?;
    World::new(SEED).write_dataset(&photos.join("val"), &survey(VAL_CAMERAS, 64), progress)?;
    Ok(output::write(world.join("generalist.safetensors"), GENERALIST)?)
}

/// What `margay compress` is told in a demo: 16 shots of each species in `world`, 20× fewer weights.
pub fn demo_recipe(world: &Path, threads: usize) -> Recipe {
    let mut recipe = Recipe::new(world.join("generalist.safetensors"), world.join("photos"));
    recipe.threads = threads;
    recipe.input.image_size = Some(64);
    // A demo is looked at while it runs.
    recipe.recovery.epochs = 20;
    recipe
}
