use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

use super::error::OutputError;
use super::goal::{Existing, Goal, Kind};
use super::leftovers::{Claim, Leftovers, clear};
use super::place::System;
use super::staging::Staging;
use super::sync;

/// A folder filled under a temporary name beside its final one. Dropped before [`OutputFolder::commit`] it leaves
/// nothing.
#[derive(Debug)]
pub struct OutputFolder {
    staging: Staging,
    goal: Goal,
    leftovers: Leftovers,
}

impl OutputFolder {
    /// Prepares to write `goal`; what stands there stays until [`OutputFolder::commit`].
    ///
    /// # Errors
    /// If the goal cannot be or is occupied, the folder above it is missing, or another process is writing it.
    pub fn create(goal: &Path, existing: Existing) -> Result<Self, OutputError> {
        let goal = Goal::new(goal, Kind::Folder, existing)?;
        let leftovers = clear(&goal, Claim::Alone)?;
        goal.check()?;
        let staging = Staging::folder(goal.parent(), goal.name())
            .map_err(|e| OutputError::io("begin to write", &goal.path, e))?;
        Ok(Self { staging, goal, leftovers })
    }

    /// Where files go until [`OutputFolder::commit`].
    pub fn path(&self) -> &Path {
        self.staging.path()
    }

    /// What earlier runs have left of the same goal.
    pub fn leftovers(&self) -> &Leftovers {
        &self.leftovers
    }

    /// Puts the folder in its place when everything in it is on the disk.
    ///
    /// # Errors
    /// [`OutputError::Elsewhere`] if the folder is complete but has another name; after other errors there is none.
    pub fn commit(self) -> Result<PathBuf, OutputError> {
        let Self { staging, goal, .. } = self;
        let failed = |e| OutputError::io("write", &goal.path, e);
        sync::tree(staging.path()).map_err(failed)?;
        let settled = staging.settle(&goal, &System);
        let synced = sync::folder(goal.parent()).map_err(failed);
        settled.and(synced).map(|()| goal.path)
    }
}

/// A folder for passing needs, removed with this or, after a kill, by the next one of its name.
#[derive(Debug)]
pub struct Scratch(Staging);

impl Scratch {
    /// A new folder in `parent`.
    pub fn new(parent: &Path, name: &str) -> io::Result<Self> {
        let goal = Goal::new(&parent.join(name), Kind::Folder, Existing::Stays)?;
        clear(&goal, Claim::Shared)?;
        Ok(Self(Staging::folder(parent, OsStr::new(name))?))
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        self.0.path()
    }
}
