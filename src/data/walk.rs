use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use margay_runtime::has_photo_extension;

use super::DataError;
use super::left_out::{Kind, LeftOut, of_file, of_name};
use crate::labels::names::clean;
use crate::progress::Progress;

/// Folders below a folder are followed this deep.
const MAX_DEPTH: usize = 256;

/// Links to folders are followed through this many on one way.
const MAX_LINKS: usize = 2;

/// The one way in which folders are read: for learning, evaluation and prediction alike.
///
/// Photos are files named like photos. What systems made, hidden files, other files and links out of `roots` are counted
/// and left out; folders that may not be read are, with a warning.
#[derive(Debug)]
pub(super) struct Walker {
    /// The folders given, as the system knows them; links must lead into them.
    roots: Vec<PathBuf>,
    follow_links: bool,
    /// Real folders on the way to where the walk is.
    above: Vec<PathBuf>,
    links: usize,
    /// Why folders were skipped.
    pub warnings: Vec<String>,
}

/// A folder and what is in it, in the order of names.
#[derive(Debug)]
pub(super) struct Folder {
    pub path: PathBuf,
    pub entries: Vec<Entry>,
    /// What was left out of this folder, without those in it.
    pub left_out: LeftOut,
    /// Whether it may not be read.
    pub locked: bool,
}

#[derive(Debug)]
pub(super) enum Entry {
    Folder(Folder),
    Photo(PathBuf),
}

impl Walker {
    pub fn new(roots: &[PathBuf], follow_links: bool) -> Self {
        let roots = roots.iter().filter_map(|root| fs_err::canonicalize(root).ok()).collect();
        Self { roots, follow_links, above: Vec::new(), links: 0, warnings: Vec::new() }
    }

    /// Reads a folder that was given; a locked one is an error.
    pub fn root(&mut self, path: &Path) -> Result<Folder, DataError> {
        Ok(self.folder(path)?)
    }

    fn folder(&mut self, path: &Path) -> io::Result<Folder> {
        let real = fs_err::canonicalize(path)?;
        let mut names = Vec::new();
        let mut folder = Folder {
            path: path.to_owned(),
            entries: Vec::new(),
            left_out: LeftOut::default(),
            locked: false,
        };
        for entry in fs_err::read_dir(path)? {
            // A disk that fails in the middle of a folder leaves the rest unknown.
            names.push(entry?.path());
        }
        names.sort();
        self.above.push(real);
        for path in names {
            self.entry(path, &mut folder);
        }
        self.above.pop();
        Ok(folder)
    }

    fn entry(&mut self, path: PathBuf, folder: &mut Folder) {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if let Some(kind) = of_name(&name) {
            // Such files have a name each; they are counted as what they have in common.
            let name = if name.starts_with("._") { "._*".to_owned() } else { name };
            return folder.left_out.add(kind, name);
        }
        let Ok(kind) = fs_err::symlink_metadata(&path).map(|metadata| metadata.file_type()) else {
            return folder.left_out.add_file(Kind::Locked, &path);
        };
        if kind.is_symlink() {
            self.link(path, name, folder);
        } else if kind.is_dir() {
            self.inner(path, name, folder);
        } else if !kind.is_file() {
            folder.left_out.add_file(Kind::Special, &path);
        } else if has_photo_extension(&path) {
            folder.entries.push(Entry::Photo(path));
        } else {
            folder.left_out.add_file(of_file(&path), &path);
        }
    }

    fn inner(&mut self, path: PathBuf, name: String, folder: &mut Folder) {
        if self.above.len() >= MAX_DEPTH {
            self.warnings.push(format!("skipped a folder: `{}` lies {MAX_DEPTH} deep", path.display()));
            return folder.left_out.add(Kind::Locked, name);
        }
        match self.folder(&path) {
            Ok(inner) => folder.entries.push(Entry::Folder(inner)),
            Err(error) => {
                self.warnings.push(format!("skipped a folder: {error}"));
                folder.left_out.add(Kind::Locked, name);
                let (entries, left_out) = (Vec::new(), LeftOut::default());
                folder.entries.push(Entry::Folder(Folder { path, entries, left_out, locked: true }));
            }
        }
    }

    /// Follows a link if it leads to where the user pointed, or may lead anywhere, and not in a circle.
    fn link(&mut self, path: PathBuf, name: String, folder: &mut Folder) {
        let target = fs_err::canonicalize(&path).ok();
        let inside =
            |target: &&PathBuf| self.follow_links || self.roots.iter().any(|root| target.starts_with(root));
        let Some(target) = target.as_ref().filter(inside) else {
            return folder.left_out.add(Kind::Link, name);
        };
        if !target.is_dir() {
            return match (target.is_file(), has_photo_extension(&path)) {
                (true, true) => folder.entries.push(Entry::Photo(path)),
                (true, false) => folder.left_out.add_file(of_file(&path), &path),
                (false, _) => folder.left_out.add_file(Kind::Special, &path),
            };
        }
        if self.links >= MAX_LINKS || self.above.contains(target) {
            return folder.left_out.add(Kind::Link, name);
        }
        self.links += 1;
        self.inner(path, name, folder);
        self.links -= 1;
    }
}

