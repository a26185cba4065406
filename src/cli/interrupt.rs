//! Ctrl-C: removes what is half-written, then ends the process with exit code 130.
//!
//! Outputs are written to temporary siblings that are renamed when they are complete. A sibling is
//! registered here while it exists, so that the signal's thread can remove it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::exit::Exit;

static TEMPORARY: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

/// Installs the handler; a second call does nothing.
pub fn install() {
    // Fails only if a handler is there already, which then stays.
    let _ = ctrlc::try_set_handler(stop);
}

fn stop() {
    let temporary = TEMPORARY.lock().unwrap_or_else(PoisonError::into_inner);
    for path in temporary.iter() {
        remove(path);
    }
    eprintln!("\ninterrupted");
    // The lock is held to the end, so that no rename can complete in between.
    end();
}

/// The stages may still write into a folder that is being removed, hence several tries.
fn remove(path: &Path) {
    for _ in 0..20 {
        let removed = if path.is_dir() { fs_err::remove_dir_all(path) } else { fs_err::remove_file(path) };
        if removed.is_ok() || !path.exists() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

#[cfg(unix)]
fn end() -> ! {
    // SAFETY: `_exit` takes no pointers and may be called from any thread; it skips the destructors of
    // libtorch, which must not run while its threads still compute.
    unsafe { libc::_exit(Exit::Interrupted as i32) }
}

#[cfg(not(unix))]
fn end() -> ! {
    std::process::exit(Exit::Interrupted as i32)
}

/// Keeps a temporary path registered for removal until it is dropped.
#[derive(Debug)]
pub struct Temporary {
    path: PathBuf,
}

impl Temporary {
    /// Registers `path`, which need not exist yet.
    pub fn new(path: PathBuf) -> Self {
        TEMPORARY.lock().unwrap_or_else(PoisonError::into_inner).insert(path.clone());
        Self { path }
    }

    /// The registered path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Runs `finish` (a rename) so that Ctrl-C comes either before or after it; if it fails, the
    /// temporary is removed.
    pub fn complete<T, E>(self, finish: impl FnOnce(&Path) -> Result<T, E>) -> Result<T, E> {
        let mut temporary = TEMPORARY.lock().unwrap_or_else(PoisonError::into_inner);
        let result = finish(&self.path);
        if result.is_ok() {
            temporary.remove(&self.path);
        }
        drop(temporary);
        result
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let mut temporary = TEMPORARY.lock().unwrap_or_else(PoisonError::into_inner);
        if temporary.remove(&self.path) {
            drop(temporary);
            remove(&self.path);
        }
    }
}
