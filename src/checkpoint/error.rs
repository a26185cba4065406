use std::path::PathBuf;

use margay_core::ParamsError;

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
    /// The file was cut off or changed after it was written.
    #[error("{}: damaged: {reason}", path.display())]
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
        resave(path)
    )]
    Executable {
        /// The file.
        path: PathBuf,
        /// Python name of the class or function.
        class: String,
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
    #[error("{}: stores {got} class names for {classes} classes", path.display())]
    Labels {
        /// The file.
        path: PathBuf,
        /// Outputs of the classifier.
        classes: usize,
        /// Names found.
        got: usize,
    },
}

/// A few lines of Python that turn a trusted file into safetensors.
fn resave(path: &std::path::Path) -> String {
    let safe = path.with_extension("safetensors");
    format!(
        "    # only if you trust whoever made the file: this may run code in it\n    \
         import torch, safetensors.torch\n    \
         m = torch.load({:?}, map_location=\"cpu\", weights_only=False)\n    \
         safetensors.torch.save_file({{k: v.contiguous() for k, v in m.state_dict().items()}}, {:?})",
        path.display().to_string(),
        safe.display().to_string()
    )
}
