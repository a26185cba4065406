use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::progress::Progress;

use super::{DataError, DataWarning, Sample, generator, shuffle};

/// Photo files by extension, in lower case.
const PHOTOS: [&str; 9] = ["jpg", "jpeg", "jpe", "png", "webp", "bmp", "gif", "tif", "tiff"];

/// Film files, which are worth a note when they are skipped.
const VIDEOS: [&str; 9] = ["mp4", "avi", "mov", "m4v", "mkv", "wmv", "mts", "mpg", "mpeg"];

/// Folders below a class folder are followed this deep.
const MAX_DEPTH: usize = 32;

/// One of this many photos of a class goes to the evaluation split where none is given.
const VAL_ONE_OF: usize = 3;

/// The photos of a folder, by class and split.
#[derive(Clone, Debug)]
pub struct Dataset {
    /// The folder.
    pub root: PathBuf,
    /// Class names in lexicographic order.
    pub classes: Vec<String>,
    /// Photos to learn from, by class and then by path.
    pub train: Vec<Sample>,
    /// Photos to evaluate on, by class and then by path.
    pub val: Vec<Sample>,
    /// Where the split comes from.
    pub split: SplitOrigin,
    /// Facts worth telling, such as skipped videos.
    pub notes: Vec<String>,
    /// Things to worry about.
    pub warnings: Vec<DataWarning>,
}

/// Where the split into train and val comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SplitOrigin {
    /// `train/` and `val/` folders.
    Folders,
    /// Drawn with the seed: a third of each class, at least one photo where there are two.
    Drawn,
}

/// Photos of the folders of one split, by class name.
type Listing = BTreeMap<String, Vec<PathBuf>>;

impl Dataset {
    /// Lists the photos under `root`: `<class>/…` or `{train,val}/<class>/…`, sub-folders included.
    ///
    /// Without `val/`, a third of each class is drawn with `seed`. With `val/` alone there is nothing to
    /// learn from, but everything to evaluate on. Hidden files and files that are no photos are skipped.
    pub fn scan(root: &Path, seed: u64) -> Result<Self, DataError> {
        if !root.is_dir() {
            return Err(DataError::NotAFolder { root: root.to_owned() });
        }
        let mut found = Found::default();
        let folders = visible_folders(root)?;
        let split = split_folders(&folders, &mut found.notes)?;
        let mut dataset = match split {
            None => Self::drawn(root, found.classes(root, &folders)?, seed),
            Some([Some(train), None]) => {
                Self::drawn(root, found.classes(&train, &visible_folders(&train)?)?, seed)
            }
            Some([train, val]) => {
                let train = train.map(|path| found.classes(&path, &visible_folders(&path)?)).transpose()?;
                let val = val.map(|path| found.listing(&visible_folders(&path)?)).transpose()?;
                Self::given(root, train, val.unwrap_or_default())?
            }
        };
        dataset.notes = found.into_notes();
        dataset.warn_about_classes();
        Ok(dataset)
    }

    /// Lists the photos to evaluate on: those of `val/` where there is one, whatever `train/` holds, else
    /// every photo. The classes are those that have a folder there.
    pub fn scan_for_evaluation(root: &Path) -> Result<Self, DataError> {
        let mut notes = Vec::new();
        let split = if root.is_dir() { split_folders(&visible_folders(root)?, &mut notes)? } else { None };
        let Some([_, Some(val)]) = split else {
            let mut whole = Self::scan(root, 0)?;
            whole.val = whole.all();
            whole.train.clear();
            whole.warnings.clear();
            return Ok(whole);
        };
        let mut found = Found { notes, ..Found::default() };
        let listing = found.listing(&visible_folders(&val)?)?;
        let mut dataset = Self::given(root, None, listing)?;
        dataset.notes = found.into_notes();
        Ok(dataset)
    }

    /// Every photo, train before val.
    pub fn all(&self) -> Vec<Sample> {
        self.train.iter().chain(&self.val).cloned().collect()
    }

    /// Tells the notes and warnings.
    pub fn tell(&self, progress: &mut dyn Progress) {
        self.notes.iter().for_each(|note| progress.note(note));
        self.warnings.iter().for_each(|warning| progress.warn(&warning.to_string()));
    }

