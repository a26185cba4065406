//! Outputs of the commands: [`margay_core::output`] with exit codes, hints and notes.

use std::io::{self, Write};
use std::path::Path;

use margay_core::output::{self, Existing, Leftovers, OutputError};

use super::exit::{Exit, Failure, OrFail};
use super::printer::Printer;

/// Marks a folder as an earlier output.
#[cfg(feature = "torch")]
pub const RECORD: &str = "run.json";

/// A file that appears complete or not at all.
#[derive(Debug)]
pub struct OutputFile(output::OutputFile);

impl OutputFile {
    /// Prepares to write `goal`; a file there is replaced if `force`, else refused unless it is empty.
    pub fn create(goal: &Path, force: bool, printer: &Printer) -> Result<Self, Failure> {
        let existing = if force { Existing::Yields } else { Existing::Stays };
        let file = output::OutputFile::create(goal, existing).map_err(failure)?;
        tell(file.leftovers(), printer);
        Ok(Self(file))
    }

    /// Writes a whole file, as [`OutputFile::create`] prepares it.
    pub fn write(goal: &Path, text: &str, force: bool, printer: &Printer) -> Result<(), Failure> {
        let mut file = Self::create(goal, force, printer)?;
        file.write_all(text.as_bytes()).or_io("could not write the output")?;
        file.commit()
    }

    /// Puts the file in its place.
    pub fn commit(self) -> Result<(), Failure> {
        self.0.commit().map_err(failure)
    }
}

impl Write for OutputFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// A folder that appears complete or not at all.
#[cfg(feature = "torch")]
#[derive(Debug)]
pub struct OutputDir(output::OutputFolder);

#[cfg(feature = "torch")]
impl OutputDir {
    /// Prepares to write `goal`. An existing non-empty folder is refused, unless `force` is given and the file `mark`
    /// in it says that it is an earlier output: nothing else is ever removed.
    pub fn create(goal: &Path, force: bool, mark: &'static str, printer: &Printer) -> Result<Self, Failure> {
        let existing = if force { Existing::YieldsWith(mark) } else { Existing::Stays };
        let folder = output::OutputFolder::create(goal, existing).map_err(failure)?;
        tell(folder.leftovers(), printer);
        Ok(Self(folder))
    }

    /// Where files go until [`OutputDir::commit`].
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Puts the folder in its place.
    pub fn commit(self) -> Result<std::path::PathBuf, Failure> {
        self.0.commit().map_err(failure)
    }
}

/// Makes a folder in a folder that is there: a mistyped path makes no tree.
pub fn make_folder(folder: &Path) -> Result<(), Failure> {
    if folder.is_dir() {
        return Ok(());
    }
    output::check_parent(folder).map_err(failure)?;
    fs_err::create_dir(folder).or_io("could not make the output folder")
}

fn tell(found: &Leftovers, printer: &Printer) {
    for path in &found.restored {
        printer.note(&format!("put back {}, which a run that was killed was replacing", path.display()));
    }
    for path in &found.removed {
        printer.note(&format!("removed {}, left by a run that was killed", path.display()));
    }
    for (path, error) in &found.left {
        let what = "may be left by a run that was killed, or a run is writing it";
        printer.warn(&format!("{} {what}: it stays ({error})", path.display()));
    }
}

fn failure(error: OutputError) -> Failure {
    let hint = match &error {
        OutputError::FileExists(_) => "choose another name, or pass --force to replace it".to_owned(),
        OutputError::FolderExists(_) => {
            "choose another --out, or pass --force to replace an earlier output".to_owned()
        }
        OutputError::Foreign { mark, .. } => {
            format!("choose another --out: only a folder with `{mark}` in it, an earlier output, is replaced")
        }
        OutputError::Parent { parent, .. } => {
            format!("mind the spelling, or make it: mkdir -p {}", quoted(parent))
        }
        OutputError::Busy(_) => "wait for it, or choose another name".to_owned(),
        OutputError::Mount(goal) => format!("write into it: {}", goal.join("result").display()),
        OutputError::Elsewhere { kept, .. } if output::is_partial(kept) => {
            "rename it before the same command runs again, which would take it for unfinished".to_owned()
        }
        OutputError::Elsewhere { .. } => "it is complete: rename it as you like".to_owned(),
        _ => return Failure { exit: Exit::Io, error: error.into(), hint: None },
    };
    Failure { exit: Exit::Io, error: error.into(), hint: Some(hint) }
}

/// A path for a shell.
fn quoted(path: &Path) -> String {
    let text = path.to_string_lossy();
    let plain = |c: char| c.is_alphanumeric() || "/._-+:@%".contains(c);
    if text.chars().all(plain) { text.into_owned() } else { format!("'{}'", text.replace('\'', "'\\''")) }
}
