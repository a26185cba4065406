//! A model file ready to classify photos by the batch.

use std::path::{Path, PathBuf};

use etcetera::BaseStrategy as _;
use margay_core::adapter::{Adapter, AdapterError};
use margay_core::{Footprint, FormatError, LimitError, Limits, SparseModel};
use margay_runtime::{
    Note, PhotoError, Precision, Preprocessor, RuntimeError, Session, SessionOptions, check_logits,
};
use rayon::prelude::*;

use crate::cli::Context;
use crate::cli::exit::{Failure, OrFail};
use crate::cli::limits::LimitArgs;

/// How a model is opened.
#[derive(Debug, clap::Args)]
pub struct EngineArgs {
    /// How values are stored between layers: bf16 is faster, f32 exact
    #[arg(long, value_name = "f32|bf16", default_value_t)]
    pub precision: Precision,
    /// Find the fastest kernels anew instead of keeping them in the user's cache (`MARGAY_CACHE_DIR`)
    #[arg(long)]
    no_tune_cache: bool,
    #[command(flatten)]
    limits: LimitArgs,
}

impl EngineArgs {
    /// Options of a session.
    pub fn options(&self, context: &Context) -> SessionOptions {
        let tune_cache = if self.no_tune_cache { None } else { cache_folder() };
        let (threads, precision, limits) = (context.threads(), self.precision, self.limits());
        SessionOptions { threads, precision, tune_cache, limits, ..SessionOptions::default() }
    }

    /// How much the model may take.
    pub fn limits(&self) -> Limits {
        self.limits.limits()
    }
}

/// Where this user's caches are.
fn cache_folder() -> Option<PathBuf> {
    let named = std::env::var_os("MARGAY_CACHE_DIR").filter(|name| !name.is_empty()).map(PathBuf::from);
    named.or_else(|| Some(etcetera::choose_base_strategy().ok()?.cache_dir().join("margay")))
}

/// Session, preprocessing and labels of one model.
pub struct Engine {
    /// Class names in the order of the logits.
    pub labels: Vec<String>,
    session: Session,
    preprocessor: Preprocessor,
    /// Photos decoded and classified at a time.
    group: usize,
}

/// Photos decoded and classified at a time, where there is memory for as many: keeps every core busy.
const GROUP: u64 = 64;

/// What the model says to one photo.
#[derive(Debug)]
pub struct Answer {
    /// One per label.
    pub logits: Vec<f32>,
    /// What is wrong with the photo, if anything is.
    pub note: Option<Note>,
}

/// The answer to one photo, or why there is none.
pub type Answered = Result<Answer, NoAnswer>;

