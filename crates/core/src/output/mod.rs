//! Files and folders that appear complete or not at all: the one way in which anything here is written.
//!
//! An output is written under a random name beside its goal, `.NAME.RANDOM.margay-partial`, synced, and renamed. The
//! name is locked (`flock`) for as long as its process lives, wherever that process runs: process numbers recur in
//! containers, locks do not. So a later run can tell what a killed one has left, which is removed, from what a living
//! one is writing, which stays.
//!
//! A goal is judged twice, before the work and when the result takes its place, in one step with the renaming where the
//! system has such a step. What has appeared there meanwhile stays, and the result is kept under a free name beside it.
//!
//! | where | what is weaker |
//! |---|---|
//! | no locks: some network file systems, and anything but Unix | leftovers are named and stay |
//! | no `RENAME_NOREPLACE`: not Linux or macOS, some network file systems | a link is made instead of renaming; where there are no links either, a file that appears in the very moment is replaced |
//! | no `RENAME_EXCHANGE` | an earlier folder is first renamed to `.NAME.RANDOM.margay-old`; if a kill comes right then, the next run puts it back |
//! | folders cannot be synced: anything but Unix | a power cut may undo the renaming |

mod error;
mod file;
mod folder;
mod goal;
mod leftovers;
mod lock;
mod place;
mod staging;
mod sync;
#[cfg(test)]
mod tests;

use std::io::{self, Write as _};
use std::path::Path;

pub use error::{Kept, OutputError};
pub use file::OutputFile;
pub use folder::{OutputFolder, Scratch};
pub use goal::{Existing, check_parent};
pub use leftovers::Leftovers;
pub use lock::{Lock, lock};
pub use staging::{discard_all, is_partial};
pub use sync::folder as sync_folder;

/// Writes a file, which appears at `path` complete or not at all. A file there is replaced, also by several writers at
/// once: the last one wins.
///
/// # Errors
/// An [`OutputError`] in an error of its kind.
pub fn write(path: impl AsRef<Path>, bytes: impl AsRef<[u8]>) -> io::Result<()> {
    let mut file = OutputFile::shared(path.as_ref())?;
    file.write_all(bytes.as_ref()).map_err(|e| OutputError::io("write", path.as_ref(), e))?;
    Ok(file.commit()?)
}
