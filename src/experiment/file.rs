use std::collections::BTreeMap;

use serde::Deserialize;
use toml::Table;

use super::ExperimentError;

/// An experiment as its file says it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Experiment {
    /// Name and purpose.
    #[serde(rename = "experiment")]
    pub about: About,
    /// Parts of recipes by the names that the axis `checkpoint` takes.
    #[serde(default)]
    pub(super) checkpoints: BTreeMap<String, Table>,
    /// Parts of recipes by the names that the axis `task` takes.
    #[serde(default)]
    pub(super) tasks: BTreeMap<String, Table>,
    /// Parts of recipes by the names that the axis `method` takes.
    #[serde(default)]
    pub(super) methods: BTreeMap<String, Table>,
    /// What every run starts from.
    #[serde(default)]
    pub(super) recipe: Table,
    /// What is run, in the order of the file: each is the cross product of its axes.
    #[serde(rename = "sweep")]
    pub(super) sweeps: Vec<Table>,
}

/// What an experiment is called and what it is for.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct About {
    /// Name of the output folder and of the marks in documents.
    pub name: String,
    /// A paragraph above the tables.
    #[serde(default)]
    pub description: String,
    /// The adapter that the others are compared with, seed by seed.
    #[serde(default)]
    pub reference: Option<String>,
    /// The axis along which accuracy is drawn as a curve; absent: rows are drawn below each other.
    #[serde(default)]
    pub curve: Option<String>,
}

impl Experiment {
    /// Reads an experiment; recipes are checked when it is unfolded.
    pub fn parse(text: &str) -> Result<Self, ExperimentError> {
        Ok(toml::from_str(text)?)
    }
}
