//! Folder datasets: few-shot draws, held-out folds, photos decoded in parallel.
//!
//! ```text
//! DATA/<class>/…/photo.jpg            classes only: a third of each class becomes the evaluation split
//! DATA/{train,val}/<class>/…/photo.jpg    the split is given (Train, validation, test … are known, too)
//! DATA/<class>/{train,val}/…/photo.jpg    so is this
//! ```
//!
//! [`Dataset::scan`] lists the photos, [`FewShot::draw`] picks the shots, [`load`] decodes them with the
//! runtime's own preprocessing. The evaluation split is never touched before the evaluation.
//!
//! One walk (`walk`) reads folders for every command, [`Photos`] without classes and [`Dataset`] with them; it counts what
//! it leaves out ([`LeftOut`]). What the folders are is decided on the tree that it returns (`layout`).

use std::io;
use std::path::PathBuf;

use margay_runtime::PhotoError;

use crate::names;

mod cameras;
mod layout;
mod left_out;
mod load;
mod scan;
mod shots;
mod split;
mod walk;

pub use left_out::{Kind, LeftOut};
pub use load::{Loaded, image_size_hint, load, load_in_pieces, stride, unreadable};
pub use scan::{Dataset, SplitOrigin};
pub use shots::FewShot;
pub use walk::{Found, Photos};

#[cfg(test)]
mod testing;

/// One photo and its class.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sample {
    /// The photo's file.
    pub path: PathBuf,
    /// Position of its class in [`Dataset::classes`].
    pub class: usize,
}

/// Why a folder is no usable dataset.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// A folder or file cannot be read; the message names it.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The dataset's folder is missing or a file.
    #[error("`{}` is not a folder; expected one folder per class in it", root.display())]
    NotAFolder {
        /// What was given.
        root: PathBuf,
    },
    /// A photo or folder of photos does not exist.
    #[error("`{}` does not exist", path.display())]
    Missing {
        /// What was given.
        path: PathBuf,
    },
    /// There is no class folder.
    #[error(
        "`{}` holds {} and no class folders{}; expected <class>/<photo> or train/<class>/<photo>: make a folder per class \
         and put its photos there", root.display(), photos_in_words(*photos), left_out_in_words(left_out)
    )]
    NoClasses {
        /// Where they were looked for.
        root: PathBuf,
        /// Photos there are, in or below it.
        photos: usize,
        /// What else there is.
        left_out: LeftOut,
    },
    /// All folders are named like splits, and hold photos instead of class folders.
    #[error(
        "{} are named like splits, but hold photos and no class folders: expected train/<class>/<photo>; if they are the \
         classes, say so with --class-level 1",
        quoted(splits)
    )]
    SplitsWithoutClasses {
        /// Names of the folders.
        splits: Vec<String>,
    },
    /// A split stands beside folders that are neither its counterpart nor classes like it.
    #[error(
        "`{split}` is named like a split and holds folders, and {} lie beside it: name a folder `val`, or give the folder \
         `{split}` alone; if all of them are classes, say so with --class-level 1",
        quoted(others)
    )]
    SplitAmongOthers {
        /// Name of the split.
        split: String,
        /// Names of the others.
        others: Vec<String>,
    },
    /// The class folders look like cameras.
    #[error(
        "the class folders of `{}` look like cameras and not like classes: {why}; if the classes are the folders in them, \
         pass --class-level 2, if they are classes after all, --class-level 1", root.display()
    )]
    Cameras {
        /// The dataset.
        root: PathBuf,
        /// Why.
        why: String,
    },
    /// A class folder's name cannot be a class name.
    #[error("the name of the folder `{}` is not valid Unicode and cannot name a class", path.display())]
    ClassName {
        /// The folder.
        path: PathBuf,
    },
    /// A class folder holds no photo.
    #[error(
        "class `{class}` is empty: no JPEG, PNG, WebP, BMP, GIF or TIFF file in its folder under `{}`{}; put photos there, \
         or take the folder away", root.display(), left_out_in_words(left_out)
    )]
    EmptyClass {
        /// Name of the class.
        class: String,
        /// The dataset.
        root: PathBuf,
        /// What was left out of the dataset.
        left_out: LeftOut,
    },
    /// Folders of unlabelled photos hold none.
    #[error("`{}` holds no JPEG, PNG, WebP, BMP, GIF or TIFF file{}", folder.display(), left_out_in_words(left_out))]
    NoPhotos {
        /// The first folder that was given.
        folder: PathBuf,
        /// What was left out.
        left_out: LeftOut,
    },
    /// A folder of unlabelled photos holds none that may be learnt from.
    #[error(
        "every photo in `{}` is one of the evaluation split, which nothing may be learnt from; name a folder with others",
        folder.display()
    )]
    OnlyVal {
        /// The folder.
        folder: PathBuf,
    },
    /// Photos were asked for, and the dataset has none to train on.
    #[error("`{}` holds no training photos, only photos to evaluate on", root.display())]
    NoTrain {
        /// The dataset.
        root: PathBuf,
    },
    /// A fraction is outside its range.
    #[error("held-out fraction {fraction} is not in 0 <= f < 1")]
    HoldoutFraction {
        /// What was given.
        fraction: f64,
    },
    /// None of a class's photos can be decoded.
    #[error("none of the {count} photos of class `{class}` can be read; first: {first}")]
    UnreadableClass {
        /// Name of the class.
        class: String,
        /// How many photos were tried.
        count: usize,
        /// What is wrong with the first.
        first: String,
    },
    /// None of the photos can be decoded.
    #[error("none of the {count} photos can be read; first: {first}")]
    NothingReadable {
        /// How many photos were tried.
        count: usize,
        /// What is wrong with the first.
        first: String,
    },
}

