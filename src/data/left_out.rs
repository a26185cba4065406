use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use crate::labels::names::clean;
use crate::progress::Progress;
use crate::record::LeftOutKind;

/// Names told apart per kind; further ones are counted together.
const NAMES: usize = 32;
/// Names shown per kind.
const SHOWN: usize = 5;
/// What further names are counted as.
const REST: &str = "…";

/// Why a file or folder is left out. In the order in which they are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A photo of an Apple or other phone (HEIF).
    Heic,
    /// What a camera's sensor saw.
    Raw,
    /// AV1 image.
    Avif,
    /// An image of another format.
    Image,
    /// A film.
    Video,
    /// A folder or file that may not be read.
    Locked,
    /// A link out of the folders given, to nowhere, or in a circle.
    Link,
    /// A pipe, socket or device.
    Special,
    /// A photo beside the class folders.
    Loose,
    /// A photo of a split that is not used.
    Split,
    /// A folder that is no class.
    NoClass,
    /// What a system, a network drive or a program made for itself.
    System,
    /// What begins with a dot.
    Hidden,
    /// A file of another kind.
    Other,
}

/// A kind, its name in records, and its name for people, one and many.
const KINDS: [(Kind, &str, [&str; 2]); 14] = [
    (Kind::Heic, "heic", ["HEIC photo", "HEIC photos"]),
    (Kind::Raw, "raw", ["raw photo", "raw photos"]),
    (Kind::Avif, "avif", ["AVIF photo", "AVIF photos"]),
    (Kind::Image, "image", ["image of another format", "images of other formats"]),
    (Kind::Video, "video", ["video", "videos"]),
    (Kind::Locked, "locked", ["locked folder", "locked folders"]),
    (Kind::Link, "link", ["link", "links"]),
    (Kind::Special, "special", ["pipe or device", "pipes or devices"]),
    (Kind::Loose, "loose", ["photo beside the class folders", "photos beside the class folders"]),
    (Kind::Split, "split", ["photo of another split", "photos of other splits"]),
    (Kind::NoClass, "no-class", ["folder that is no class", "folders that are no classes"]),
    (Kind::System, "system", ["system file or folder", "system files or folders"]),
    (Kind::Hidden, "hidden", ["hidden file or folder", "hidden files or folders"]),
    (Kind::Other, "other", ["other file", "other files"]),
];

const HEIC: &[&str] = &["heic", "heif", "hif", "heics", "heifs"];
const RAW: &[&str] = &[
    "3fr", "ari", "arw", "bay", "cr2", "cr3", "crw", "dcr", "dng", "erf", "fff", "gpr", "iiq", "k25", "kdc",
    "mef", "mos", "mrw", "nef", "nrw", "orf", "pef", "ptx", "raf", "raw", "rw2", "rwl", "sr2", "srf", "srw",
    "x3f",
];
const AVIF: &[&str] = &["avif", "avifs"];
const IMAGES: &[&str] = &[
    "ai", "cur", "eps", "exr", "hdr", "ico", "j2c", "j2k", "jfx", "jng", "jp2", "jpf", "jpm", "jpx", "jxl",
    "jxr", "pbm", "pcx", "pgm", "pnm", "ppm", "psb", "psd", "qoi", "svg", "tga", "wdp", "xcf",
];
const VIDEOS: &[&str] = &[
    "3gp", "asf", "avi", "dav", "flv", "h264", "h265", "insv", "lrv", "m2ts", "m4v", "mjpeg", "mjpg", "mkv",
    "mod", "mov", "mp4", "mpeg", "mpg", "mts", "ogv", "ts", "vob", "webm", "wmv",
];

