use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

use margay_core::nearest_name;
use sha2::{Digest, Sha256};
use toml::{Table, Value};

use super::summary::{METHOD, check_curve};
use super::{Experiment, ExperimentError};
use crate::options::merge;
use crate::recipe::{AdaptSpec, Recipe, RecoverySpec, Schedule, Shots, Tuned, parse_compression};

/// Axes by name with the key of a recipe that they set, outermost first. Some of them do more than that.
const AXES: &[(&str, &str)] = &[
    ("seed", "seed"),
    ("checkpoint", "model"),
    ("task", "data"),
    (METHOD, "method"),
    ("general", "general"),
    ("unlabelled", "unlabelled"),
    ("shots", "shots.per-class"),
    ("compression", "prune.sparsity"),
    ("sparsity", "prune.sparsity"),
    ("solver", "prune.solver"),
    ("allocation", "prune.allocation"),
    ("recalibrate", "recovery.recalibrate"),
    ("epochs", "recovery.epochs"),
    ("r", "adapt.r"),
    ("d", "adapt.d"),
    ("budget", "adapt.budget"),
    ("adapter", "adapt.method"),
    ("policy", "adapt.policy"),
    ("init", "adapt.init"),
];

/// Part of what determines a result.
pub(super) const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Stands for every checkpoint, task, method or adapter there is.
const ALL: &str = "all";
/// The adapter of a run that only prunes.
pub(super) const NONE: &str = "none";

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
    fn new(names: [Option<&str>; 3], recipe: &Recipe, note: String) -> Result<Self, ExperimentError> {
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

impl Experiment {
    /// Parts of recipes by axis, in the order in which they are put together.
    fn parts(&self) -> [(&'static str, &BTreeMap<String, Table>); 3] {
        [("checkpoint", &self.checkpoints), ("task", &self.tasks), (METHOD, &self.methods)]
    }

    /// Every run once, sweep by sweep. `adapters` is what `adapter = "all"` stands for.
    pub fn runs(&self, adapters: &[&str]) -> Result<Vec<Run>, ExperimentError> {
        let named = self.sweeps.iter().filter(|axes| axes.contains_key(METHOD)).count();
        if ![0, self.sweeps.len()].contains(&named) {
            return Err(ExperimentError::Methods { named, sweeps: self.sweeps.len() });
        }
        let mut seen = BTreeSet::new();
        let mut runs = Vec::new();
        for (index, axes) in self.sweeps.iter().enumerate() {
            let sweep = Sweep { experiment: self, axes, number: index + 1, adapters };
            for run in sweep.runs()? {
                if seen.insert(run.key.clone()) {
                    runs.push(run);
                }
            }
        }
        if let Some(axis) = &self.about.curve {
            check_curve(axis, &runs)?;
        }
        Ok(runs)
    }
}

/// Runs of a sweep: more take years.
const MAX_RUNS: usize = 10_000;

/// One `[[sweep]]` on its way to runs.
struct Sweep<'a> {
    experiment: &'a Experiment,
    axes: &'a Table,
    number: usize,
    adapters: &'a [&'a str],
}

/// Values of some axes: one point of a grid.
type Point = Vec<(String, Value)>;

