//! From a tree of folders to classes and splits: nothing here touches the disk.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use super::cameras::{Doubt, is_camera};
use super::left_out::{Kind, LeftOut};
use super::split::{Role, role};
use super::walk::Folder;
use super::{DataError, DataWarning};
use crate::labels::names::folded;

/// Names of folders that hold photos and say nothing of them.
const WRAPPERS: [&str; 18] = [
    "images",
    "image",
    "imgs",
    "img",
    "photos",
    "photo",
    "pictures",
    "pics",
    "data",
    "dataset",
    "datasets",
    "jpg",
    "jpeg",
    "jpegs",
    "jpegimages",
    "raw",
    "frames",
    "all",
];

/// Class folders by split, and what was noticed on the way.
#[derive(Debug, Default)]
pub(super) struct Layout<'a> {
    /// Parts of classes to learn from.
    pub train: Vec<Part<'a>>,
    /// Parts of classes to evaluate on, if the folders say so.
    pub val: Option<Vec<Part<'a>>>,
    pub doubt: Doubt,
    pub notes: Vec<String>,
    pub warnings: Vec<DataWarning>,
    pub left_out: LeftOut,
}

/// A folder of a class; `photos` are those of it that belong to the split.
#[derive(Debug)]
pub(super) struct Part<'a> {
    pub folder: &'a Folder,
    pub photos: Vec<PathBuf>,
}

/// Photos by class: under the folded name, the name and the photos.
pub(super) type Listing = BTreeMap<String, (String, Vec<PathBuf>)>;

impl<'a> Layout<'a> {
    /// What the folders under `root` are; `level` says how far down class folders lie, if the user does.
    pub fn of(root: &'a Folder, level: Option<usize>) -> Result<Self, DataError> {
        let mut layout = Self::default();
        let top = if level.is_none() { layout.unwrapped(root) } else { root };
        let [splits, others] = parted(top);
        if splits.is_empty() {
            return layout.classes(top, level);
        }
        let labelled = |folder: &&&Folder| unwrapped(folder).folders().any(Folder::has_photos);
        let has = |wanted: Role| splits.iter().filter(labelled).any(|folder| role_of(folder) == Some(wanted));
        let any = [Role::Train, Role::Val, Role::Test].map(has);
        let is_split = match any {
            [true, false, false] | [false, ..] => others.is_empty() && any.contains(&true),
            [true, ..] => true,
        };
        if is_split {
            return layout.splits(top, &splits, &others, level);
        }
        if level.is_none() {
            refuse_splits(&splits, &others)?;
        }
        layout.classes(top, level)
    }

    /// Class folders without splits above them; splits may lie in them.
    fn classes(mut self, top: &'a Folder, level: Option<usize>) -> Result<Self, DataError> {
        let folders = self.class_folders(top, level)?;
        if level.is_none() && folders.iter().all(|folder| is_wrapper(folder)) {
            let (root, photos, left_out) = (top.path.clone(), top.count(), top.all_left_out());
            return Err(DataError::NoClasses { root, photos, left_out });
        }
        self.doubts(&folders, level);
        let inner = |wanted: Role| {
            folders
                .iter()
                .filter(move |class| class.folders().any(|f| f.has_photos() && role_of(f) == Some(wanted)))
        };
        let split_inside = inner(Role::Train).any(|class| {
            class.folders().any(|f| f.has_photos() && matches!(role_of(f), Some(Role::Val | Role::Test)))
        });
        if !split_inside {
            self.train = whole(&folders);
            return Ok(self);
        }
        self.notes.push("train and val are folders inside the class folders".to_owned());
        self.doubt = Doubt::default();
        let held = if inner(Role::Val).next().is_some() { Role::Val } else { Role::Test };
        let mut val = Vec::new();
        for folder in &folders {
            let photos = |wanted: &dyn Fn(Option<Role>) -> bool| -> Vec<PathBuf> {
                let inner = folder.folders().filter(|inner| wanted(role_of(inner)));
                inner.flat_map(Folder::photos).collect()
            };
            let mut learnt: Vec<PathBuf> = folder.own_photos().cloned().collect();
            learnt.extend(photos(&|role| matches!(role, None | Some(Role::Train))));
            self.train.push(Part { folder, photos: learnt });
            val.push(Part { folder, photos: photos(&|role| role == Some(held)) });
            if held == Role::Val {
                let left = photos(&|role| role == Some(Role::Test));
                for _ in left {
                    self.left_out.add(Kind::Split, "test");
                }
            }
        }
        self.val = Some(val);
        Ok(self)
    }