/// Something about a dataset that its owner should know; a run goes on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DataWarning {
    /// There is nothing to tell apart.
    #[error("there is only one class, `{class}`: every prediction will be right")]
    OneClass {
        /// Name of the class.
        class: String,
    },
    /// A class has one photo only, which is used to train.
    #[error("class `{class}` has a single photo: nothing of it can be held out")]
    OneImage {
        /// Name of the class.
        class: String,
    },
    /// Val is drawn photo by photo.
    #[error(
        "val is drawn photo by photo from the folders to learn from: figures on it are optimistic, as photos of one place \
         and day are on both sides; put photos of other cameras into val/"
    )]
    Optimistic,
    /// Folders that differ in case, blanks or the form of Unicode count as one class.
    #[error("the folders {} are one class, `{class}`", quoted(folders))]
    Twins {
        /// Name of the class.
        class: String,
        /// Names of the folders.
        folders: Vec<String>,
    },
    /// A class folder cannot be read.
    #[error("class `{class}` is left out: its folder cannot be read")]
    LockedClass {
        /// Name of the class.
        class: String,
    },
    /// A class cannot be evaluated.
    #[error("class `{class}` has no photos in val: its recall is reported as unknown")]
    MissingInVal {
        /// Name of the class.
        class: String,
    },
    /// A class exists in val only.
    #[error("class `{class}` is in val but not in train: its {images} photos are ignored")]
    OnlyInVal {
        /// Name of the class.
        class: String,
        /// How many photos are left out.
        images: usize,
    },
    /// A class has fewer photos than shots were asked for.
    #[error("class `{class}` has {available} readable photos, fewer than the {wanted} shots asked for")]
    FewImages {
        /// Name of the class.
        class: String,
        /// Photos there are.
        available: usize,
        /// Shots asked for.
        wanted: usize,
    },
    /// A drawn photo cannot be decoded; another takes its place where there is one.
    #[error("skipped a photo: {reason}")]
    BadPhoto {
        /// What is wrong, with its path.
        reason: String,
    },
}

fn quoted(names: &[String]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

fn photos_in_words(count: usize) -> String {
    match count {
        0 => "no photos".to_owned(),
        1 => "1 photo".to_owned(),
        count => format!("{count} photos"),
    }
}

fn left_out_in_words(left_out: &LeftOut) -> String {
    if left_out.is_empty() { String::new() } else { format!(" (left out: {left_out})") }
}

/// What is wrong with a photo, with its path.
fn told((path, error): &(PathBuf, PhotoError)) -> String {
    format!("`{}` {error}", names::path(path))
}

/// A random generator for one purpose: it depends on `seed`, `purpose` and `class` and on nothing else.
fn generator(seed: u64, purpose: &str, class: &str) -> rand_chacha::ChaCha8Rng {
    use rand_chacha::rand_core::SeedableRng;
    use sha2::{Digest, Sha256};
    let mut hash = Sha256::new();
    hash.update(seed.to_le_bytes());
    hash.update((purpose.len() as u64).to_le_bytes());
    hash.update(purpose);
    hash.update(class);
    rand_chacha::ChaCha8Rng::from_seed(hash.finalize().into())
}

/// Shuffles in place (Fisher–Yates); written out so that a draw never changes with a library's version.
fn shuffle<T>(items: &mut [T], generator: &mut rand_chacha::ChaCha8Rng) {
    use rand_chacha::rand_core::Rng;
    for last in (1..items.len()).rev() {
        let chosen = (u128::from(generator.next_u64()) * (last as u128 + 1)) >> 64;
        items.swap(last, chosen as usize);
    }
}