impl Folder {
    /// Its name in NFC without blanks around it; `None` where it is not Unicode.
    pub fn name(&self) -> Option<String> {
        self.path.file_name()?.to_str().map(clean)
    }

    /// Folders directly in it.
    pub fn folders(&self) -> impl Iterator<Item = &Folder> {
        self.entries.iter().filter_map(|entry| match entry {
            Entry::Folder(folder) => Some(folder),
            Entry::Photo(_) => None,
        })
    }

    /// Photos directly in it.
    pub fn own_photos(&self) -> impl Iterator<Item = &PathBuf> {
        self.entries.iter().filter_map(|entry| match entry {
            Entry::Photo(path) => Some(path),
            Entry::Folder(_) => None,
        })
    }

    /// Every photo in it and below, in the order of paths.
    pub fn photos(&self) -> Vec<PathBuf> {
        let mut photos = Vec::new();
        self.collect(&mut |path| photos.push(path.clone()));
        photos
    }

    /// Number of photos in it and below.
    pub fn count(&self) -> usize {
        let mut count = 0;
        self.collect(&mut |_| count += 1);
        count
    }

    /// Whether a photo lies in it or below.
    pub fn has_photos(&self) -> bool {
        self.own_photos().next().is_some() || self.folders().any(Self::has_photos)
    }

    fn collect(&self, found: &mut dyn FnMut(&PathBuf)) {
        for entry in &self.entries {
            match entry {
                Entry::Photo(path) => found(path),
                Entry::Folder(folder) => folder.collect(found),
            }
        }
    }

    /// What was left out of it and of all below.
    pub fn all_left_out(&self) -> LeftOut {
        let mut all = self.left_out.clone();
        self.folders().for_each(|folder| all.merge(&folder.all_left_out()));
        all
    }
}

/// A photo that was found, and how.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Found {
    /// Its path: the root as it was given, and the way from there.
    pub path: PathBuf,
    /// The folder that was given; `None` if the photo itself was.
    pub root: Option<Arc<Path>>,
}

/// Photos without classes, from files and folders that were given.
#[derive(Debug, Default)]
pub struct Photos {
    /// In the order given, and below each folder in the order of paths.
    pub found: Vec<Found>,
    /// What was left out.
    pub left_out: LeftOut,
    /// Folders that may not be read, a sentence each.
    pub warnings: Vec<String>,
}

impl Photos {
    /// Every file that is given, whatever its name, and every photo below every folder that is given.
    pub fn find(given: &[PathBuf], follow_links: bool) -> Result<Self, DataError> {
        let mut walker = Walker::new(given, follow_links);
        let mut photos = Self::default();
        for path in given {
            if path.is_dir() {
                let folder = walker.root(path)?;
                let root: Arc<Path> = Arc::from(path.as_path());
                photos.left_out.merge(&folder.all_left_out());
                let found = folder.photos().into_iter();
                photos.found.extend(found.map(|path| Found { path, root: Some(Arc::clone(&root)) }));
            } else if fs_err::symlink_metadata(path).is_ok() {
                photos.found.push(Found { path: path.clone(), root: None });
            } else {
                return Err(DataError::Missing { path: path.clone() });
            }
        }
        photos.warnings = walker.warnings;
        if photos.found.is_empty() {
            let folder = given.first().cloned().unwrap_or_default();
            return Err(DataError::NoPhotos { folder, left_out: photos.left_out });
        }
        Ok(photos)
    }

    /// Tells of skipped folders; [`LeftOut::tell`] says at the end what else was left out.
    pub fn tell(&self, progress: &mut dyn Progress) {
        self.warnings.iter().for_each(|warning| progress.warn(warning));
    }

    /// The paths alone.
    pub fn paths(&self) -> Vec<PathBuf> {
        self.found.iter().map(|found| found.path.clone()).collect()
    }
}

/// Real paths of photos, to tell whether two ways lead to one.
pub(super) fn real_paths<'a>(paths: impl Iterator<Item = &'a PathBuf>) -> BTreeSet<PathBuf> {
    paths.map(|path| real(path)).collect()
}

