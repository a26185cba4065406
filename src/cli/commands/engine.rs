//! Model files and how they are run: what `predict`, `eval` and their like have in common.

use std::path::{Path, PathBuf};

use etcetera::BaseStrategy as _;
use margay_core::adapter::{Adapter, AdapterError};
use margay_core::{FormatError, LimitError, Limits, SparseModel};
use margay_runtime::{Classifier, ClassifierError, Precision, RuntimeError, SessionOptions};

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
    match error.downcast_ref::<ClassifierError>() {
        Some(ClassifierError::Format(error)) => return limit(error),
        Some(ClassifierError::Runtime(error)) => return limit(error),
        _ => {}
    }
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

/// Prepares a model to classify photos.
pub fn classifier(model: &SparseModel, options: &SessionOptions) -> Result<Classifier, Failure> {
    Classifier::from_model(model, options).or_bad_input("could not prepare the model").map_err(more_memory)
}
