//! One run of an experiment, and which of them start from the same network.

use std::fmt::Write as _;
use std::path::Path;

use sha2::{Digest, Sha256};

use super::ExperimentError;
use super::axes::NONE;
use crate::recipe::{AdaptSpec, Recipe, RecoverySpec, Schedule};

/// Part of what determines a result.
pub(super) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// One run of an experiment.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    /// Hash of what determines the result.
    pub key: String,
    /// Name of the checkpoint.
    pub checkpoint: String,
    /// Name of the task.
    pub task: String,
    /// Name of the method, if methods have names.
    pub method: Option<String>,
    /// The whole recipe, options without effect at their defaults, paths as in the file.
    pub recipe: Recipe,
    /// What the sweep says of it beyond what its title has anyway.
    note: String,
}

impl Run {
    pub(super) fn new(
        names: [Option<&str>; 3],
        recipe: &Recipe,
        note: String,
    ) -> Result<Self, ExperimentError> {
        let recipe = effective(recipe);
        let name = |given: Option<&str>, path: &Path| match given {
            Some(name) => name.to_owned(),
            None => path.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
        };
        Ok(Self {
            key: key(VERSION, &recipe)?,
            checkpoint: name(names[0], &recipe.model),
            task: name(names[1], &recipe.data),
            method: names[2].map(str::to_owned),
            recipe,
            note,
        })
    }

    /// What wins accuracy back: the name of an adapter, or `none`.
    pub fn adapter(&self) -> &str {
        if self.recipe.recovery.schedule == Schedule::None { NONE } else { &self.recipe.adapt.method }
    }

    /// The run in a few words.
    pub fn title(&self) -> String {
        let (shots, fold) = (self.recipe.shots.per_class, self.recipe.prune.sparsity.compression());
        let (adapter, seed) = (self.adapter(), self.recipe.seed);
        let Self { checkpoint, task, note, .. } = self;
        format!("{checkpoint} {task} {shots} shots {fold:.0}x {adapter}{note} seed {seed}")
    }

    /// The recipe with its files in the folder `root`.
    pub fn recipe_in(&self, root: &Path) -> Recipe {
        let recipe = &self.recipe;
        Recipe {
            model: root.join(&recipe.model),
            labels: recipe.labels.as_ref().map(|path| root.join(path)),
            data: root.join(&recipe.data),
            general: recipe.general.as_ref().map(|path| root.join(path)),
            unlabelled: recipe.unlabelled.as_ref().map(|path| root.join(path)),
            ..recipe.clone()
        }
    }

    /// What determines the pruned network that this run adapts.
    fn base(&self) -> Recipe {
        let Recipe { recovery, .. } = &self.recipe;
        if self.recipe.prune.max_class_drop.is_some() || self.recipe.prune.max_drop.is_some() {
            // How much is pruned hangs on what recovery wins back.
            return self.recipe.clone();
        }
        let recovery = match recovery.schedule {
            // Finetuned between its steps.
            Schedule::Gradual => recovery.clone(),
            // A network that the held-out fold is asked about gets its masks without the fold.
            _ => RecoverySpec {
                recalibrate: recovery.recalibrate,
                pilot: recovery.asks_fold(),
                ..RecoverySpec::default()
            },
        };
        Recipe { recovery, adapt: AdaptSpec::default(), ..self.recipe.clone() }
    }
}

/// Runs that start from the same pruned network, in the order of their first appearance.
pub fn groups(runs: Vec<Run>) -> Vec<Vec<Run>> {
    let mut groups: Vec<(Recipe, Vec<Run>)> = Vec::new();
    for run in runs {
        let base = run.base();
        match groups.iter_mut().find(|(other, _)| *other == base) {
            Some((_, group)) => group.push(run),
            None => groups.push((base, vec![run])),
        }
    }
    groups.into_iter().map(|(_, group)| group).collect()
}

/// The recipe with options that change nothing at their defaults, so that equal runs look equal.
fn effective(recipe: &Recipe) -> Recipe {
    let mut recipe = recipe.effective();
    // A pool no larger than what is taken of it takes any.
    if recipe.shots.general_pool <= recipe.shots.general {
        recipe.shots.general_pool = 0;
    }
    recipe
}

/// Hash of margay's version and the recipe; neither the device nor the number of threads changes it.
pub(super) fn key(version: &str, recipe: &Recipe) -> Result<String, ExperimentError> {
    // Of a run that is kept, what changes nothing may have had other defaults.
    let neutral = Recipe { device: "auto".to_owned(), threads: 0, ..effective(recipe) };
    let text = format!("{version}\n{}", neutral.to_toml()?);
    let hash = Sha256::digest(text.as_bytes());
    Ok(hash.iter().take(8).fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    }))
}