/// Folders and files, in lower case, that no person made.
const SYSTEM: &[&str] = &[
    "$recycle.bin",
    "recycler",
    "recycled",
    "system volume information",
    "found.000",
    "@eadir",
    "@recycle",
    "@recently-snapshot",
    "@sharebin",
    "@synoresource",
    "@synoeastream",
    "@tmp",
    "@__thumb",
    "#recycle",
    "#snapshot",
    "__macosx",
    "__pycache__",
    "lost+found",
    "network trash folder",
    "temporary items",
    "thumbs.db",
    "ehthumbs.db",
    "ehthumbs_vista.db",
    "desktop.ini",
    "icon\r",
    ".ds_store",
    ".git",
    ".picasaoriginals",
    ".picasa.ini",
    ".dtrash",
    ".ipynb_checkpoints",
    ".@__thumb",
    ".@__comments",
    ".thumbnails",
    ".thumbs",
    ".spotlight-v100",
    ".fseventsd",
    ".temporaryitems",
    ".trashes",
    ".nomedia",
    ".localized",
];

/// Whether a name is that of something a system made, or hidden.
pub(super) fn of_name(name: &str) -> Option<Kind> {
    let lower = name.to_lowercase();
    let system = SYSTEM.contains(&lower.as_str())
        || lower.starts_with("._")
        || lower.starts_with(".trash")
        || lower.ends_with(".lrdata");
    match (system, name.starts_with('.')) {
        (true, _) => Some(Kind::System),
        (false, true) => Some(Kind::Hidden),
        (false, false) => None,
    }
}

/// The kind of a file that is no photo.
pub(super) fn of_file(path: &Path) -> Kind {
    let extension = path.extension().map(|e| e.to_string_lossy().to_lowercase()).unwrap_or_default();
    let table = [
        (HEIC, Kind::Heic),
        (RAW, Kind::Raw),
        (AVIF, Kind::Avif),
        (IMAGES, Kind::Image),
        (VIDEOS, Kind::Video),
    ];
    let found = table.into_iter().find(|(extensions, _)| extensions.contains(&extension.as_str()));
    found.map_or(Kind::Other, |(_, kind)| kind)
}

/// What was left out, by kind, and by extension or name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeftOut(BTreeMap<Kind, BTreeMap<String, usize>>);

impl LeftOut {
    /// Counts one more; `name` is an extension or a name.
    pub(super) fn add(&mut self, kind: Kind, name: impl Into<String>) {
        self.add_many(kind, name.into(), 1);
    }

    fn add_many(&mut self, kind: Kind, name: String, count: usize) {
        let names = self.0.entry(kind).or_default();
        let name = if names.contains_key(&name) || names.len() < NAMES { name } else { REST.to_owned() };
        *names.entry(name).or_default() += count;
    }

    /// Counts a file by its extension.
    pub(super) fn add_file(&mut self, kind: Kind, path: &Path) {
        let extension = path.extension().map(|e| e.to_string_lossy().to_lowercase());
        self.add(kind, extension.map_or_else(|| "without extension".to_owned(), |e| format!(".{e}")));
    }

    /// Counts what another counted, too.
    pub(super) fn merge(&mut self, other: &Self) {
        for (kind, names) in &other.0 {
            for (name, count) in names {
                self.add_many(*kind, name.clone(), *count);
            }
        }
    }

    /// How many of a kind.
    pub fn count(&self, kind: Kind) -> usize {
        self.0.get(&kind).map_or(0, |names| names.values().sum())
    }

    /// Whether nothing was left out.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether all that was left out are files of other kinds and what systems made.
    pub(super) fn holds_documents_only(&self) -> bool {
        self.count(Kind::Other) > 0
            && self.0.keys().all(|kind| matches!(kind, Kind::Other | Kind::System | Kind::Hidden))
    }

    /// For records and JSON.
    pub fn kinds(&self) -> Vec<LeftOutKind> {
        let told = KINDS.iter().filter_map(|(kind, name, _)| Some((kind, name, self.0.get(kind)?)));
        let record = |(kind, name, names): (&Kind, &&str, &BTreeMap<String, usize>)| LeftOutKind {
            kind: (*name).to_owned(),
            count: self.count(*kind),
            names: names.clone(),
        };
        told.map(record).collect()
    }

