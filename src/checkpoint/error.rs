use std::fmt::Write as _;
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
    /// Loading the file with PyTorch would run code that it names.
    #[error(
        "{}: PyTorch would call `{class}` when it loads this file, which no checkpoint needs; nothing of it was run here. \
         Do not load it; get the weights from somewhere else, as safetensors if there is a choice",
        path.display()
    )]
    Executable {
        /// The file.
        path: PathBuf,
        /// Python name of the class or function.
        class: String,
    },
    /// The file is a compiled program, not weights.
    #[error(
        "{}: this is a TorchScript program; if you trust whoever made it, save its weights instead:\n{}",
        path.display(), resave(path)
    )]
    TorchScript {
        /// The file.
        path: PathBuf,
    },
    /// Several layers may be the classifier, or none has the name that was given.
    #[error(
        "{}: {}; pass --head with the name of the classifier, or --head none to fit a new one", path.display(),
        heads(asked.as_deref(), found)
    )]
    Heads {
        /// The file.
        path: PathBuf,
        /// The name that the user gave.
        asked: Option<String>,
        /// The layers that may be meant.
        found: Vec<String>,
    },
    /// A weight cannot be put together from its parts.
    #[error("{}: {reason}", path.display())]
    Fold {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        reason: String,
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
    #[error("{}: `{key}` is stored as {dtype}, expected f64, f32, f16, bf16 or f8", path.display())]
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
    pub(super) fn heads(path: &Path, asked: Option<&str>, found: Vec<String>) -> Self {
        Self::Heads { path: path.to_owned(), asked: asked.map(str::to_owned), found }
    }

    pub(super) fn foreign(path: &Path, foreign: Foreign) -> Self {
        Self::Foreign { path: path.to_owned(), what: foreign.what, advice: foreign.advice }
    }
}

/// Names of files between two texts; nothing where there is none.
fn listed(files: &[PathBuf], before: &str, after: &str) -> String {
    let names: Vec<String> = files.iter().map(|file| format!("`{}`", file.display())).collect();
    if names.is_empty() { String::new() } else { format!("{before}{}{after}", names.join(", ")) }
}

fn heads(asked: Option<&str>, found: &[String]) -> String {
    let found = match found {
        [] => "no layer fits behind the body".to_owned(),
        found => format!("these layers fit behind the body: {}", found.join(", ")),
    };
    match asked {
        Some(name) => format!("`{name}` is no layer that can be the classifier; {found}"),
        None => format!("more than one layer may be the classifier; {found}"),
    }
}

/// Lines of Python that save the weights of a program.
fn resave(path: &Path) -> String {
    let weights = path.with_extension("weights.pth");
    format!(
        "    import torch\n    program = torch.jit.load({}, map_location=\"cpu\")\n    \
         torch.save(program.state_dict(), {})",
        python(path),
        python(&weights)
    )
}

/// A path as Python writes it; bytes that are no text as Python keeps them in names of files.
fn python(path: &Path) -> String {
    const MEMORY: &str = "writing to memory does not fail";
    let mut text = String::from("\"");
    for chunk in path.as_os_str().as_encoded_bytes().utf8_chunks() {
        for letter in chunk.valid().chars() {
            match letter {
                '"' | '\\' => text.extend(['\\', letter]),
                c if c.is_control() => write!(text, "\\x{:02x}", u32::from(c)).expect(MEMORY),
                c => text.push(c),
            }
        }
        for byte in chunk.invalid() {
            write!(text, "\\udc{byte:02x}").expect(MEMORY);
        }
    }
    text + "\""
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_strings_of_python() {
        assert_eq!(python(Path::new("a \"b\" \\ \n é")), "\"a \\\"b\\\" \\\\ \\x0a é\"");
    }

    #[cfg(unix)]
    #[test]
    fn bytes_that_are_no_text_are_surrogates() {
        use std::os::unix::ffi::OsStrExt;
        let path = Path::new(std::ffi::OsStr::from_bytes(b"f\xfcchse.pt"));
        assert_eq!(python(path), "\"f\\udcfcchse.pt\"");
    }
}
