use std::path::PathBuf;

use crate::{CsrError, FormatError, GraphError, LimitError, ParamsError};

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
    /// It was trained by another program, so that nothing says on which model.
    #[error(
        "{} is an adapter of another program: it names no .margay file that it fits, so it is not applied; \
         merge it into its checkpoint with PEFT and compress that", path.display()
    )]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// The low-rank part of a weight has a rank beyond sense.
    #[error("the adapter's part for `{name}` has rank {rank}; at most {limit} is allowed")]
    Rank {
        /// Name of the parameter.
        name: String,
        /// The rank.
        rank: usize,
        /// Largest rank.
        limit: usize,
    },
    /// A file is missing, no regular file, or too long; the message names it.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// A file is unsound.
    #[error("{}: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A file cannot be written.
    #[error("could not write the adapter")]
    Write(#[source] std::io::Error),
    /// A merged weight is unsound.
    #[error("the adapted weight is unsound")]
    Csr(#[from] CsrError),
    /// The branches do not fit the graph.
    #[error("the adapter's branches do not fit the graph")]
    Graph(#[from] GraphError),
    /// The adapted parameters do not fit the graph.
    #[error(transparent)]
    Params(#[from] ParamsError),
    /// The base or the merged model is unsound, or takes more than is allowed.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// The adapter needs every zero of the base, which takes more than is allowed.
    #[error(transparent)]
    Limit(#[from] LimitError),
}

impl AdapterError {
    pub(super) fn unknown(name: &str) -> Self {
        Self::Unknown { name: name.to_owned() }
    }

    pub(super) fn shape(name: &str) -> Self {
        Self::Shape { name: name.to_owned() }
    }
}