    /// Photos without labels under a folder, whatever its sub-folders are called, without those of the evaluation split: at
    /// most `most`, drawn with `seed`, in the order of their paths.
    pub fn unlabelled(&self, folder: &Path, most: usize, seed: u64) -> Result<Vec<Sample>, DataError> {
        if !folder.is_dir() {
            return Err(DataError::NotAFolder { root: folder.to_owned() });
        }
        let (mut paths, mut seen) = (Vec::new(), BTreeSet::new());
        Found::default().walk(folder, MAX_DEPTH, &mut seen, &mut paths)?;
        if paths.is_empty() {
            return Err(DataError::NoPhotos { folder: folder.to_owned() });
        }
        let real = |path: &PathBuf| path.canonicalize().unwrap_or_else(|_| path.clone());
        let val: BTreeSet<PathBuf> = self.val.iter().map(|sample| real(&sample.path)).collect();
        paths.retain(|path| !val.contains(&real(path)));
        if paths.is_empty() {
            return Err(DataError::OnlyVal { folder: folder.to_owned() });
        }
        paths.sort();
        shuffle(&mut paths, &mut generator(seed, "unlabelled", ""));
        paths.truncate(most);
        paths.sort();
        Ok(paths.into_iter().map(|path| Sample { path, class: 0 }).collect())
    }

    fn empty(root: &Path, classes: Vec<String>, split: SplitOrigin) -> Self {
        let (train, val, notes, warnings) = Default::default();
        Self { root: root.to_owned(), classes, train, val, split, notes, warnings }
    }

    fn drawn(root: &Path, listing: Listing, seed: u64) -> Self {
        let mut dataset = Self::empty(root, listing.keys().cloned().collect(), SplitOrigin::Drawn);
        for (class, (name, paths)) in listing.into_iter().enumerate() {
            let mut order: Vec<usize> = (0..paths.len()).collect();
            shuffle(&mut order, &mut generator(seed, "val", &name));
            let held = if paths.len() < 2 { 0 } else { (paths.len() / VAL_ONE_OF).max(1) };
            let val: BTreeSet<usize> = order.into_iter().take(held).collect();
            for (i, path) in paths.into_iter().enumerate() {
                let side = if val.contains(&i) { &mut dataset.val } else { &mut dataset.train };
                side.push(Sample { path, class });
            }
        }
        dataset
    }

    fn given(root: &Path, train: Option<Listing>, mut val: Listing) -> Result<Self, DataError> {
        if train.is_none() {
            val.retain(|_, paths| !paths.is_empty());
        }
        let names: Vec<String> = train.as_ref().unwrap_or(&val).keys().cloned().collect();
        if names.is_empty() {
            return Err(DataError::NoClasses { root: root.to_owned() });
        }
        let mut dataset = Self::empty(root, names, SplitOrigin::Folders);
        for (name, paths) in val {
            match dataset.classes.binary_search(&name) {
                Ok(class) => dataset.val.extend(paths.into_iter().map(|path| Sample { path, class })),
                Err(_) if paths.is_empty() => {}
                Err(_) => {
                    let images = paths.len();
                    dataset.warnings.push(DataWarning::OnlyInVal { class: name, images });
                }
            }
        }
        for (class, paths) in train.into_iter().flat_map(Listing::into_values).enumerate() {
            dataset.train.extend(paths.into_iter().map(|path| Sample { path, class }));
        }
        Ok(dataset)
    }

    fn warn_about_classes(&mut self) {
        if let [class] = self.classes.as_slice() {
            self.warnings.push(DataWarning::OneClass { class: class.clone() });
        }
        for (class, name) in self.classes.iter().enumerate() {
            let count = |samples: &[Sample]| samples.iter().filter(|sample| sample.class == class).count();
            if count(&self.train) == 1 && (self.split == SplitOrigin::Folders || count(&self.val) == 0) {
                self.warnings.push(DataWarning::OneImage { class: name.clone() });
            }
            if count(&self.val) == 0 {
                self.warnings.push(DataWarning::MissingInVal { class: name.clone() });
            }
        }
    }
}

/// Lists photos and remembers what it skipped.
#[derive(Default)]
struct Found {
    notes: Vec<String>,
    videos: usize,
    /// Files of other kinds by extension.
    others: BTreeMap<String, usize>,
}

