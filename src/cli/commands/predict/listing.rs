//! Which photos get a row, and under which name.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::names;

/// Photos to answer, each once.
#[derive(Debug, Default)]
pub struct Listing {
    /// The files.
    pub files: Vec<PathBuf>,
    /// What stands in the column `path` of each.
    pub names: Vec<String>,
    /// Paths left out because they lead to a file that is there already.
    pub duplicates: usize,
}

impl Listing {
    /// Lists what was found below what was `given`.
    ///
    /// The name of a photo is its path inside the folder that was given, if that was one folder, else the path as it was
    /// given; or all of it if `absolute`.
    pub fn new(given: &[PathBuf], found: Vec<PathBuf>, absolute: bool) -> Self {
        let root = match given {
            [folder] if folder.is_dir() => Some(folder.as_path()),
            _ => None,
        };
        let (mut listing, mut seen) = (Self::default(), BTreeSet::new());
        for file in found {
            // A file that is gone gets its row, and the reason.
            if !seen.insert(file.canonicalize().unwrap_or_else(|_| file.clone())) {
                listing.duplicates += 1;
                continue;
            }
            listing.names.push(name(&file, root, absolute));
            listing.files.push(file);
        }
        listing
    }

    /// Files with their names, `size` at a time.
    pub fn groups(&self, size: usize) -> impl Iterator<Item = (&[PathBuf], &[String])> {
        self.files.chunks(size).zip(self.names.chunks(size))
    }
}

fn name(file: &Path, root: Option<&Path>, absolute: bool) -> String {
    if absolute {
        return names::path(&std::path::absolute(file).unwrap_or_else(|_| file.to_owned()));
    }
    names::path(root.and_then(|root| file.strip_prefix(root).ok()).unwrap_or(file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lie_inside_the_one_folder_that_was_given() {
        let dir = tempfile::tempdir().unwrap();
        let [photo, folder] = [dir.path().join("cam1/a.jpg"), dir.path().to_owned()];
        fs_err::create_dir(dir.path().join("cam1")).unwrap();
        fs_err::write(&photo, "").unwrap();
        let names = |given: &[PathBuf], absolute| Listing::new(given, vec![photo.clone()], absolute).names;
        assert_eq!(names(std::slice::from_ref(&folder), false), ["cam1/a.jpg"]);
        assert_eq!(names(std::slice::from_ref(&folder), true), [photo.to_str().unwrap()]);
        assert_eq!(names(std::slice::from_ref(&photo), false), [photo.to_str().unwrap()]);
        assert_eq!(names(&[folder.join("cam1"), folder.join("cam2")], false), [photo.to_str().unwrap()]);
    }

    #[cfg(unix)]
    #[test]
    fn a_file_has_one_row_however_it_is_reached() {
        let dir = tempfile::tempdir().unwrap();
        let [photo, link] = [dir.path().join("a.jpg"), dir.path().join("b.jpg")];
        fs_err::write(&photo, "").unwrap();
        std::os::unix::fs::symlink(&photo, &link).unwrap();
        let again = dir.path().join(".").join("a.jpg");
        let gone = dir.path().join("gone.jpg");
        let listing = Listing::new(&[], vec![photo.clone(), link, again, photo.clone(), gone.clone()], false);
        assert_eq!((listing.files, listing.duplicates), (vec![photo, gone], 3));
    }
}