/// Why a photo has no answer.
#[derive(Debug, thiserror::Error)]
pub enum NoAnswer {
    /// It cannot be read.
    #[error(transparent)]
    Photo(#[from] PhotoError),
    /// The network overflows on it.
    #[error(transparent)]
    NotANumber(#[from] RuntimeError),
}

/// Reads a `.margay` file.
pub fn read_model(path: &Path, limits: &Limits) -> Result<SparseModel, Failure> {
    let read = SparseModel::read_within(path, limits).or_bad_input("could not read the model");
    read.map_err(|failure| match meant(path) {
        Some(hint) => failure.hint(hint),
        None => more_memory(failure),
    })
}

/// What a path that is no model file may have been meant for.
fn meant(path: &Path) -> Option<String> {
    if path.is_dir() {
        let inside = models_in(path);
        return Some(match inside.as_slice() {
            [] => "give a .margay file: `margay compress` writes OUT/specialist.margay".to_owned(),
            [model] => format!("this is a folder: give the model in it, {}", model.display()),
            several => format!(
                "this is a folder of {} models: give one of them, such as {}",
                several.len(),
                several[0].display()
            ),
        });
    }
    let extension = path.extension()?.to_str()?;
    let checkpoint = matches!(extension, "pth" | "pt" | "bin" | "ckpt" | "safetensors");
    checkpoint.then(|| {
        "this looks like a checkpoint: `margay compress --model` makes a .margay file of it".to_owned()
    })
}

/// Model files directly in a folder, sorted.
fn models_in(folder: &Path) -> Vec<PathBuf> {
    let entries = fs_err::read_dir(folder).into_iter().flatten().flatten();
    let mut models: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    models.retain(|path| path.extension().is_some_and(|extension| extension == "margay"));
    models.sort();
    models
}

/// Names the flag that allows more, where memory is what a model needs more of.
pub fn more_memory(failure: Failure) -> Failure {
    let limited = failure.error.chain().find_map(limit);
    let wants_more = matches!(limited, Some(LimitError::Memory { .. } | LimitError::Dense { .. }));
    if wants_more || failure.error.chain().any(is_too_long) {
        return failure.hint("if you trust the file and have the memory, allow more with --max-memory");
    }
    failure
}

/// Whether a model file itself has more bytes than may be held.
fn is_too_long(error: &(dyn std::error::Error + 'static)) -> bool {
    let io = match error.downcast_ref::<FormatError>() {
        Some(FormatError::Io(error)) => Some(error),
        Some(FormatError::File { source, .. }) => return is_too_long(source.as_ref()),
        _ => error.downcast_ref::<std::io::Error>(),
    };
    io.is_some_and(|error| error.kind() == std::io::ErrorKind::FileTooLarge)
}

/// The limit that an error is about, if it is about one.
fn limit<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a LimitError> {
    if let Some(error) = error.downcast_ref::<FormatError>() {
        return limit_of_format(error);
    }
    match (error.downcast_ref::<RuntimeError>(), error.downcast_ref::<AdapterError>()) {
        (Some(RuntimeError::Limit(limit)), _) | (_, Some(AdapterError::Limit(limit))) => Some(limit),
        (Some(RuntimeError::Model(error)), _) | (_, Some(AdapterError::Format(error))) => {
            limit_of_format(error)
        }
        _ => error.downcast_ref::<LimitError>(),
    }
}

fn limit_of_format(error: &FormatError) -> Option<&LimitError> {
    match error {
        FormatError::Limit(limit) => Some(limit),
        FormatError::File { source, .. } => limit_of_format(source),
        _ => None,
    }
}

/// Refuses a model whose weights take too much with every zero stored, for commands that store them.
pub fn check_dense(model: &SparseModel, limits: &Limits) -> Result<(), Failure> {
    let footprint = model.check().or_bad_input("could not use the model")?;
    footprint.check_dense(limits).or_bad_input("could not use the model").map_err(more_memory)
}

/// Reads a `.margay` file and puts an adapter on it, if one is given.
pub fn read_adapted(path: &Path, adapter: Option<&Path>, limits: &Limits) -> Result<SparseModel, Failure> {
    let model = read_model(path, limits)?;
    let Some(folder) = adapter else { return Ok(model) };
    let adapter = Adapter::read(folder)
        .or_bad_input("could not read the adapter")
        .map_err(|failure| failure.hint("give the folder `adapter` that `margay adapt` wrote"))?;
    let hint = "an adapter fits only the very .margay file that `margay adapt` was given";
    let merged = adapter.apply_within(&model, limits).or_bad_input("could not apply the adapter");
    merged.map_err(|failure| more_memory(failure.hint(hint)))
}

impl Engine {
    /// Prepares to run `model`.
    pub fn new(model: &SparseModel, options: &SessionOptions) -> Result<Self, Failure> {
        let session = Session::new(model, options).or_bad_input("could not prepare the model");
        let session = session.map_err(more_memory)?;
        let preprocessor = Preprocessor::new(&model.preprocess);
        let shapes = model.graph.shapes().expect("a graph that a session runs has shapes");
        let photo = Footprint::new(&model.graph, &shapes, &model.preprocess, 0).photo;
        // What the session itself takes has been compared with the limit; a quarter of it is for photos on their way.
        let group = (options.limits.memory / 4 / photo.max(1)).clamp(1, GROUP) as usize;
        Ok(Self { labels: model.labels.clone(), session, preprocessor, group })
    }

    /// How many photos to ask for at a time.
    pub fn group(&self) -> usize {
        self.group
    }

    /// The answer to each photo, in order; photos are decoded in parallel.
    pub fn answer(&mut self, paths: &[PathBuf]) -> Result<Vec<Answered>, Failure> {
        let length = self.preprocessor.image_len();
        let prepare = |path: &PathBuf| -> Result<(Vec<f32>, Option<Note>), PhotoError> {
            let mut input = vec![0.0; length];
            let note = self.preprocessor.read(path, &mut input)?;
            Ok((input, note))
        };
        let inputs: Vec<Result<_, PhotoError>> = paths.par_iter().map(prepare).collect();
        let batch: Vec<f32> = inputs.iter().flatten().flat_map(|(input, _)| input).copied().collect();
        let classes = self.labels.len();
        let mut logits = vec![0.0; batch.len() / length * classes];
        if !batch.is_empty() {
            self.session.run(&batch, &mut logits).or_bad_input("could not run the model")?;
        }
        let mut rows = logits.chunks_exact(classes);
        let answers = inputs.into_iter().map(|input| {
            let (_, note) = input?;
            let row = rows.next().expect("every readable photo has its logits");
            check_logits(row)?;
            Ok(Answer { logits: row.to_vec(), note })
        });
        Ok(answers.collect())
    }
}

/// Probabilities of a row of logits.
pub fn softmax(logits: &[f32]) -> Vec<f32> {
    let highest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let powers: Vec<f32> = logits.iter().map(|logit| (logit - highest).exp()).collect();
    let sum: f32 = powers.iter().sum();
    powers.into_iter().map(|power| power / sum).collect()
}

/// Positions of the `count` highest values, highest first; the earlier of two equal ones first.
pub fn highest(values: &[f32], count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|a, b| values[*b].total_cmp(&values[*a]).then(a.cmp(b)));
    order.truncate(count);
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_sum_to_one_even_for_large_logits() {
        let p = softmax(&[1000.0, 1001.0, -1000.0]);
        assert!((p.iter().sum::<f32>() - 1.0).abs() < 1e-6);
        assert!((p[1] / p[0] - std::f32::consts::E).abs() < 1e-4);
    }

    #[test]
    fn ties_go_to_the_earlier_class() {
        assert_eq!(highest(&[1.0, 3.0, 3.0, 2.0], 3), [1, 2, 3]);
        assert_eq!(highest(&[1.0], 5), [0]);
    }
}
