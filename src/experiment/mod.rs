//! Sweeps: many runs from one file, resumable, and the tables and plots that they give.
//!
//! ```text
//! FILE.toml ─ Experiment ─→ runs ─ groups ─ pipeline::experiment ─→ runs*.jsonl ─ Results
//!                                                                                   │
//!                        tables.md, plots/*.svg, docs/results.md ←─ Summary ←───────┘
//! ```
//! A run is a recipe and is known by the hash of it. Runs that share everything up to the pruned network are a
//! group, which is pruned once.

mod axes;
mod curve;
mod facts;
mod file;
mod grid;
mod journal;
mod plan;
mod plot;
mod run;
mod splice;
mod statistics;
mod summary;
mod table;
#[cfg(test)]
mod testing;

use std::path::PathBuf;

pub use file::{About, Experiment};
pub use journal::{ClassChange, Journal, Line, Measured, Outcome, Results, Trainable};
pub use plan::{Plan, Shard};
pub use plot::plot;
pub use run::{Run, groups};
pub use splice::splice;
pub use statistics::Estimate;
pub use summary::{Group, Row, Summary};
pub use table::{markdown, slug};

/// Why an experiment cannot go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExperimentError {
    /// The file is no experiment.
    #[error("not an experiment: {0}")]
    Toml(#[from] toml::de::Error),
    /// A sweep varies something that does not exist.
    #[error("sweep {sweep} varies `{axis}`, which is no axis and no dotted key of a recipe")]
    Axis {
        /// Number of the sweep, from 1.
        sweep: usize,
        /// The name in the file.
        axis: String,
        /// The axis that looks most like it.
        nearest: Option<String>,
    },
    /// A sweep has more runs than anyone waits for.
    #[error("sweep {sweep} has {count} runs or more; at most {limit} are allowed")]
    TooMany {
        /// Number of the sweep, from 1.
        sweep: usize,
        /// Runs of its axes up to one that is too many.
        count: usize,
        /// Most runs.
        limit: usize,
    },
    /// Some sweeps name their methods and some do not.
    #[error("{named} of {sweeps} sweeps have a `method`, but all must have one or none")]
    Methods {
        /// How many have one.
        named: usize,
        /// How many there are.
        sweeps: usize,
    },
    /// The axis of the curve is none.
    #[error("`curve` is `{axis}`, which no sweep varies")]
    Curve {
        /// The name in the file.
        axis: String,
        /// The axis that looks most like it.
        nearest: Option<String>,
    },
    /// A sweep names a checkpoint, task or method that the file does not have.
    #[error("sweep {sweep}: there is no {axis} `{name}`")]
    Name {
        /// Number of the sweep, from 1.
        sweep: usize,
        /// `checkpoint`, `task` or `method`.
        axis: &'static str,
        /// The name in the sweep.
        name: String,
        /// The name that looks most like it.
        nearest: Option<String>,
    },
    /// A value of a sweep does not fit its axis.
    #[error("sweep {sweep}: `{axis}` is {value}, but {expected}")]
    Value {
        /// Number of the sweep, from 1.
        sweep: usize,
        /// The axis.
        axis: String,
        /// The value as TOML.
        value: String,
        /// What is right.
        expected: String,
    },
    /// What a sweep says of a run is no recipe.
    #[error("sweep {sweep} gives no recipe: {source}")]
    Recipe {
        /// Number of the sweep, from 1.
        sweep: usize,
        /// What is wrong with it.
        source: toml::de::Error,
    },
    /// A recipe cannot be written as TOML.
    #[error("a recipe cannot be written")]
    Text(#[from] toml::ser::Error),
    /// A line of the results cannot be read.
    #[error("{}, line {line}, is no result of a run", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Number of the line, from 1.
        line: usize,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// Another process writes the same results.
    #[error("another process is writing {}", .0.display())]
    Busy(PathBuf),
    /// The text has no place for the tables.
    #[error("there is no `{0}` in the text")]
    Marker(String),
    /// A file cannot be read or written.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}