impl Sweep<'_> {
    fn runs(&self) -> Result<Vec<Run>, ExperimentError> {
        let mut axes = Vec::new();
        flatten("", self.axes, &mut axes);
        axes.sort_by_key(|(name, _)| AXES.iter().position(|(axis, _)| axis == name).unwrap_or(AXES.len()));
        let mut points: Vec<Point> = vec![Vec::new()];
        for (axis, values) in axes {
            let values = self.values(&axis, values)?;
            let with = |point: &Point, value: &Value| {
                point.iter().cloned().chain([(axis.clone(), value.clone())]).collect::<Point>()
            };
            let count = points.len().saturating_mul(values.len());
            if count > MAX_RUNS {
                return Err(ExperimentError::TooMany { sweep: self.number, count, limit: MAX_RUNS });
            }
            points = points.iter().flat_map(|p| values.iter().map(move |v| with(p, v))).collect();
        }
        points.iter().map(|point| self.run(point)).collect()
    }

    /// The values of an axis, checked as far as names go.
    fn values(&self, axis: &str, value: Value) -> Result<Vec<Value>, ExperimentError> {
        if !axis.contains('.') && !AXES.iter().any(|(name, _)| *name == axis) {
            let nearest = nearest_name(axis, AXES.iter().map(|(name, _)| *name));
            return Err(ExperimentError::Axis { sweep: self.number, axis: axis.to_owned(), nearest });
        }
        let all = |names: Vec<&str>| names.into_iter().map(Value::from).collect();
        let values = match (axis, value.as_str()) {
            ("adapter", Some(ALL)) => all(self.adapters.to_vec()),
            (_, Some(ALL)) => match self.experiment.parts().into_iter().find(|(of, _)| *of == axis) {
                Some((_, parts)) => all(parts.keys().map(String::as_str).collect()),
                None => vec![value],
            },
            _ => match value {
                Value::Array(values) => values,
                value => vec![value],
            },
        };
        match values.as_slice() {
            [] => Err(self.wrong(axis, &Value::Array(Vec::new()), "there must be at least one value")),
            _ => Ok(values),
        }
    }

    fn run(&self, point: &Point) -> Result<Run, ExperimentError> {
        let mut recipe = self.experiment.recipe.clone();
        let mut names = [None; 3];
        for (name, (axis, parts)) in names.iter_mut().zip(self.experiment.parts()) {
            let Some((_, value)) = point.iter().find(|(given, _)| given == axis) else { continue };
            let (found, part) = self.part(axis, value, parts)?;
            *name = Some(found);
            merge(&mut recipe, part);
        }
        for (axis, value) in point {
            self.set(&mut recipe, axis, value)?;
        }
        let recipe =
            recipe.try_into().map_err(|source| ExperimentError::Recipe { sweep: self.number, source })?;
        Run::new(names, &recipe, note(point))
    }

    /// The part of a recipe with this name.
    fn part<'p>(
        &self,
        axis: &'static str,
        value: &Value,
        parts: &'p BTreeMap<String, Table>,
    ) -> Result<(&'p str, &'p Table), ExperimentError> {
        let Some(name) = value.as_str() else {
            return Err(self.wrong(axis, value, &format!("must be the name of a {axis}")));
        };
        let found = parts.get_key_value(name).map(|(name, part)| (name.as_str(), part));
        found.ok_or_else(|| ExperimentError::Name {
            sweep: self.number,
            axis,
            name: name.to_owned(),
            nearest: nearest_name(name, parts.keys().map(String::as_str)),
        })
    }

    fn set(&self, recipe: &mut Table, axis: &str, value: &Value) -> Result<(), ExperimentError> {
        let key = AXES.iter().find(|(name, _)| *name == axis).map_or(axis, |(_, key)| key);
        let value = match axis {
            "checkpoint" | "task" | METHOD => return Ok(()),
            "adapter" if value.as_str() == Some(NONE) => return self.put(recipe, "recovery.schedule", value),
            "compression" => self.sparsity(value)?,
            _ => value.clone(),
        };
        if ["adapt.r", "adapt.d"].contains(&key) {
            // A rank or density of a sweep is meant instead of the common budget.
            if let Some(Value::Table(adapt)) = recipe.get_mut("adapt") {
                adapt.remove("budget");
            }
        }
        self.put(recipe, key, &value)
    }

    fn sparsity(&self, value: &Value) -> Result<Value, ExperimentError> {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let sparsity = parse_compression(&text)
            .map_err(|_| self.wrong("compression", value, "must be a factor such as \"20x\""))?;
        Ok(Value::Float(sparsity.fraction()))
    }

    /// Sets the value at a dotted key.
    fn put(&self, table: &mut Table, key: &str, value: &Value) -> Result<(), ExperimentError> {
        let Some((section, rest)) = key.split_once('.') else {
            table.insert(key.to_owned(), value.clone());
            return Ok(());
        };
        match table.entry(section).or_insert_with(|| Value::Table(Table::new())) {
            Value::Table(inner) => self.put(inner, rest, value),
            other => Err(self.wrong(section, other, "must be a section of the recipe")),
        }
    }

    fn wrong(&self, axis: &str, value: &Value, expected: &str) -> ExperimentError {
        ExperimentError::Value {
            sweep: self.number,
            axis: axis.to_owned(),
            value: value.to_string(),
            expected: expected.to_owned(),
        }
    }
}

/// Axes that the title of a run does not name anyway, with their values.
fn note(point: &Point) -> String {
    const TOLD: [&str; 6] = ["seed", "checkpoint", "task", "shots", "compression", "adapter"];
    let others = point.iter().filter(|(axis, _)| !TOLD.contains(&axis.as_str()));
    others.fold(String::new(), |text, (axis, value)| {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        format!("{text} {axis} {value}")
    })
}

/// The name of the axis that sets a key of a recipe, else the key's last part.
pub(super) fn axis_of(key: &str) -> &str {
    let axis = AXES.iter().find(|(_, of)| *of == key).map(|(axis, _)| *axis);
    axis.unwrap_or_else(|| key.rsplit('.').next().unwrap_or(key))
}

/// Leaves of a table with their dotted keys.
pub(super) fn flatten(prefix: &str, table: &Table, leaves: &mut Vec<(String, Value)>) {
    for (key, value) in table {
        let key = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        match value {
            Value::Table(inner) => flatten(&key, inner, leaves),
            value => leaves.push((key, value.clone())),
        }
    }
}

/// The recipe with options that change nothing at their defaults, so that equal runs look equal.
fn effective(recipe: &Recipe) -> Recipe {
    let mut recipe = recipe.effective();
    let Shots { general, general_pool, .. } = recipe.shots;
    let ranks = recipe.general.is_some() && recipe.prune.general_share != Tuned::Value(0.0);
    if !ranks {
        recipe.shots.general_pool = Shots::default().general_pool;
    } else if general_pool <= general {
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

#[cfg(test)]
mod tests;
