use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::labels::{Label, count_known};
use crate::progress::Progress;
use crate::recipe::ClassSpec;
use crate::record::Split;

use super::cameras::Doubt;
use super::layout::{Layout, Listing};
use super::left_out::LeftOut;
use super::walk::{Folder, Photos, Walker, real, real_paths};
use super::{DataError, DataWarning, Sample, generator, shuffle};

/// One of this many photos of a class goes to the evaluation split where none is given.
const VAL_ONE_OF: usize = 3;

/// The photos of a folder, by class and split.
#[derive(Clone, Debug)]
pub struct Dataset {
    /// The folder.
    pub root: PathBuf,
    /// Class names in NFC, in lexicographic order.
    pub classes: Vec<String>,
    /// Photos to learn from, by class and then by path.
    pub train: Vec<Sample>,
    /// Photos to evaluate on, by class and then by path.
    pub val: Vec<Sample>,
    /// Where the split comes from.
    pub split: SplitOrigin,
    /// Facts worth telling, such as which folders are splits.
    pub notes: Vec<String>,
    /// Things to worry about.
    pub warnings: Vec<DataWarning>,
    /// Folders that may not be read, a sentence each.
    pub skipped: Vec<String>,
    /// What was left out, by kind.
    pub left_out: LeftOut,
    follow_links: bool,
    doubt: Doubt,
}

/// Where the split into train and val comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SplitOrigin {
    /// `train/` and `val/` folders.
    Folders,
    /// Drawn with the seed: a third of each class, at least one photo where there are two.
    Drawn,
}

impl SplitOrigin {
    /// For the record. A split photo by photo is optimistic: photos of one place and day are on both sides.
    pub fn record(self) -> Split {
        let by = match self {
            Self::Folders => "folders",
            Self::Drawn => "photo",
        };
        Split { by: by.to_owned(), optimistic: self == Self::Drawn }
    }
}

impl Dataset {
    /// Lists the photos under `root`: `<class>/…`, `<split>/<class>/…` or `<class>/<split>/…`, sub-folders included.
    ///
    /// Splits are folders with the usual names, in any case: train and val (or valid, validation, dev, …), and test in the
    /// place of val where there is none. Without any, a third of each class is drawn with `seed`. With val alone there is
    /// nothing to learn from, but everything to evaluate on. What is no photo is counted and left out.
    pub fn scan(root: &Path, seed: u64, spec: &ClassSpec) -> Result<Self, DataError> {
        let (tree, mut dataset) = Self::read(root, spec)?;
        let mut layout = Layout::of(&tree, spec.level)?;
        let train = std::mem::take(&mut layout.train);
        let train = layout.listing(train);
        if let Some((_, (class, _))) = train.iter().find(|(_, (_, photos))| photos.is_empty()) {
            let class = class.clone();
            return Err(DataError::EmptyClass { left_out: tree.all_left_out(), root: tree.path, class });
        }
        let val = layout.val.take().map(|val| layout.listing(val));
        match val {
            None => dataset.draw(train, seed),
            Some(val) => dataset.given(&train, val),
        }
        dataset.take(layout, &tree)?;
        dataset.warn_about_classes();
        Ok(dataset)
    }

    /// Lists the photos to evaluate on: those of val (or test) where there is one, whatever train holds, else every photo.
    /// The classes are those that have photos there.
    pub fn scan_for_evaluation(root: &Path, spec: &ClassSpec) -> Result<Self, DataError> {
        let (tree, mut dataset) = Self::read(root, spec)?;
        let mut layout = Layout::of(&tree, spec.level)?;
        let parts = layout.val.take().unwrap_or_else(|| std::mem::take(&mut layout.train));
        let listing = layout.listing(parts);
        dataset.given(&Listing::new(), listing);
        dataset.take(layout, &tree)?;
        Ok(dataset)
    }

    /// The tree of folders, and a dataset without photos yet.
    fn read(root: &Path, spec: &ClassSpec) -> Result<(Folder, Self), DataError> {
        if !root.is_dir() {
            return Err(DataError::NotAFolder { root: root.to_owned() });
        }
        let mut walker = Walker::new(&[root.to_owned()], spec.follow_links);
        let tree = walker.root(root)?;
        if !tree.has_photos() {
            let (root, left_out) = (root.to_owned(), tree.all_left_out());
            return Err(DataError::NoClasses { root, photos: 0, left_out });
        }
        let (classes, train, val, notes, warnings, left_out, doubt) = Default::default();
        let (root, split, skipped) = (root.to_owned(), SplitOrigin::Folders, walker.warnings);
        let follow_links = spec.follow_links;
        Ok((
            tree,
            Self {
                root,
                classes,
                train,
                val,
                split,
                notes,
                warnings,
                skipped,
                left_out,
                follow_links,
                doubt,
            },
        ))
    }

