//! Photos below folders, in a fixed order.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use crate::cli::exit::{Exit, Failure, OrFail};
use crate::progress::Progress;

const EXTENSIONS: &[&str] = &["jpg", "jpeg", "png", "webp", "bmp", "gif", "tif", "tiff"];

/// Every file that is named, and every photo below every folder that is named.
///
/// A folder below them that cannot be read is warned about and left out.
pub fn photos(given: &[PathBuf], progress: &mut dyn Progress) -> Result<Vec<PathBuf>, Failure> {
    let mut found = Vec::new();
    for path in given {
        if path.is_dir() {
            search(path, &mut BTreeSet::new(), &mut found, progress)
                .or_bad_input("could not search a folder")?;
        } else if path.exists() {
            found.push(path.clone());
        } else {
            return Err(Failure::new(Exit::BadInput, format!("{} does not exist", path.display())));
        }
    }
    if found.is_empty() {
        return Err(Failure::new(Exit::BadInput, "there are no photos in what was given")
            .hint(format!("photos are files named {}", EXTENSIONS.join(", "))));
    }
    Ok(found)
}

/// `seen` holds the real folders visited, so that a link to a folder above ends.
fn search(
    folder: &Path,
    seen: &mut BTreeSet<PathBuf>,
    found: &mut Vec<PathBuf>,
    progress: &mut dyn Progress,
) -> io::Result<()> {
    if !seen.insert(fs_err::canonicalize(folder)?) {
        return Ok(());
    }
    let entries: Vec<fs_err::DirEntry> = fs_err::read_dir(folder)?.collect::<Result<_, _>>()?;
    let mut paths: Vec<PathBuf> = entries.iter().map(fs_err::DirEntry::path).collect();
    paths.sort();
    for path in paths.into_iter().filter(|path| !is_hidden(path)) {
        if path.is_dir() {
            if let Err(error) = search(&path, seen, found, progress) {
                progress.warn(&format!("skipped a folder: {error}"));
            }
        } else if is_photo(&path) {
            found.push(path);
        }
    }
    Ok(())
}

fn is_hidden(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'))
}

fn is_photo(path: &Path) -> bool {
    path.extension().is_some_and(|e| EXTENSIONS.contains(&e.to_string_lossy().to_lowercase().as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::Silent;

    #[test]
    fn folders_are_searched_in_order_and_links_end() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        fs_err::create_dir_all(root.join("b/ç")).unwrap();
        for name in ["b/ç/2.JPG", "a.png", ".hidden.png", "notes.txt"] {
            fs_err::write(root.join(name), "").unwrap();
        }
        #[cfg(unix)]
        std::os::unix::fs::symlink(root, root.join("b/loop")).unwrap();
        let found = photos(&[root.to_owned()], &mut Silent).unwrap();
        assert_eq!(found, [root.join("a.png"), root.join("b/ç/2.JPG")]);
    }

    #[test]
    fn nothing_found_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(photos(&[dir.path().to_owned()], &mut Silent).unwrap_err().exit, Exit::BadInput);
        assert_eq!(photos(&[dir.path().join("none")], &mut Silent).unwrap_err().exit, Exit::BadInput);
    }
}
