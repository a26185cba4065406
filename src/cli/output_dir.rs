//! Output folders that appear complete or not at all.

use std::io;
use std::path::{Path, PathBuf};

use super::exit::{Exit, Failure, OrFail};
use super::interrupt::Temporary;
use super::output::sibling;

/// Marks a folder as an earlier output.
#[cfg(feature = "torch")]
pub const RECORD: &str = "run.json";

/// A folder filled under a temporary name beside its final one.
#[derive(Debug)]
pub struct OutputDir {
    goal: PathBuf,
    staging: Temporary,
}

impl OutputDir {
    /// Prepares to write `goal`. An existing non-empty folder is refused, unless `force` is given and the
    /// file `mark` in it says that it is an earlier output: nothing else is ever removed.
    pub fn create(goal: &Path, force: bool, mark: &str) -> Result<Self, Failure> {
        let full = goal.exists() && !is_empty_dir(goal);
        if full && !(force && goal.join(mark).is_file()) {
            let message = format!("{} exists and is not an empty folder", goal.display());
            let hint = if force {
                format!(
                    "choose another --out: only a folder with `{mark}` in it, an earlier output, is replaced"
                )
            } else {
                "choose another --out, or pass --force to replace an earlier output".to_owned()
            };
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

fn is_empty_dir(path: &Path) -> bool {
    fs_err::read_dir(path).is_ok_and(|mut entries| entries.next().is_none())
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
        let out = OutputDir::create(&goal, false, "mark").unwrap();
        fs_err::write(out.path().join("a"), "1").unwrap();
        assert!(!goal.exists());
        out.commit().unwrap();
        assert_eq!(names(&goal), ["a"]);
        assert_eq!(names(root.path()), ["out"]);
    }

    #[test]
    fn a_dropped_folder_leaves_nothing() {
        let root = tempfile::tempdir().unwrap();
        let out = OutputDir::create(&root.path().join("out"), false, "mark").unwrap();
        fs_err::write(out.path().join("a"), "1").unwrap();
        drop(out);
        assert!(names(root.path()).is_empty());
    }

    #[test]
    fn existing_output_is_refused_or_replaced() {
        let root = tempfile::tempdir().unwrap();
        let goal = root.path().join("out");
        fs_err::create_dir(&goal).unwrap();
        drop(OutputDir::create(&goal, false, "mark").expect("an empty folder is fine"));
        fs_err::write(goal.join("old"), "").unwrap();
        assert_eq!(OutputDir::create(&goal, false, "mark").unwrap_err().exit, Exit::Io);
        assert_eq!(OutputDir::create(&goal, true, "mark").unwrap_err().exit, Exit::Io);
        fs_err::write(goal.join("mark"), "").unwrap();
        assert_eq!(OutputDir::create(&goal, false, "mark").unwrap_err().exit, Exit::Io);
        let out = OutputDir::create(&goal, true, "mark").unwrap();
        fs_err::write(out.path().join("new"), "").unwrap();
        out.commit().unwrap();
        assert_eq!(names(&goal), ["new"]);
        assert_eq!(names(root.path()), ["out"]);
    }
}