    /// Takes over what a layout noticed.
    fn take(&mut self, layout: Layout, tree: &Folder) -> Result<(), DataError> {
        self.left_out = tree.all_left_out();
        self.left_out.merge(&layout.left_out);
        if self.classes.is_empty() {
            let (root, left_out) = (self.root.clone(), self.left_out.clone());
            return Err(DataError::NoClasses { root, photos: tree.count(), left_out });
        }
        self.notes = layout.notes;
        self.warnings.extend(layout.warnings);
        self.doubt = layout.doubt;
        Ok(())
    }

    /// Refuses classes that look like cameras, unless they are among the labels that are known.
    ///
    /// # Errors
    /// Also if none of the classes is a label, but folders in them are.
    pub fn check_classes(&self, known: &[Label]) -> Result<(), DataError> {
        let labelled = count_known(&self.classes, known);
        if 2 * labelled >= self.classes.len() && labelled > 0 {
            return Ok(());
        }
        let inner = count_known(&self.doubt.inner, known);
        let labels_inside = || format!("{inner} of the folders in them are named like labels of the model");
        let inside = (labelled == 0 && inner > 1 && 2 * inner >= self.doubt.inner.len()).then(labels_inside);
        match inside.or_else(|| self.doubt.why.clone()) {
            Some(why) => Err(DataError::Cameras { root: self.root.clone(), why }),
            None => Ok(()),
        }
    }

    /// Every photo, train before val.
    pub fn all(&self) -> Vec<Sample> {
        self.train.iter().chain(&self.val).cloned().collect()
    }

    /// Tells the notes and warnings. What was left out is told at the end of a command: [`LeftOut::tell`].
    pub fn tell(&self, progress: &mut dyn Progress) {
        self.notes.iter().for_each(|note| progress.note(note));
        self.skipped.iter().for_each(|skipped| progress.warn(skipped));
        self.warnings.iter().for_each(|warning| progress.warn(&warning.to_string()));
    }

    /// Photos without labels under a folder, whatever its sub-folders are called, without those of the evaluation split: at
    /// most `most`, drawn with `seed`, in the order of their paths. What is left out is told.
    pub fn unlabelled(
        &self,
        folder: &Path,
        most: usize,
        seed: u64,
        progress: &mut dyn Progress,
    ) -> Result<Vec<Sample>, DataError> {
        if !folder.is_dir() {
            return Err(DataError::NotAFolder { root: folder.to_owned() });
        }
        let found = Photos::find(&[folder.to_owned()], self.follow_links)?;
        found.tell(progress);
        found.left_out.tell(progress);
        let mut paths = found.paths();
        let val: BTreeSet<PathBuf> = real_paths(self.val.iter().map(|sample| &sample.path));
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

    fn draw(&mut self, listing: Listing, seed: u64) {
        self.split = SplitOrigin::Drawn;
        let mut classes: Vec<(String, Vec<PathBuf>)> = listing.into_values().collect();
        classes.sort();
        for (class, (name, paths)) in classes.into_iter().enumerate() {
            let mut order: Vec<usize> = (0..paths.len()).collect();
            shuffle(&mut order, &mut generator(seed, "val", &name));
            let held = if paths.len() < 2 { 0 } else { (paths.len() / VAL_ONE_OF).max(1) };
            let val: BTreeSet<usize> = order.into_iter().take(held).collect();
            for (i, path) in paths.into_iter().enumerate() {
                let side = if val.contains(&i) { &mut self.val } else { &mut self.train };
                side.push(Sample { path, class });
            }
            self.classes.push(name);
        }
        if !self.val.is_empty() {
            self.warnings.push(DataWarning::Optimistic);
        }
    }

    /// Takes a split as it is given; without anything to learn from, the classes are those of val.
    fn given(&mut self, train: &Listing, mut val: Listing) {
        val.retain(|_, (_, photos)| !photos.is_empty());
        let named = if train.is_empty() { &val } else { train };
        let mut keys: Vec<(String, String)> =
            named.iter().map(|(key, (name, _))| (name.clone(), key.clone())).collect();
        keys.sort();
        for (class, (name, key)) in keys.iter().enumerate() {
            let samples = |listing: &Listing| -> Vec<Sample> {
                let photos = listing.get(key).map(|(_, photos)| photos.clone()).unwrap_or_default();
                photos.into_iter().map(|path| Sample { path, class }).collect()
            };
            self.train.extend(samples(train));
            self.val.extend(samples(&val));
            self.classes.push(name.clone());
        }
        let known: BTreeSet<&String> = keys.iter().map(|(_, key)| key).collect();
        for (_, (class, photos)) in val.into_iter().filter(|(key, _)| !known.contains(key)) {
            self.warnings.push(DataWarning::OnlyInVal { class, images: photos.len() });
        }
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

#[cfg(test)]
mod tests;
