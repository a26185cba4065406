use std::collections::BTreeMap;
use std::io::{Seek, Write};
use std::path::{Path, PathBuf};

use fs_err::File;
use margay_core::{input, output};
use serde::{Deserialize, Serialize};

use super::run::{VERSION, key};
use super::{ExperimentError, Run};
use crate::recipe::Recipe;
use crate::record::{Choice, Evaluation, Latency, Nonzeros, Stages};

/// A file of this length has the results of thousands of runs.
const MAX_BYTES: u64 = 1 << 30;

/// A finished run: one line of JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// Hash of what determines the result. Not stored: a recipe that is read again has the options that margay
    /// has got since.
    #[serde(skip)]
    pub key: String,
    /// Version of margay that made the line.
    pub version: String,
    /// Name of the checkpoint.
    pub checkpoint: String,
    /// Name of the task.
    pub task: String,
    /// The resolved recipe.
    pub recipe: Recipe,
    /// How the run ended.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// What it measured.
    Measured(Box<Measured>),
    /// Why there is nothing to measure.
    Error(String),
}

/// What a run measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// The task before pruning, on val.
    pub dense: Evaluation,
    /// Pruned, before recovery, on val.
    pub oneshot: Evaluation,
    /// The final network, on val.
    pub specialist: Evaluation,
    /// The class that the final network knows worst.
    pub worst: Option<ClassChange>,
    /// The class that lost most since the dense network.
    pub largest_drop: Option<ClassChange>,
    /// Parameters that recovery trained.
    pub trainable: Trainable,
    /// Weights that are not zero.
    pub nonzeros: Nonzeros,
    /// Whether the final network keeps the same weights as the pruned one.
    pub same_support: bool,
    /// Decisions made on the held-out fold.
    pub choices: Vec<Choice>,
    /// Time per image, if it was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency_ms: Option<Latency>,
    /// Seconds per stage of this run.
    pub seconds: Stages,
    /// Seconds per stage up to the pruned network, which other runs share.
    pub shared_seconds: Stages,
    /// Largest resident set during this run in bytes; absent where the system does not tell.
    pub peak_rss_bytes: Option<u64>,
    /// Everything the user was warned about.
    pub warnings: Vec<String>,
}

/// Recall of a class before and after.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClassChange {
    /// Name of the class.
    pub label: String,
    /// Recall of the dense network.
    pub dense: f64,
    /// Recall of the final network.
    pub specialist: f64,
}

/// Numbers of parameters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trainable {
    /// Trained in the layers: by their adapters, or as surviving weights.
    pub layers: u64,
    /// Trained beside them: head, norms, biases.
    pub beside: u64,
    /// All parameters of the dense network.
    pub all: u64,
}

impl Line {
    /// The result of a run.
    pub fn new(run: &Run, outcome: Outcome) -> Self {
        Self {
            key: run.key.clone(),
            version: VERSION.to_owned(),
            checkpoint: run.checkpoint.clone(),
            task: run.task.clone(),
            recipe: run.recipe.clone(),
            outcome,
        }
    }
}

impl ClassChange {
    /// Classes of both evaluations that have images: the one that is known worst, and the one that lost most.
    pub fn of(dense: &Evaluation, specialist: &Evaluation) -> [Option<Self>; 2] {
        let pair = |(dense, after): (&crate::record::ClassRecall, &crate::record::ClassRecall)| {
            Some(Self { label: dense.label.clone(), dense: dense.recall?, specialist: after.recall? })
        };
        let pairs: Vec<Self> = dense.classes.iter().zip(&specialist.classes).filter_map(pair).collect();
        let worst = pairs.iter().min_by(|a, b| a.specialist.total_cmp(&b.specialist));
        // The first of equals, as with the worst.
        let lost = pairs.iter().min_by(|a, b| b.loss().total_cmp(&a.loss()));
        [worst.cloned(), lost.cloned()]
    }

    /// Recall that was lost; negative where it grew.
    pub fn loss(&self) -> f64 {
        self.dense - self.specialist
    }
}

impl Outcome {
    /// The figures of a run that did not fail.
    pub fn measured(&self) -> Option<&Measured> {
        match self {
            Self::Measured(measured) => Some(measured),
            Self::Error(_) => None,
        }
    }
}

/// The last result of each run in a folder; a success is not replaced by a failure.
#[derive(Clone, Debug, Default)]
pub struct Results(BTreeMap<String, Line>);