/// Where a path really leads.
pub(super) fn real(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(path: &Path) {
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        fs_err::write(path, "").unwrap();
    }

    fn names(photos: &Photos, root: &Path) -> Vec<String> {
        let inside = |found: &Found| found.path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
        photos.found.iter().map(inside).collect()
    }

    #[test]
    fn photos_come_in_order_and_all_else_is_counted() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        for name in [
            "b/ç/2.JPG",
            "a.png",
            "c.jfif",
            ".hidden.png",
            "._a.png",
            "notes.txt",
            "d.HEIC",
            "d.CR2",
            "@eaDir/a.png/SYNOPHOTO_THUMB_XL.jpg",
            "lost+found/1.jpg",
            "__MACOSX/b/._2.JPG",
            "b/Thumbs.db",
            "b/clip.MP4",
        ] {
            write(&root.join(name));
        }
        let photos = Photos::find(&[root.to_owned()], false).unwrap();
        assert_eq!(names(&photos, root), ["a.png", "b/ç/2.JPG", "c.jfif"]);
        assert_eq!(photos.found[0].root.as_deref(), Some(root));
        let counted = [Kind::System, Kind::Hidden, Kind::Heic, Kind::Raw, Kind::Video, Kind::Other];
        assert_eq!(
            counted.map(|kind| photos.left_out.count(kind)),
            [5, 1, 1, 1, 1, 1],
            "{}",
            photos.left_out
        );
    }

    #[test]
    fn what_is_named_is_taken_and_nothing_found_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let [heic, odd] = ["a.heic", ".b"].map(|name| dir.path().join(name));
        write(&heic);
        write(&odd);
        let photos = Photos::find(&[odd.clone(), heic.clone()], false).unwrap();
        assert_eq!(photos.paths(), [odd, heic]);
        let error = Photos::find(&[dir.path().to_owned()], false).unwrap_err();
        assert!(error.to_string().contains("1 HEIC photo (.heic)"), "{error}");
        let missing = Photos::find(&[dir.path().join("none")], false).unwrap_err();
        assert!(matches!(missing, DataError::Missing { .. }));
    }

    #[cfg(unix)]
    #[test]
    fn links_stay_inside_and_end() {
        use std::os::unix::fs::symlink;
        let dir = tempfile::tempdir().unwrap();
        let [root, outside] = ["in", "out"].map(|name| dir.path().join(name));
        for path in
            [root.join("pool/1.png"), root.join("b/2.png"), outside.join("3.png"), outside.join("x.png")]
        {
            write(&path);
        }
        symlink(&root, root.join("b/loop")).unwrap();
        symlink(root.join("pool"), root.join("c")).unwrap();
        symlink(root.join("pool/1.png"), root.join("one.png")).unwrap();
        symlink(&outside, root.join("out")).unwrap();
        symlink(outside.join("x.png"), root.join("x.png")).unwrap();
        symlink(root.join("nowhere.png"), root.join("dead.png")).unwrap();
        symlink(&outside, outside.join("self")).unwrap();
        let strict = Photos::find(std::slice::from_ref(&root), false).unwrap();
        assert_eq!(names(&strict, &root), ["b/2.png", "c/1.png", "one.png", "pool/1.png"]);
        assert_eq!(strict.left_out.count(Kind::Link), 4, "{}", strict.left_out);
        let followed = Photos::find(std::slice::from_ref(&root), true).unwrap();
        let expected = ["b/2.png", "c/1.png", "one.png", "out/3.png", "out/x.png", "pool/1.png", "x.png"];
        assert_eq!(names(&followed, &root), expected);
        // A link that is itself given is followed.
        let link = dir.path().join("link");
        symlink(&root, &link).unwrap();
        assert_eq!(Photos::find(std::slice::from_ref(&link), false).unwrap().found.len(), 4);
    }

    #[cfg(unix)]
    #[test]
    fn pipes_are_never_opened_and_locked_folders_are_told() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        write(&dir.path().join("a.jpg"));
        write(&dir.path().join("locked/b.jpg"));
        let pipe = dir.path().join("pipe.jpg");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let lock =
            |mode| fs_err::set_permissions(dir.path().join("locked"), std::fs::Permissions::from_mode(mode));
        lock(0o000).unwrap();
        let may_read_all = fs_err::read_dir(dir.path().join("locked")).is_ok();
        let photos = Photos::find(&[dir.path().to_owned()], false).unwrap();
        lock(0o755).unwrap();
        assert_eq!(photos.left_out.count(Kind::Special), 1);
        if !may_read_all {
            assert_eq!((photos.found.len(), photos.left_out.count(Kind::Locked)), (1, 1));
            assert!(photos.warnings[0].contains("locked"), "{:?}", photos.warnings);
        }
    }

    #[cfg(unix)]
    #[test]
    fn names_that_are_no_unicode_are_photos_too() {
        use std::os::unix::ffi::OsStrExt;
        let dir = tempfile::tempdir().unwrap();
        write(&dir.path().join(std::ffi::OsStr::from_bytes(b"f\xE4.jpg")));
        assert_eq!(Photos::find(&[dir.path().to_owned()], false).unwrap().found.len(), 1);
    }
}
