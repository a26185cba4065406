//! How a finished output takes its place.

use std::ffi::OsString;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use super::error::{Kept, OutputError};
use super::goal::{Existing, Goal, Kind, OLD, PARTIAL};

/// Free names that are tried.
const NAMES: usize = 10_000;

/// How an output has taken its place.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Put {
    /// Nothing was there, or it is gone in the same step.
    Moved,
    /// What was there has the temporary name now.
    Exchanged,
    /// What was there has this name now.
    Aside(PathBuf),
}

/// The steps that the system offers. Each is atomic.
pub(super) trait Moves {
    /// Renames; `AlreadyExists` if something is there, but an empty folder may be replaced by a folder.
    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Swaps two names; `Unsupported` where the file system cannot.
    fn exchange(&self, one: &Path, other: &Path) -> io::Result<()>;
    /// Renames; a file is replaced.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
}

/// Puts what is at `staging` in its place. What stands there and may not be replaced stays, and the output gets a free
/// name beside it; if that fails, too, it keeps its temporary name.
pub(super) fn put(moves: &impl Moves, staging: &Path, goal: &Goal) -> Result<Put, OutputError> {
    let (why, source) = match try_to_put(moves, staging, goal) {
        Ok(Some(put)) => return Ok(put),
        Ok(None) => (Kept::Appeared(goal.path.clone()), None),
        Err(error) => (Kept::Refused(goal.path.clone()), Some(error)),
    };
    let free = |path: &PathBuf| match moves.rename_new(staging, path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => None,
        moved => Some(moved.map(|()| path.clone())),
    };
    let kept = (2..NAMES).map(|number| numbered(goal, number)).find_map(|path| free(&path));
    let kept = kept.and_then(Result::ok).unwrap_or_else(|| staging.to_owned());
    Err(OutputError::Elsewhere { kept, why, source })
}

/// `out-2`, `labels-2.csv`.
fn numbered(goal: &Goal, number: usize) -> PathBuf {
    let (stem, extension) = match goal.kind {
        Kind::File => (goal.path.file_stem(), goal.path.extension()),
        Kind::Folder => (goal.path.file_name(), None),
    };
    let mut name = stem.unwrap_or_else(|| goal.name()).to_owned();
    name.push(format!("-{number}"));
    if let Some(extension) = extension {
        name.push(".");
        name.push(extension);
    }
    goal.path.with_file_name(name)
}

/// Nothing if what stands at the goal may not be replaced.
fn try_to_put(moves: &impl Moves, staging: &Path, goal: &Goal) -> io::Result<Option<Put>> {
    if goal.kind == Kind::File && goal.existing == Existing::Yields {
        return moves.rename(staging, &goal.path).map(|()| Some(Put::Moved));
    }
    match moves.rename_new(staging, &goal.path) {
        Ok(()) => Ok(Some(Put::Moved)),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => replace(moves, staging, goal),
        Err(error) => Err(error),
    }
}

fn replace(moves: &impl Moves, staging: &Path, goal: &Goal) -> io::Result<Option<Put>> {
    if !goal.gives_way(&goal.path) {
        return Ok(None);
    }
    match moves.exchange(staging, &goal.path) {
        // Between look and step something else may have come.
        Ok(()) if goal.gives_way(staging) => Ok(Some(Put::Exchanged)),
        Ok(()) => moves.exchange(staging, &goal.path).map(|()| None),
        Err(error) if error.kind() != ErrorKind::Unsupported => Err(error),
        Err(_) => match goal.kind {
            Kind::File => moves.rename(staging, &goal.path).map(|()| Some(Put::Moved)),
            Kind::Folder => step_by_step(moves, staging, goal),
        },
    }
}

/// After a kill between the two steps the next run finds the old folder by its name and puts it back.
fn step_by_step(moves: &impl Moves, staging: &Path, goal: &Goal) -> io::Result<Option<Put>> {
    let old = aside(staging);
    moves.rename(&goal.path, &old)?;
    match moves.rename_new(staging, &goal.path) {
        Ok(()) => Ok(Some(Put::Aside(old))),
        Err(error) => {
            moves.rename_new(&old, &goal.path)?;
            Err(error)
        }
    }
}

fn aside(staging: &Path) -> PathBuf {
    let name = staging.file_name().expect("a temporary path ends in its name").to_string_lossy();
    let mut old = OsString::from(name.strip_suffix(PARTIAL).unwrap_or(&name));
    old.push(OLD);
    staging.with_file_name(old)
}

/// The steps of this system.
#[derive(Clone, Copy, Debug)]
pub(super) struct System;

impl Moves for System {
    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        match flagged::rename_new(from, to) {
            Err(error) if error.kind() == ErrorKind::Unsupported => rename_without_flags(from, to),
            done => done,
        }
    }

    fn exchange(&self, one: &Path, other: &Path) -> io::Result<()> {
        flagged::exchange(one, other)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }
}

/// A folder replaces an empty folder at most. Of a file a second name is made, which replaces nothing.
pub(super) fn rename_without_flags(from: &Path, to: &Path) -> io::Result<()> {
    let exists = || io::Error::from(ErrorKind::AlreadyExists);
    if from.is_dir() {
        return std::fs::rename(from, to).map_err(|error| match error.kind() {
            ErrorKind::DirectoryNotEmpty | ErrorKind::NotADirectory => exists(),
            _ => error,
        });
    }
    match std::fs::hard_link(from, to) {
        Ok(()) => std::fs::remove_file(from),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Err(error),
        Err(_) if std::fs::symlink_metadata(to).is_ok() => Err(exists()),
        Err(_) => std::fs::rename(from, to),
    }
}

#[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple"))]
mod flagged {
    use std::io::{self, ErrorKind};
    use std::path::Path;

    use rustix::fs::{CWD, RenameFlags, renameat_with};

    pub fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
        renamed(from, to, RenameFlags::NOREPLACE)
    }

    pub fn exchange(one: &Path, other: &Path) -> io::Result<()> {
        renamed(one, other, RenameFlags::EXCHANGE)
    }

    fn renamed(from: &Path, to: &Path, flags: RenameFlags) -> io::Result<()> {
        renameat_with(CWD, from, CWD, to, flags).map_err(|error| {
            let error = io::Error::from(error);
            // What a file system says that does not know the flag.
            let unknown = error.kind() == ErrorKind::InvalidInput;
            if unknown { io::Error::new(ErrorKind::Unsupported, error) } else { error }
        })
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android", target_vendor = "apple")))]
mod flagged {
    use std::io::{self, ErrorKind};
    use std::path::Path;

    pub fn rename_new(_from: &Path, _to: &Path) -> io::Result<()> {
        Err(ErrorKind::Unsupported.into())
    }

    pub fn exchange(_one: &Path, _other: &Path) -> io::Result<()> {
        Err(ErrorKind::Unsupported.into())
    }
}