impl Results {
    /// Reads every `runs*.jsonl` of the folder; one that does not exist holds nothing.
    pub fn read(folder: &Path) -> Result<Self, ExperimentError> {
        let mut results = Self::default();
        for path in journals(folder)? {
            results.extend(&path, &input::read(&path, MAX_BYTES)?)?;
        }
        Ok(results)
    }

    /// Adds the results of a file's text; `path` only serves to name it in errors.
    pub fn extend(&mut self, path: &Path, text: &[u8]) -> Result<(), ExperimentError> {
        lines(path, text)?.into_iter().for_each(|line| self.insert(line));
        Ok(())
    }

    /// Whether there are files for results in the folder, be they empty.
    pub fn has_any(folder: &Path) -> Result<bool, ExperimentError> {
        Ok(!journals(folder)?.is_empty())
    }

    /// Adds a result.
    pub fn insert(&mut self, line: Line) {
        let kept = self.get(&line.key).is_some_and(|old| old.measured().is_some());
        if !kept || line.outcome.measured().is_some() {
            self.0.insert(line.key.clone(), line);
        }
    }

    /// Takes out what failed.
    pub fn forget_failures(&mut self) {
        self.0.retain(|_, line| line.outcome.measured().is_some());
    }

    /// How a run ended, if it did.
    pub fn get(&self, key: &str) -> Option<&Outcome> {
        self.0.get(key).map(|line| &line.outcome)
    }

    /// Every result.
    pub fn iter(&self) -> impl Iterator<Item = &Line> {
        self.0.values()
    }
}

/// Every `runs*.jsonl` of a folder, which need not exist.
fn journals(folder: &Path) -> Result<Vec<PathBuf>, ExperimentError> {
    if !folder.exists() {
        return Ok(Vec::new());
    }
    let mut paths = Vec::new();
    for entry in fs_err::read_dir(folder)? {
        let path = entry?.path();
        let runs = path.file_stem().is_some_and(|name| name.to_string_lossy().starts_with("runs"));
        if runs && path.extension().is_some_and(|extension| extension == "jsonl") {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

/// Complete lines of a file; what a kill has torn off at its end is left out.
fn lines(path: &Path, text: &[u8]) -> Result<Vec<Line>, ExperimentError> {
    let whole = &text[..complete(text)];
    let parse = |(index, line): (usize, &[u8])| {
        let error = |source| ExperimentError::Line { path: path.to_owned(), line: index + 1, source };
        let line: Line = serde_json::from_slice(line).map_err(error)?;
        Ok(Line { key: key(&line.version, &line.recipe)?, ..line })
    };
    let lines = whole.split_inclusive(|byte| *byte == b'\n').enumerate();
    lines.filter(|(_, line)| !line.trim_ascii().is_empty()).map(parse).collect()
}

/// Bytes up to the end of the last complete line.
fn complete(text: &[u8]) -> usize {
    text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1)
}

/// A file that grows by a line per run; only one process has it.
#[derive(Debug)]
pub struct Journal {
    file: File,
    path: PathBuf,
}

impl Journal {
    /// Opens the file for this process alone and cuts what a kill has torn off at its end.
    pub fn open(path: &Path) -> Result<Self, ExperimentError> {
        // What is there already is a regular file before it is opened, as a pipe would block.
        if path.exists() {
            input::open(path)?;
        }
        let mut file = fs_err::OpenOptions::new().read(true).append(true).create(true).open(path)?;
        match output::lock(file.file()) {
            output::Lock::Held => {}
            output::Lock::Busy => return Err(ExperimentError::Busy(path.to_owned())),
            // Some network file systems have no locks; better to go on there than never.
            output::Lock::None(error) => tracing::warn!(%error, "{} cannot be locked", path.display()),
        }
        if let Some(folder) = path.parent() {
            output::sync_folder(folder)?;
        }
        let text = input::read_opened(&mut file, path, MAX_BYTES)?;
        let end = complete(&text);
        if end < text.len() {
            file.set_len(end as u64)?;
            file.seek(std::io::SeekFrom::End(0))?;
        }
        Ok(Self { file, path: path.to_owned() })
    }

    /// Writes a line and waits until it is on the disk.
    pub fn append(&mut self, line: &Line) -> Result<(), ExperimentError> {
        let mut text = serde_json::to_vec(line).map_err(std::io::Error::from)?;
        text.push(b'\n');
        self.file.write_all(&text)?;
        Ok(self.file.sync_data()?)
    }

    /// Where the lines are.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
mod tests;
