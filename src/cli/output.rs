//! Output folders and files that appear complete or not at all.

use std::ffi::OsString;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use super::exit::{Exit, Failure, OrFail};
use super::interrupt::Temporary;

/// A folder filled under a temporary name beside its final one.
#[derive(Debug)]
pub struct OutputDir {
    goal: PathBuf,
    staging: Temporary,
}

impl OutputDir {
    /// Prepares to write `goal`. An existing non-empty folder is refused unless `force`.
    pub fn create(goal: &Path, force: bool) -> Result<Self, Failure> {
        if goal.exists() && !force && !is_empty_dir(goal) {
            let message = format!("{} exists and is not an empty folder", goal.display());
            let hint = "choose another --out, or pass --force to replace it";
            return Err(Failure::new(Exit::Io, message).hint(hint));
        }
        if goal.exists() && !goal.is_dir() {
            let message = format!("{} is a file, but a folder is to be written there", goal.display());
            return Err(Failure::new(Exit::Io, message));
        }
        let staging = Temporary::new(sibling(goal)?);
        fs_err::create_dir_all(staging.path()).or_io("could not make the output folder")?;
        Ok(Self { goal: goal.to_owned(), staging })
    }

    /// Where files go until [`OutputDir::commit`].
    pub fn path(&self) -> &Path {
        self.staging.path()
    }

    /// Puts the folder in its place.
    pub fn commit(self) -> Result<PathBuf, Failure> {
        let Self { goal, staging } = self;
        staging.complete(|path| replace_dir(path, &goal)).or_io("could not put the output in its place")?;
        Ok(goal)
    }
}

/// A file written under a temporary name beside its final one.
#[derive(Debug)]
pub struct OutputFile {
    // Dropped before `staging`, so that the file is closed when it is removed.
    writer: BufWriter<fs_err::File>,
    goal: PathBuf,
    staging: Temporary,
}

impl OutputFile {
    /// Prepares to write `goal`; an existing file stays until [`OutputFile::commit`].
    pub fn create(goal: &Path) -> Result<Self, Failure> {
        let staging = Temporary::new(sibling(goal)?);
        if let Some(parent) = goal.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            fs_err::create_dir_all(parent).or_io("could not make the output folder")?;
        }
        let file = fs_err::File::create(staging.path()).or_io("could not make the output file")?;
        Ok(Self { writer: BufWriter::new(file), goal: goal.to_owned(), staging })
    }

    /// Puts the file in its place.
    pub fn commit(self) -> Result<(), Failure> {
        let Self { writer, goal, staging } = self;
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

fn is_empty_dir(path: &Path) -> bool {
    fs_err::read_dir(path).is_ok_and(|mut entries| entries.next().is_none())
}

fn sibling(goal: &Path) -> Result<PathBuf, Failure> {
    let Some(name) = goal.file_name() else {
        return Err(Failure::usage(format!("`{}` is no name for an output", goal.display())));
    };
    let mut hidden = OsString::from(".");
    hidden.push(name);
    hidden.push(format!(".{}.tmp", std::process::id()));
    Ok(goal.with_file_name(hidden))
}

fn replace_dir(staging: &Path, goal: &Path) -> io::Result<()> {
    if !goal.exists() {
        return fs_err::rename(staging, goal);
    }
    let mut old = staging.as_os_str().to_owned();
    old.push(".old");
    fs_err::rename(goal, &old)?;
    fs_err::rename(staging, goal)?;
    fs_err::remove_dir_all(&old)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs_err::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_folder_appears_only_when_complete() {
        let root = tempfile::tempdir().unwrap();
        let goal = root.path().join("out");
        let out = OutputDir::create(&goal, false).unwrap();
        fs_err::write(out.path().join("a"), "1").unwrap();
        assert!(!goal.exists());
        out.commit().unwrap();
        assert_eq!(names(&goal), ["a"]);
        assert_eq!(names(root.path()), ["out"]);
    }

    #[test]
    fn a_dropped_folder_or_file_leaves_nothing() {
        let root = tempfile::tempdir().unwrap();
        let out = OutputDir::create(&root.path().join("out"), false).unwrap();
        fs_err::write(out.path().join("a"), "1").unwrap();
        drop(out);
        let mut file = OutputFile::create(&root.path().join("file")).unwrap();
        file.write_all(b"half").unwrap();
        drop(file);
        assert!(names(root.path()).is_empty());
    }

    #[test]
    fn existing_output_is_refused_or_replaced() {
        let root = tempfile::tempdir().unwrap();
        let goal = root.path().join("out");
        fs_err::create_dir(&goal).unwrap();
        drop(OutputDir::create(&goal, false).expect("an empty folder is fine"));
        fs_err::write(goal.join("old"), "").unwrap();
        assert_eq!(OutputDir::create(&goal, false).unwrap_err().exit, Exit::Io);
        let out = OutputDir::create(&goal, true).unwrap();
        fs_err::write(out.path().join("new"), "").unwrap();
        out.commit().unwrap();
        assert_eq!(names(&goal), ["new"]);
        assert_eq!(names(root.path()), ["out"]);
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
