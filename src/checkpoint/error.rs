use std::path::{Path, PathBuf};

use margay_core::ParamsError;

use super::foreign::Foreign;
use crate::models::ModelError;

/// Why a checkpoint cannot be used. Every message names the file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// The operating system refuses; the message names the path.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// Neither safetensors nor any container of `torch.save`.
    #[error("{}: neither a safetensors file nor a PyTorch checkpoint: {reason}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The file is something else than a classifier's weights.
    #[error("{}: this is {what}; {advice}", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What it is.
        what: &'static str,
        /// What to do about it.
        advice: &'static str,
    },
    /// A folder without weights that can be read.
    #[error(
        "{}: holds no .safetensors, .bin, .pth, .pt or .ckpt file{}", path.display(),
        listed(found, "; it holds ", " of another framework: get the PyTorch weights")
    )]
    NoWeights {
        /// The folder.
        path: PathBuf,
        /// Weights of other frameworks in it.
        found: Vec<PathBuf>,
    },
    /// A folder with more than one file that may be meant.
    #[error("{}: holds several files of weights{}; pass the one that is meant", path.display(), listed(found, ": ", ""))]
    SeveralWeights {
        /// The folder.
        path: PathBuf,
        /// Their names.
        found: Vec<PathBuf>,
    },
    /// The index of a checkpoint in several files is unusable.
    #[error("{}: this index of shards is unusable: {reason}", path.display())]
    Index {
        /// The index.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A file that the index lists is not there.
    #[error(
        "{}: this part of the weights is missing ({missing} of the {shards} that {} lists); download it into \
         the same folder", shard.display(), index.display()
    )]
    MissingShard {
        /// The index.
        index: PathBuf,
        /// The first file that is missing.
        shard: PathBuf,
        /// How many are missing.
        missing: usize,
        /// How many the index lists.
        shards: usize,
    },
    /// A file of a sharded checkpoint lacks a tensor that the index promises.
    #[error("{}: holds no `{key}`, which {} promises; download both again", shard.display(), index.display())]
    Shard {
        /// The index.
        index: PathBuf,
        /// The file.
        shard: PathBuf,
        /// Key of the tensor.
        key: String,
    },
    /// A configuration file beside the weights is unusable.
    #[error("{}: not a usable configuration: {reason}; mend or remove it", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The file was cut off or changed after it was written.
    #[error("{}: damaged: {reason}; download or copy it again", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Loading the file the usual way would run code that it names.
    #[error(
        "{}: holds `{class}`, which only running code could load; if you trust where the file comes from, \
         re-save its weights:\n{}",
        path.display(),
        resave(path, "torch.load({path}, map_location=\"cpu\", weights_only=False)")
    )]
    Executable {
        /// The file.
        path: PathBuf,
        /// Python name of the class or function.
        class: String,
    },
    /// The file is a compiled program, not weights.
    #[error(
        "{}: this is a TorchScript program; save its weights instead:\n{}", path.display(),
        resave(path, "torch.jit.load({path}, map_location=\"cpu\")")
    )]
    TorchScript {
        /// The file.
        path: PathBuf,
    },
    /// Tensors claim far more bytes than the file holds.
    #[error("{}: tensors claim {claimed} bytes, the file has {file}", path.display())]
    Oversized {
        /// The file.
        path: PathBuf,
        /// Bytes of all tensors together.
        claimed: u64,
        /// Bytes of the file.
        file: u64,
    },
    /// There is no tensor in the file.
    #[error("{}: holds no tensor", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// A tensor is stored as something else than floating point numbers.
    #[error("{}: `{key}` is stored as {dtype}, expected f32, f16, bf16 or f64", path.display())]
    Dtype {
        /// The file.
        path: PathBuf,
        /// Key of the tensor.
        key: String,
        /// Type it is stored as.
        dtype: String,
    },
    /// The tensors are no model that can be built.
    #[error("{}: not a supported model", path.display())]
    Model {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        source: ModelError,
    },
    /// A tensor is missing, extra, misshapen or not finite.
    #[error("{}: the tensors do not make up the model", path.display())]
    Params {
        /// The file.
        path: PathBuf,
        /// Which one, by the checkpoint's own key.
        source: ParamsError,
    },
    /// A running variance is negative, so that its square root is no number.
    #[error("{}: `{key}` holds a negative variance", path.display())]
    Variance {
        /// The file.
        path: PathBuf,
        /// Key of the tensor.
        key: String,
    },
    /// Class names are stored, but not one per class.
    #[error(
        "{}: stores {got} class names for {classes} classes; correct them there, or pass --labels",
        path.display()
    )]
    Labels {
        /// The file that stores the names.
        path: PathBuf,
        /// Outputs of the classifier.
        classes: usize,
        /// Names found.
        got: usize,
    },
}

impl CheckpointError {
    pub(super) fn foreign(path: &Path, foreign: Foreign) -> Self {
        Self::Foreign { path: path.to_owned(), what: foreign.what, advice: foreign.advice }
    }
}

/// Names of files between two texts; nothing where there is none.
fn listed(files: &[PathBuf], before: &str, after: &str) -> String {
    let names: Vec<String> = files.iter().map(|file| format!("`{}`", file.display())).collect();
    if names.is_empty() { String::new() } else { format!("{before}{}{after}", names.join(", ")) }
}

/// A few lines of Python that turn a trusted file into safetensors; `load` says how its `{path}` is read.
fn resave(path: &Path, load: &str) -> String {
    let quoted = |path: &Path| format!("{:?}", path.display().to_string());
    format!(
        "    # only if you trust whoever made the file: this may run code in it\n    \
         import torch, safetensors.torch\n    \
         m = {}\n    \
         safetensors.torch.save_file({{k: v.contiguous() for k, v in m.state_dict().items()}}, {})",
        load.replace("{path}", &quoted(path)),
        quoted(&path.with_extension("safetensors"))
    )
}
