use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

/// Why an output is not where it was to be.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OutputError {
    /// The path ends in no name, such as `/` or `..`.
    #[error("`{}` is no name for an output", .0.display())]
    Name(PathBuf),
    /// A folder above the goal is missing.
    #[error("there is no folder {} for {}", parent.display(), goal.display())]
    Parent {
        /// Where the output was to be.
        goal: PathBuf,
        /// What is missing.
        parent: PathBuf,
    },
    /// A file stands there.
    #[error("{} exists", .0.display())]
    FileExists(PathBuf),
    /// A folder with something in it stands there.
    #[error("{} exists and is not an empty folder", .0.display())]
    FolderExists(PathBuf),
    /// A folder stands there that may only be replaced if it is an earlier output.
    #[error("{} exists and is no earlier output: there is no `{mark}` in it", goal.display())]
    Foreign {
        /// The folder.
        goal: PathBuf,
        /// What an earlier output would hold.
        mark: &'static str,
    },
    /// A file is to be written where a folder stands or is named.
    #[error("{} is a folder, but a file is to be written", .0.display())]
    IsFolder(PathBuf),
    /// A folder is to be written where something else stands.
    #[error("{} is no folder, but a folder is to be written there", .0.display())]
    IsNoFolder(PathBuf),
    /// The goal is a link to nothing.
    #[error("{} is a link that leads nowhere", .0.display())]
    Dangling(PathBuf),
    /// A file system begins at the goal, so that no folder can take its place.
    #[error("{} is a mount point, which a finished folder cannot replace", .0.display())]
    Mount(PathBuf),
    /// Another process writes the same output.
    #[error("another margay is writing {}", .0.display())]
    Busy(PathBuf),
    /// The output is complete, but stands elsewhere.
    #[error("{why}: the result is in {}", kept.display())]
    Elsewhere {
        /// Where it is.
        kept: PathBuf,
        /// Why it is not at its goal.
        why: Kept,
        /// What the system said, unless something stands at the goal.
        #[source]
        source: Option<io::Error>,
    },
    /// The system refuses.
    #[error("could not {what} {}", path.display())]
    Io {
        /// A verb.
        what: &'static str,
        /// The output.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// Why a complete output is not at its goal.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Kept {
    /// Something stands there that was not there before, or is no longer what it was.
    #[error("{} has appeared meanwhile and is not replaced", .0.display())]
    Appeared(PathBuf),
    /// The system refuses to rename it.
    #[error("could not put the result at {}", .0.display())]
    Refused(PathBuf),
}

impl OutputError {
    pub(super) fn io(what: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io { what, path: path.to_owned(), source }
    }

    /// Whether an error tells of an output: it is one of these, or holds one.
    pub fn is_in(error: &(dyn std::error::Error + 'static)) -> bool {
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        error.is::<Self>() || inner.is_some_and(<dyn std::error::Error + Send + Sync>::is::<Self>)
    }
}

impl From<OutputError> for io::Error {
    fn from(error: OutputError) -> Self {
        let kind = match &error {
            OutputError::Io { source, .. } => source.kind(),
            OutputError::Parent { .. } | OutputError::Dangling(_) => ErrorKind::NotFound,
            OutputError::FileExists(_) | OutputError::FolderExists(_) | OutputError::Foreign { .. } => {
                ErrorKind::AlreadyExists
            }
            OutputError::Busy(_) => ErrorKind::ResourceBusy,
            _ => ErrorKind::Other,
        };
        Self::new(kind, error)
    }
}
