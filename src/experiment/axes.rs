//! Names of what experiments vary.

use toml::{Table, Value};

/// Axes by name with the key of a recipe that they set, outermost first. Some of them do more than that.
pub(super) const AXES: &[(&str, &str)] = &[
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

/// Keys of facts that are no plain keys of a recipe, or are read otherwise.
pub(super) const METHOD: &str = "method";
/// Stands for every checkpoint, task, method or adapter there is.
pub(super) const ALL: &str = "all";
/// The adapter of a run that only prunes.
pub(super) const NONE: &str = "none";

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