    /// Tells what was left out, if anything was: as a warning where photos may be among it.
    pub fn tell(&self, progress: &mut dyn Progress) {
        let worries = [Kind::Heic, Kind::Raw, Kind::Avif, Kind::Image, Kind::Locked, Kind::Link, Kind::Loose];
        if worries.into_iter().any(|kind| self.count(kind) > 0) {
            progress.warn(&format!("left out: {self}"));
        } else if !self.is_empty() {
            progress.note(&format!("left out: {self}"));
        }
    }
}

/// `3 videos (2 .mp4, 1 .avi), 1 HEIC photo (.heic)`.
impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        for (kind, _, [one, many]) in &KINDS {
            let Some(names) = self.0.get(kind) else { continue };
            let count = self.count(*kind);
            let mut shown: Vec<(&String, &usize)> = names.iter().collect();
            shown.sort_by_key(|(name, count)| (std::cmp::Reverse(**count), *name));
            let single = shown.len() == 1;
            let more = if shown.len() > SHOWN { ", …" } else { "" };
            let shown: Vec<String> = shown
                .into_iter()
                .take(SHOWN)
                .map(|(name, count)| if single { clean(name) } else { format!("{count} {}", clean(name)) })
                .collect();
            let what = if count == 1 { one } else { many };
            parts.push(format!("{count} {what} ({}{more})", shown.join(", ")));
        }
        f.write_str(&parts.join(", "))?;
        if [Kind::Heic, Kind::Raw, Kind::Avif, Kind::Image].into_iter().any(|kind| self.count(kind) > 0) {
            f.write_str("; convert photos of other formats to JPEG")?;
        }
        if self.count(Kind::Link) > 0 {
            f.write_str("; --follow-links follows links that lead out of the folder")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::{Recorder, Silent};

    #[test]
    fn kinds_are_told_apart() {
        for (name, kind) in [
            ("@eaDir", Some(Kind::System)),
            ("$RECYCLE.BIN", Some(Kind::System)),
            ("._IMG_1.JPG", Some(Kind::System)),
            (".Trash-1000", Some(Kind::System)),
            ("Thumbs.db", Some(Kind::System)),
            (".cache", Some(Kind::Hidden)),
            ("fox", None),
            ("@ the creek", None),
        ] {
            assert_eq!(of_name(name), kind, "{name}");
        }
        let kinds = ["a.HEIC", "a.CR2", "a.avif", "a.jxl", "a.MP4", "a.txt", "a"]
            .map(|name| of_file(Path::new(name)));
        let expected =
            [Kind::Heic, Kind::Raw, Kind::Avif, Kind::Image, Kind::Video, Kind::Other, Kind::Other];
        assert_eq!(kinds, expected);
    }

    #[test]
    fn everything_is_counted_and_photos_are_a_warning() {
        let mut left_out = LeftOut::default();
        for name in ["a.MP4", "b.mp4", "c.avi"] {
            left_out.add_file(Kind::Video, Path::new(name));
        }
        assert_eq!(left_out.to_string(), "3 videos (2 .mp4, 1 .avi)");
        let told = |left_out: &LeftOut| {
            let mut silent = Silent;
            let mut recorder = Recorder::new(&mut silent);
            left_out.tell(&mut recorder);
            recorder.warnings
        };
        assert_eq!(told(&left_out), Vec::<String>::new());
        left_out.add_file(Kind::Heic, Path::new("a.HEIC"));
        assert!(told(&left_out)[0].starts_with("left out: 1 HEIC photo (.heic), 3 videos"), "{left_out}");
        let kinds = left_out.kinds();
        assert_eq!((kinds[1].kind.as_str(), kinds[1].count, kinds[1].names[".mp4"]), ("video", 3, 2));
        for i in 0..1000 {
            left_out.add(Kind::Other, format!(".{i}"));
        }
        let other = left_out.kinds().pop().unwrap();
        assert_eq!((other.count, other.names.len()), (1000, NAMES + 1));
    }
}
