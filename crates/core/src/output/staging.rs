//! Temporary names beside a goal.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::error::OutputError;
use super::goal::{Goal, PARTIAL};
use super::lock::{self, Lock, lock};
use super::place::{Moves, Put, put};

/// Random characters in a name.
pub(super) const RANDOM: usize = 8;
/// Bytes of a goal's name that are taken over: file systems allow 255 in all.
const NAME: usize = 200;

/// Every staging of this process, for the thread that a signal wakes.
static LIVE: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

fn live() -> MutexGuard<'static, BTreeSet<PathBuf>> {
    LIVE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Removes whatever this process has not finished, and lets it neither finish nor begin anything more: for the end of
/// the process.
pub fn discard_all() {
    let live = live();
    for path in live.iter() {
        remove_from_writers(path);
    }
    // The lock is held to the end, so that no rename can come in between.
    std::mem::forget(live);
}

/// Other threads may still write into a folder that is being removed, hence several tries.
fn remove_from_writers(path: &Path) {
    for _ in 0..20 {
        if remove(path).is_ok() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Removes a file or folder; one that is not there is fine.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    let Ok(metadata) = std::fs::symlink_metadata(path) else { return Ok(()) };
    let removed = if metadata.is_dir() { fs_err::remove_dir_all(path) } else { fs_err::remove_file(path) };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Whether a path is a temporary name of an output.
pub fn is_partial(path: &Path) -> bool {
    path.as_os_str().as_encoded_bytes().ends_with(PARTIAL.as_bytes())
}

/// What the temporary names of an output begin with.
pub(super) fn prefix(name: &OsStr) -> OsString {
    let mut prefix = OsString::from(".");
    if name.len() <= NAME {
        prefix.push(name);
    } else {
        let name = name.to_string_lossy();
        let end = name.char_indices().map(|(at, c)| at + c.len_utf8()).take_while(|end| *end <= NAME).last();
        prefix.push(&name[..end.expect("the limit leaves room for a letter")]);
    }
    prefix.push(".");
    prefix
}

/// A temporary name, locked, that is removed with this unless it is put in place.
#[derive(Debug)]
pub(super) struct Staging {
    path: PathBuf,
    /// Held open for its lock.
    _lock: Option<File>,
}

impl Staging {
    /// A file to write.
    pub fn file(parent: &Path, name: &OsStr) -> io::Result<(Self, File)> {
        let new =
            |path: &Path| std::fs::OpenOptions::new().read(true).write(true).create_new(true).open(path);
        // Elsewhere a lock would keep the writer itself out.
        let (path, file) = locked(parent, name, new, |file| cfg!(unix).then_some(file))?;
        let staging = Self { path, _lock: file.try_clone().ok() };
        Ok((staging, file))
    }

    /// A folder to fill.
    pub fn folder(parent: &Path, name: &OsStr) -> io::Result<Self> {
        let new = |path: &Path| std::fs::create_dir(path).map(|()| File::open(path).ok());
        let (path, lock) = locked(parent, name, new, Option::as_ref)?;
        Ok(Self { path, _lock: lock })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Puts it in its place, in one step as seen from a signal, and removes what it replaces. A result that cannot
    /// have its place is kept.
    pub fn settle(self, goal: &Goal, moves: &impl Moves) -> Result<(), OutputError> {
        let mut live = live();
        let outcome = put(moves, &self.path, goal);
        let replaced = match &outcome {
            // What was there has the temporary name now.
            Ok(Put::Exchanged) => None,
            Ok(Put::Aside(old)) => {
                live.remove(&self.path);
                live.insert(old.clone());
                Some(Self { path: old.clone(), _lock: None })
            }
            Ok(Put::Moved) | Err(_) => {
                live.remove(&self.path);
                None
            }
        };
        drop(live);
        drop(replaced);
        outcome.map(|_| ())
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if live().contains(&self.path) {
            remove_from_writers(&self.path);
            live().remove(&self.path);
        }
    }
}

/// Makes something under a new name, and locks the file that it is where there are locks.
fn locked<T>(
    parent: &Path,
    name: &OsStr,
    mut new: impl FnMut(&Path) -> io::Result<T>,
    file: impl Fn(&T) -> Option<&File>,
) -> io::Result<(PathBuf, T)> {
    let prefix = prefix(name);
    loop {
        // No signal may come between the making and the entry.
        let mut all = live();
        let made = tempfile::Builder::new()
            .prefix(&prefix)
            .suffix(PARTIAL)
            .rand_bytes(RANDOM)
            .make_in(parent, &mut new)?;
        let (made, path) = made.into_parts();
        let path = path.keep().map_err(|e| e.error)?;
        all.insert(path.clone());
        drop(all);
        // Before the lock another run may have taken this for a leftover. That run is removing it.
        if file(&made).is_none_or(|file| holds(file, &path)) {
            return Ok((path, made));
        }
        live().remove(&path);
    }
}

fn holds(file: &File, path: &Path) -> bool {
    match lock(file) {
        Lock::Held => lock::is_at(file, path),
        Lock::Busy => false,
        Lock::None(_) => true,
    }
}

/// Lets a staging be as if its process had been killed.
#[cfg(test)]
pub(super) fn forget(staging: Staging) {
    live().remove(&staging.path);
    drop(staging);
}
