//! What earlier runs have left beside a goal.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use super::error::OutputError;
use super::goal::{Goal, OLD, PARTIAL};
use super::lock::{self, Lock, lock};
use super::place::{Moves, System};
use super::staging::{RANDOM, prefix, remove};

/// What was found beside a goal, and what became of it.
#[derive(Debug, Default)]
pub struct Leftovers {
    /// Begun by runs that were killed; removed.
    pub removed: Vec<PathBuf>,
    /// Earlier outputs that a killed run was about to replace; put back.
    pub restored: Vec<PathBuf>,
    /// Left alone, and why: there is no telling whether a run is still writing them, or they cannot be removed.
    pub left: Vec<(PathBuf, io::Error)>,
}

/// Whether others may write the same goal at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Claim {
    Alone,
    Shared,
}

/// A temporary name that no living run holds; none can get hold of it while its lock is here.
struct Dead {
    path: PathBuf,
    is_old: bool,
    _lock: File,
}

/// Removes what killed runs have left of `goal`. A living one is an error if the goal is claimed alone.
pub(super) fn clear(goal: &Goal, claim: Claim) -> Result<Leftovers, OutputError> {
    let mut found = Leftovers::default();
    let mut dead = Vec::new();
    for (path, is_old) in named(goal) {
        match judged(&path) {
            Ok(Some(lock)) => dead.push(Dead { path, is_old, _lock: lock }),
            Ok(None) if claim == Claim::Alone => return Err(OutputError::Busy(goal.path.clone())),
            Ok(None) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => found.left.push((path, error)),
        }
    }
    // What can be put back comes first.
    dead.sort_by_key(|dead| !dead.is_old);
    for dead in dead {
        if dead.is_old && System.rename_new(&dead.path, &goal.path).is_ok() {
            found.restored.push(goal.path.clone());
            continue;
        }
        match remove(&dead.path) {
            Ok(()) => found.removed.push(dead.path),
            Err(error) => found.left.push((dead.path, error)),
        }
    }
    Ok(found)
}

/// Temporary names of a goal, and whether they are of something that was to be replaced. A folder that cannot be
/// listed has none.
fn named(goal: &Goal) -> Vec<(PathBuf, bool)> {
    let prefix = prefix(goal.name());
    let Ok(entries) = std::fs::read_dir(goal.parent()) else { return Vec::new() };
    let is_old = |entry: &std::fs::DirEntry| {
        let name = entry.file_name();
        let rest = name.as_encoded_bytes().strip_prefix(prefix.as_encoded_bytes())?;
        [(PARTIAL, false), (OLD, true)].into_iter().find_map(|(suffix, is_old)| {
            let random = rest.strip_suffix(suffix.as_bytes())?;
            (random.len() == RANDOM && random.iter().all(u8::is_ascii_alphanumeric)).then_some(is_old)
        })
    };
    let beside =
        |entry: std::fs::DirEntry| Some((goal.path.with_file_name(entry.file_name()), is_old(&entry)?));
    let mut found: Vec<_> = entries.flatten().filter_map(beside).collect();
    found.sort();
    found
}

/// The lock of a temporary name whose run is dead; nothing if it is alive.
fn judged(path: &Path) -> io::Result<Option<File>> {
    let file = lock::open(path)?;
    if cfg!(not(unix)) {
        return Err(io::ErrorKind::Unsupported.into());
    }
    match lock(&file) {
        Lock::Held if lock::is_at(&file, path) => Ok(Some(file)),
        // It has been put in its place, or removed.
        Lock::Held => Err(io::ErrorKind::NotFound.into()),
        Lock::Busy => Ok(None),
        Lock::None(error) => Err(error),
    }
}