    /// Class folders in folders that are named like splits.
    fn splits(
        mut self,
        top: &'a Folder,
        splits: &[&'a Folder],
        others: &[&'a Folder],
        level: Option<usize>,
    ) -> Result<Self, DataError> {
        self.loose(top);
        for other in others {
            let path = other.path.display();
            self.notes.push(format!("`{path}` is neither train nor val and is ignored"));
            self.left_out.add(Kind::NoClass, name(other));
        }
        for empty in top.folders().filter(|folder| !folder.has_photos() && role_of(folder).is_some()) {
            self.notes.push(format!("`{}` is empty and is ignored", empty.path.display()));
        }
        let mut parts: BTreeMap<Role, Vec<&Folder>> = BTreeMap::new();
        for split in splits {
            let inner = if level.is_none() { unwrapped(split) } else { split };
            if !inner.folders().any(Folder::has_photos) {
                self.flat(split);
                continue;
            }
            let folders = self.class_folders(inner, level)?;
            match (role_of(split), folders.is_empty()) {
                (Some(role), false) => parts.entry(role).or_default().extend(folders),
                _ => self.flat(split),
            }
        }
        let (train, val, test) =
            (parts.remove(&Role::Train), parts.remove(&Role::Val), parts.remove(&Role::Test));
        if let (Some(_), Some(test)) = (&val, &test) {
            self.notes.push("test is left out: val is what is evaluated on".to_owned());
            let photos: usize = test.iter().map(|folder| folder.count()).sum();
            (0..photos).for_each(|_| self.left_out.add(Kind::Split, "test"));
        } else if test.is_some() && train.is_some() {
            self.notes.push("there is no val: test is what is evaluated on".to_owned());
        }
        let all: Vec<&Folder> =
            train.as_ref().or(val.as_ref()).or(test.as_ref()).cloned().unwrap_or_default();
        self.doubts(&all, level);
        self.train = whole(&train.unwrap_or_default());
        self.val = val.or(test).map(|folders| whole(&folders));
        Ok(self)
    }

    /// Photos of a split without class folders.
    fn flat(&mut self, split: &Folder) {
        self.notes.push(format!("`{}` holds no class folders and is left out", split.path.display()));
        (0..split.count()).for_each(|_| self.left_out.add(Kind::Split, name(split)));
    }

    /// The folder in which several folders lie, where each above it holds the next and nothing else.
    fn unwrapped(&mut self, root: &'a Folder) -> &'a Folder {
        let inner = unwrapped(root);
        if !std::ptr::eq(inner, root) {
            self.notes.push(format!("`{}` is the folder that is read", inner.path.display()));
        }
        inner
    }

    /// The folders `level` below `top`, without those that hold no photos and are no classes either.
    fn class_folders(&mut self, top: &'a Folder, level: Option<usize>) -> Result<Vec<&'a Folder>, DataError> {
        let mut folders = vec![top];
        for _ in 0..level.unwrap_or(1) {
            for folder in &folders {
                self.loose(folder);
            }
            folders = folders.into_iter().flat_map(Folder::folders).collect();
        }
        let mut classes = Vec::new();
        for folder in folders {
            if folder.name().is_none() {
                return Err(DataError::ClassName { path: folder.path.clone() });
            }
            if self.is_class(folder) {
                classes.push(folder);
            }
        }
        Ok(classes)
    }

    fn is_class(&mut self, folder: &Folder) -> bool {
        if folder.locked {
            self.warnings.push(DataWarning::LockedClass { class: name(folder) });
            return false;
        }
        if folder.has_photos() || !folder.all_left_out().holds_documents_only() {
            return true;
        }
        self.notes.push(format!("`{}` holds no photos and is no class", folder.path.display()));
        self.left_out.add(Kind::NoClass, name(folder));
        false
    }

    /// Counts photos that lie beside class folders.
    fn loose(&mut self, folder: &Folder) {
        folder.own_photos().for_each(|path| self.left_out.add_file(Kind::Loose, path));
    }

    fn doubts(&mut self, folders: &[&Folder], level: Option<usize>) {
        if level.is_none() {
            self.doubt = Doubt::about(folders);
        }
    }

    /// Photos by class: folders whose names are one but for case, form of Unicode and blanks are one class.
    pub fn listing(&mut self, parts: Vec<Part>) -> Listing {
        // By spelling the photos, by name as it is written, and all photos.
        type Found = (BTreeMap<String, usize>, BTreeSet<String>, Vec<PathBuf>);
        let mut found: BTreeMap<String, Found> = BTreeMap::new();
        for Part { folder, photos } in parts {
            let name = name(folder);
            let (spellings, written, all) = found.entry(folded(&name)).or_default();
            *spellings.entry(name).or_default() += photos.len();
            written.insert(folder.path.file_name().unwrap_or_default().to_string_lossy().into_owned());
            all.extend(photos);
        }
        let mut listing = Listing::new();
        for (key, (spellings, written, mut photos)) in found {
            photos.sort();
            // The spelling of most photos; of equal ones the first.
            let most = spellings.iter().max_by(|a, b| a.1.cmp(b.1).then(b.0.cmp(a.0)));
            let name = most.map(|(name, _)| name.clone()).unwrap_or_default();
            if written.len() > 1 {
                let folders = written.into_iter().collect();
                self.warnings.push(DataWarning::Twins { class: name.clone(), folders });
            }
            listing.insert(key, (name, photos));
        }
        listing
    }
}

/// Folders with photos: those that are named like splits, and the others.
fn parted(top: &Folder) -> [Vec<&Folder>; 2] {
    let full = top.folders().filter(|folder| folder.has_photos());
    let (splits, others) = full.partition::<Vec<_>, _>(|folder| role_of(folder).is_some());
    [splits, others]
}

/// Splits that hold photos instead of classes, or stand among classes.
fn refuse_splits(splits: &[&Folder], others: &[&Folder]) -> Result<(), DataError> {
    let names = |folders: &[&Folder]| folders.iter().map(|folder| name(folder)).collect::<Vec<_>>();
    if others.is_empty() {
        return Err(DataError::SplitsWithoutClasses { splits: names(splits) });
    }
    let holds_classes = |folder: &&&Folder| {
        folder.own_photos().next().is_none()
            && folder.folders().filter(|inner| inner.has_photos()).count() > 1
    };
    match splits.iter().find(holds_classes) {
        Some(split) => Err(DataError::SplitAmongOthers { split: name(split), others: names(others) }),
        None => Ok(()),
    }
}

fn whole<'a>(folders: &[&'a Folder]) -> Vec<Part<'a>> {
    folders.iter().map(|folder| Part { folder, photos: folder.photos() }).collect()
}

fn name(folder: &Folder) -> String {
    folder.name().unwrap_or_else(|| folder.path.to_string_lossy().into_owned())
}

fn role_of(folder: &Folder) -> Option<Role> {
    role(&folder.name()?)
}

fn unwrapped(folder: &Folder) -> &Folder {
    match only(folder) {
        Some(inner) if wraps(inner) => unwrapped(inner),
        _ => folder,
    }
}

/// The one folder with photos, where there is nothing else.
fn only(folder: &Folder) -> Option<&Folder> {
    let mut full = folder.folders().filter(|inner| inner.has_photos());
    let inner = full.next()?;
    let alone = full.next().is_none() && folder.own_photos().next().is_none();
    (alone && role_of(inner).is_none() && !is_camera(&name(inner))).then_some(inner)
}

/// Whether a folder is around classes, and no class.
fn wraps(folder: &Folder) -> bool {
    if folder.own_photos().next().is_some() {
        return false;
    }
    let inner: Vec<&Folder> = folder.folders().filter(|inner| inner.has_photos()).collect();
    let splits = !inner.is_empty() && inner.iter().all(|inner| role_of(inner).is_some());
    let classes = inner.len() > 1 && !inner.iter().all(|inner| is_camera(&name(inner)));
    let next = only(folder).is_some_and(|inner| is_wrapper(folder) || wraps(inner));
    splits || classes || next
}

/// Whether a folder's name says nothing of what is on its photos.
fn is_wrapper(folder: &Folder) -> bool {
    WRAPPERS.contains(&folded(&name(folder)).as_str())
}
