//! Where an output goes, and what may stand there already.

use std::ffi::OsStr;
use std::fs::Metadata;
use std::path::{Path, PathBuf};

use super::error::OutputError;

/// What of an existing goal gives way, besides an empty file or folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// Nothing.
    Stays,
    /// Any file.
    Yields,
    /// A folder with a file of this name in it: an earlier output.
    YieldsWith(&'static str),
}

/// What is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Folder,
}

/// A place for an output.
#[derive(Clone, Debug)]
pub(super) struct Goal {
    pub path: PathBuf,
    pub kind: Kind,
    pub existing: Existing,
}

/// Whether there is a folder in which `goal` can appear.
pub fn check_parent(goal: &Path) -> Result<(), OutputError> {
    let parent = parent_of(goal);
    if parent.is_dir() {
        return Ok(());
    }
    Err(OutputError::Parent { goal: goal.to_owned(), parent: parent.to_owned() })
}

fn parent_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

impl Goal {
    /// Follows a link at `path` to its end, as replacing the link itself would surprise.
    pub fn new(path: &Path, kind: Kind, existing: Existing) -> Result<Self, OutputError> {
        let named_as_folder =
            path.as_os_str().as_encoded_bytes().last().is_some_and(|byte| is_separator(*byte));
        if kind == Kind::File && named_as_folder {
            return Err(OutputError::IsFolder(path.to_owned()));
        }
        // Without a separator at the end, which would hide a link.
        let path: PathBuf = path.components().collect();
        let path = if std::fs::symlink_metadata(&path).is_ok_and(|metadata| metadata.is_symlink()) {
            path.canonicalize().map_err(|_| OutputError::Dangling(path))?
        } else {
            path
        };
        if path.file_name().is_none() {
            return Err(OutputError::Name(path));
        }
        check_parent(&path)?;
        Ok(Self { path, kind, existing })
    }

    /// The folder in which it appears.
    pub fn parent(&self) -> &Path {
        parent_of(&self.path)
    }

    pub fn name(&self) -> &OsStr {
        self.path.file_name().expect("checked when the goal was made")
    }

    /// Whether the goal is free, or what stands there gives way.
    pub fn check(&self) -> Result<(), OutputError> {
        let goal = || self.path.clone();
        let Ok(metadata) = std::fs::symlink_metadata(&self.path) else { return Ok(()) };
        match self.kind {
            Kind::File if metadata.is_dir() => Err(OutputError::IsFolder(goal())),
            Kind::Folder if !metadata.is_dir() => Err(OutputError::IsNoFolder(goal())),
            Kind::Folder if is_mount(&metadata, self.parent()) => Err(OutputError::Mount(goal())),
            _ if self.gives_way(&self.path) => Ok(()),
            Kind::File => Err(OutputError::FileExists(goal())),
            Kind::Folder => Err(match self.existing {
                Existing::YieldsWith(mark) => OutputError::Foreign { goal: goal(), mark },
                _ => OutputError::FolderExists(goal()),
            }),
        }
    }

    /// Whether what stands at `path` may be removed for this output: it is empty, or an earlier output that may be.
    pub fn gives_way(&self, path: &Path) -> bool {
        let Ok(metadata) = std::fs::symlink_metadata(path) else { return false };
        match (self.kind, self.existing) {
            (Kind::File, Existing::Yields) => metadata.is_file(),
            (Kind::File, _) => metadata.is_file() && metadata.len() == 0,
            (Kind::Folder, Existing::YieldsWith(mark)) => {
                metadata.is_dir() && (is_empty(path) || path.join(mark).is_file())
            }
            (Kind::Folder, _) => metadata.is_dir() && is_empty(path),
        }
    }
}

fn is_separator(byte: u8) -> bool {
    std::path::is_separator(char::from(byte))
}

fn is_empty(folder: &Path) -> bool {
    std::fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_none())
}

#[cfg(unix)]
fn is_mount(metadata: &Metadata, parent: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata(parent).is_ok_and(|parent| parent.dev() != metadata.dev())
}

/// What is being written.
pub(super) const PARTIAL: &str = ".margay-partial";
/// What is being replaced, where it cannot be exchanged in one step.
pub(super) const OLD: &str = ".margay-old";

#[cfg(not(unix))]
fn is_mount(_metadata: &Metadata, _parent: &Path) -> bool {
    false
}
