use std::io::{self, BufWriter, Write};
use std::path::Path;

use fs_err::File;

use super::error::OutputError;
use super::goal::{Existing, Goal, Kind};
use super::leftovers::{Claim, Leftovers, clear};
use super::place::System;
use super::staging::Staging;
use super::sync;

/// A file written under a temporary name beside its final one. Dropped before [`OutputFile::commit`] it leaves nothing.
#[derive(Debug)]
pub struct OutputFile {
    // Dropped before `place`, so that the file is closed when it is removed.
    writer: BufWriter<File>,
    /// Absent for a device or pipe, which is written as it stands.
    place: Option<(Staging, Goal)>,
    leftovers: Leftovers,
}

impl OutputFile {
    /// Prepares to write `goal`; what stands there stays until [`OutputFile::commit`]. A device or named pipe is
    /// opened as it stands, and so are names of this process's own streams, such as `/dev/stdout`.
    ///
    /// # Errors
    /// If the goal cannot be or is occupied, its folder is missing, or another process is writing it.
    pub fn create(goal: &Path, existing: Existing) -> Result<Self, OutputError> {
        if is_stream(goal) {
            let file = fs_err::OpenOptions::new().append(true).open(goal);
            let file = file.map_err(|e| OutputError::io("open", goal, e))?;
            return Ok(Self { writer: BufWriter::new(file), place: None, leftovers: Leftovers::default() });
        }
        Self::staged(goal, existing, Claim::Alone)
    }

    /// As [`OutputFile::create`] for a goal that others may be writing, too: the last one wins.
    pub(super) fn shared(goal: &Path) -> Result<Self, OutputError> {
        Self::staged(goal, Existing::Yields, Claim::Shared)
    }

    fn staged(goal: &Path, existing: Existing, claim: Claim) -> Result<Self, OutputError> {
        let goal = Goal::new(goal, Kind::File, existing)?;
        let leftovers = clear(&goal, claim)?;
        goal.check()?;
        let (staging, file) = Staging::file(goal.parent(), goal.name())
            .map_err(|e| OutputError::io("begin to write", &goal.path, e))?;
        // Errors name the file that was asked for.
        let writer = BufWriter::new(File::from_parts(file, goal.path.clone()));
        Ok(Self { writer, place: Some((staging, goal)), leftovers })
    }

    /// What earlier runs have left of the same goal.
    pub fn leftovers(&self) -> &Leftovers {
        &self.leftovers
    }

    /// Puts the file in its place when it is on the disk.
    ///
    /// # Errors
    /// [`OutputError::Elsewhere`] if the file is complete but has another name; after other errors there is none.
    pub fn commit(self) -> Result<(), OutputError> {
        let Self { mut writer, place, .. } = self;
        let Some((staging, goal)) = place else {
            return writer.flush().map_err(|e| OutputError::io("write", writer.get_ref().path(), e));
        };
        let failed = |e| OutputError::io("write", &goal.path, e);
        let file = writer.into_inner().map_err(|e| failed(e.into_error()))?;
        file.sync_all().map_err(failed)?;
        drop(file);
        let settled = staging.settle(&goal, &System);
        let synced = sync::folder(goal.parent()).map_err(failed);
        settled.and(synced)
    }
}

impl Write for OutputFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.writer.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

/// Whether a path leads to something that is written as it stands.
#[cfg(unix)]
fn is_stream(path: &Path) -> bool {
    // Redirected to a file, such a name looks like the file.
    let own = ["/dev/stdout", "/dev/stderr"].iter().any(|name| path == Path::new(name))
        || ["/dev/fd", "/proc/self/fd", "/proc/thread-self/fd"].iter().any(|folder| path.starts_with(folder));
    match std::fs::metadata(path) {
        Ok(metadata) => !metadata.is_dir() && (own || !metadata.is_file()),
        Err(_) => false,
    }
}

#[cfg(not(unix))]
fn is_stream(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|metadata| !metadata.is_dir() && !metadata.is_file())
}
