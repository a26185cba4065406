use std::path::PathBuf;

use crate::{CsrError, FormatError, GraphError, ParamsError};

/// Why an adapter cannot be read, written or applied.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AdapterError {
    /// It was trained on another model.
    #[error("the adapter was trained on another model than this one; use the .margay file it was made from")]
    OtherBase,
    /// It was trained on a checkpoint.
    #[error(
        "the adapter was trained on a checkpoint, not on a .margay file; load it with PEFT, or use the merged model"
    )]
    OfCheckpoint,
    /// The model has no such parameter.
    #[error("the model has no parameter `{name}`, which the adapter changes")]
    Unknown {
        /// Name of the parameter.
        name: String,
    },
    /// Extents or positions do not fit.
    #[error("the adapter's values for `{name}` do not fit the model's")]
    Shape {
        /// Name of the parameter.
        name: String,
    },
    /// A file is missing or unsound.
    #[error("{}: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A file cannot be written.
    #[error("could not write the adapter")]
    Write(#[from] std::io::Error),
    /// A merged weight is unsound.
    #[error("the adapted weight is unsound")]
    Csr(#[from] CsrError),
    /// The branches do not fit the graph.
    #[error("the adapter's branches do not fit the graph")]
    Graph(#[from] GraphError),
    /// The adapted parameters do not fit the graph.
    #[error(transparent)]
    Params(#[from] ParamsError),
    /// The base cannot be written, so that it has no fingerprint.
    #[error(transparent)]
    Format(#[from] FormatError),
}

impl AdapterError {
    pub(super) fn unknown(name: &str) -> Self {
        Self::Unknown { name: name.to_owned() }
    }

    pub(super) fn shape(name: &str) -> Self {
        Self::Shape { name: name.to_owned() }
    }
}
