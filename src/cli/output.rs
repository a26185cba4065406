//! Output files that appear complete or not at all.

use std::ffi::OsString;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use super::exit::{Exit, Failure, OrFail};
use super::interrupt::Temporary;

/// A file written under a temporary name beside its final one.
#[derive(Debug)]
pub struct OutputFile {
    // Dropped before `staging`, so that the file is closed when it is removed.
    writer: BufWriter<fs_err::File>,
    goal: PathBuf,
    /// Absent for a device or pipe, which is written to as it stands.
    staging: Option<Temporary>,
}

impl OutputFile {
    /// Prepares to write `goal`; an existing file stays until [`OutputFile::commit`].
    pub fn create(goal: &Path) -> Result<Self, Failure> {
        if goal.is_dir() {
            return Err(Failure::new(
                Exit::Io,
                format!("{} is a folder, but a file is to be written", goal.display()),
            ));
        }
        // A link leads to its file: replacing the link itself would surprise.
        let goal = &goal.canonicalize().unwrap_or_else(|_| goal.to_owned());
        if goal.exists() && !goal.is_file() {
            let device =
                fs_err::OpenOptions::new().write(true).open(goal).or_io("could not open the output")?;
            return Ok(Self { writer: BufWriter::new(device), goal: goal.clone(), staging: None });
        }
        let staging = Temporary::new(sibling(goal)?);
        if let Some(parent) = goal.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            fs_err::create_dir_all(parent).or_io("could not make the output folder")?;
        }
        let file = fs_err::File::create(staging.path()).or_io("could not make the output file")?;
        Ok(Self { writer: BufWriter::new(file), goal: goal.clone(), staging: Some(staging) })
    }

    /// Puts the file in its place.
    pub fn commit(self) -> Result<(), Failure> {
        let Self { mut writer, goal, staging } = self;
        let Some(staging) = staging else { return writer.flush().or_io("could not write the output") };
        let write = |path: &Path| -> io::Result<()> {
            let file = writer.into_inner().map_err(io::IntoInnerError::into_error)?;
            file.sync_all()?;
            fs_err::rename(path, &goal)
        };
        staging.complete(write).or_io("could not put the output in its place")
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

/// A temporary name beside `goal`, hidden and of this process only.
pub fn sibling(goal: &Path) -> Result<PathBuf, Failure> {
    let Some(name) = goal.file_name() else {
        return Err(Failure::usage(format!("`{}` is no name for an output", goal.display())));
    };
    let mut hidden = OsString::from(".");
    hidden.push(name);
    hidden.push(format!(".{}.tmp", std::process::id()));
    Ok(goal.with_file_name(hidden))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_file_leaves_nothing() {
        let root = tempfile::tempdir().unwrap();
        let mut file = OutputFile::create(&root.path().join("file")).unwrap();
        file.write_all(b"half").unwrap();
        drop(file);
        assert_eq!(fs_err::read_dir(root.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_file_replaces_its_predecessor_at_once() {
        let root = tempfile::tempdir().unwrap();
        let goal = root.path().join("new/file");
        let mut file = OutputFile::create(&goal).unwrap();
        file.write_all(b"whole").unwrap();
        file.commit().unwrap();
        assert_eq!(fs_err::read_to_string(&goal).unwrap(), "whole");
    }
}
