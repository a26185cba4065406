//! What tells runs apart.

use std::collections::{BTreeMap, BTreeSet};

use margay_core::nearest_name;
use toml::{Table, Value};

use super::ExperimentError;
use super::axes::{METHOD, NONE, axis_of, flatten};
use super::run::Run;
use crate::recipe::has_options;

/// Values of a recipe by dotted key, as people read them.
pub(super) type Facts = BTreeMap<String, String>;

pub(super) const COMPRESSION: &str = "prune.sparsity";

pub(super) const SHOTS: &str = "shots.per-class";

/// What determines a run, by dotted key, without what its name or its seed say.
pub(super) fn facts(run: &Run) -> Result<Facts, ExperimentError> {
    let mut leaves = Vec::new();
    flatten("", &Table::try_from(&run.recipe)?, &mut leaves);
    let mut facts: Facts = leaves.into_iter().map(|(key, value)| (key, text(&value))).collect();
    for named in ["model", "labels", "data", "seed", "device", "threads"] {
        facts.remove(named);
    }
    facts.insert(COMPRESSION.to_owned(), fold(run.recipe.prune.sparsity.compression()));
    facts.insert(SHOTS.to_owned(), shots(run.recipe.shots.per_class));
    let adapter = run.adapter();
    // Options without effect would look like a choice.
    if adapter == NONE {
        facts.retain(|key, _| is_shared(key));
    }
    if adapter == NONE || !has_options(adapter) {
        facts.retain(|key, _| !key.starts_with("adapt."));
    }
    facts.insert("adapt.method".to_owned(), adapter.to_owned());
    if let Some(name) = &run.method {
        facts.insert(METHOD.to_owned(), name.clone());
    }
    Ok(facts)
}

/// An axis that all runs agree on has no curve.
pub(super) fn check_curve(axis: &str, runs: &[Run]) -> Result<(), ExperimentError> {
    let facts = runs.iter().map(facts).collect::<Result<Vec<_>, _>>()?;
    let axes: Vec<&str> = differing(&facts).into_iter().map(axis_of).collect();
    if axes.contains(&axis) {
        return Ok(());
    }
    Err(ExperimentError::Curve { axis: axis.to_owned(), nearest: nearest_name(axis, axes.into_iter()) })
}

/// `16`, or `all`.
pub(super) fn shots(count: usize) -> String {
    if count == 0 { "all".to_owned() } else { count.to_string() }
}

/// `20×`, with one decimal where there is one.
pub(super) fn fold(compression: f64) -> String {
    format!("{}×", (10.0 * compression).round() / 10.0)
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Whether a key of a recipe matters before recovery.
pub(super) fn is_shared(key: &str) -> bool {
    !key.starts_with("adapt.") && (!key.starts_with("recovery.") || key == "recovery.recalibrate")
}

/// Keys with more than one value.
pub(super) fn differing<'f>(facts: impl IntoIterator<Item = &'f Facts>) -> Vec<&'f str> {
    let mut values: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (key, value) in facts.into_iter().flatten() {
        values.entry(key).or_default().insert(value);
    }
    values.into_iter().filter(|(_, values)| values.len() > 1).map(|(key, _)| key).collect()
}