impl Found {
    /// The photos of every class folder; a class without any is an error.
    fn classes(&mut self, root: &Path, folders: &[PathBuf]) -> Result<Listing, DataError> {
        let listing = self.listing(folders)?;
        if listing.is_empty() {
            return Err(DataError::NoClasses { root: root.to_owned() });
        }
        match listing.iter().find(|(_, paths)| paths.is_empty()) {
            Some((class, _)) => Err(DataError::EmptyClass { class: class.clone(), path: root.join(class) }),
            None => Ok(listing),
        }
    }

    fn listing(&mut self, folders: &[PathBuf]) -> Result<Listing, DataError> {
        let mut listing = Listing::new();
        for folder in folders {
            let Some(name) = folder.file_name().and_then(|name| name.to_str()) else {
                return Err(DataError::ClassName { path: folder.clone() });
            };
            let (mut paths, mut seen) = (Vec::new(), BTreeSet::new());
            self.walk(folder, MAX_DEPTH, &mut seen, &mut paths)?;
            paths.sort();
            listing.insert(name.to_owned(), paths);
        }
        Ok(listing)
    }

    /// `seen` holds the real folders visited, so that a link to a folder above ends.
    fn walk(
        &mut self,
        folder: &Path,
        depth: usize,
        seen: &mut BTreeSet<PathBuf>,
        paths: &mut Vec<PathBuf>,
    ) -> Result<(), DataError> {
        if depth == 0 || !seen.insert(fs_err::canonicalize(folder)?) {
            return Ok(());
        }
        for path in visible_entries(folder)? {
            if path.is_dir() {
                self.walk(&path, depth - 1, seen, paths)?;
            } else if self.is_photo(&path) {
                paths.push(path);
            }
        }
        Ok(())
    }

    fn is_photo(&mut self, path: &Path) -> bool {
        let extension = path.extension().map(|e| e.to_string_lossy().to_lowercase()).unwrap_or_default();
        if PHOTOS.contains(&extension.as_str()) {
            return true;
        }
        if VIDEOS.contains(&extension.as_str()) {
            self.videos += 1;
        } else {
            *self.others.entry(extension).or_default() += 1;
        }
        false
    }

    fn into_notes(self) -> Vec<String> {
        let mut notes = self.notes;
        if self.videos > 0 {
            notes.push(format!("skipped {} videos; photos only are read", self.videos));
        }
        if !self.others.is_empty() {
            let kinds: Vec<String> =
                self.others.iter().map(|(kind, count)| format!("{count} .{kind}")).collect();
            notes.push(format!("skipped files that are no photos: {}", kinds.join(", ")));
        }
        notes
    }
}

/// The `train` and `val` folders if these are a split and not classes, and a note on what is left out.
fn split_folders(
    folders: &[PathBuf],
    notes: &mut Vec<String>,
) -> Result<Option<[Option<PathBuf>; 2]>, DataError> {
    let named = |name: &str| folders.iter().find(|path| path.file_name().is_some_and(|n| n == name)).cloned();
    let (train, mut val) = (named("train"), named("val"));
    let known = ["train", "val", "test"].iter().filter(|name| named(name).is_some()).count();
    let split_only = known == folders.len();
    if let (Some(_), Some(path)) = (&train, &val)
        && visible_entries(path)?.is_empty()
    {
        notes.push(format!("`{}` is empty and is ignored", path.display()));
        val = None;
    }
    for path in [&train, &val].into_iter().flatten() {
        if visible_folders(path)?.is_empty() {
            return Ok(None);
        }
    }
    let both = train.is_some() && val.is_some();
    if !both && !(split_only && (train.is_some() || val.is_some())) {
        return Ok(None);
    }
    let splits = [named("train"), named("val")];
    let ignored = folders.iter().filter(|path| !splits.iter().flatten().any(|split| split == *path));
    notes.extend(ignored.map(|path| format!("`{}` is neither train nor val and is ignored", path.display())));
    Ok(Some([train, val]))
}

fn visible_folders(folder: &Path) -> Result<Vec<PathBuf>, DataError> {
    Ok(visible_entries(folder)?.into_iter().filter(|path| path.is_dir()).collect())
}

/// Entries that are not hidden, in the order of their names.
fn visible_entries(folder: &Path) -> Result<Vec<PathBuf>, DataError> {
    let mut paths = Vec::new();
    for entry in fs_err::read_dir(folder)? {
        let entry = entry?;
        if !entry.file_name().as_encoded_bytes().starts_with(b".") {
            paths.push(entry.path());
        }
    }
    paths.sort();
    Ok(paths)
}

#[cfg(test)]
mod tests;
