//! Folders that look like cameras and not like classes.

use std::collections::{BTreeMap, BTreeSet};

use super::walk::Folder;
use crate::labels::names::folded;

/// Inner names that are remembered, and names that are shown.
const INNER: usize = 1000;
const SHOWN: usize = 3;

const CAMERAS: [&str; 20] = [
    "cameratrap",
    "camera",
    "camara",
    "camera_trap",
    "kamera",
    "caméra",
    "cámara",
    "cam",
    "station",
    "site",
    "sdcard",
    "sd",
    "card",
    "deployment",
    "trap",
    "location",
    "loc",
    "transect",
    "plot",
    "estacion",
];
const DIRECTIONS: [&str; 14] = [
    "north",
    "south",
    "east",
    "west",
    "northeast",
    "northwest",
    "southeast",
    "southwest",
    "left",
    "right",
    "day",
    "night",
    "nord",
    "süd",
];

/// What class folders hold that could be the classes instead, and why they look like cameras.
#[derive(Clone, Debug, Default)]
pub(super) struct Doubt {
    /// Names of folders directly in class folders.
    pub inner: Vec<String>,
    /// Why the class folders look like cameras; `None` if they do not.
    pub why: Option<String>,
}

impl Doubt {
    /// Looks at class folders and what is directly in them.
    pub fn about(classes: &[&Folder]) -> Self {
        let mut holders: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for class in classes {
            for inner in class.folders().filter(|inner| inner.has_photos()) {
                holders.entry(name(inner)).or_default().insert(name(class));
            }
        }
        let why = cards(classes).or_else(|| cameras(classes)).or_else(|| repeated(classes, &holders));
        Self { inner: holders.into_keys().take(INNER).collect(), why }
    }
}

/// Folders as a camera writes them, in place of classes or directly in them.
fn cards(classes: &[&Folder]) -> Option<String> {
    let cards: Vec<String> = classes.iter().map(|class| name(class)).filter(|name| is_card(name)).collect();
    if !classes.is_empty() && cards.len() == classes.len() {
        return Some(format!("{} are folders of a memory card", quoted(&cards)));
    }
    let inner = |class: &&&Folder| class.folders().map(name).find(|name| is_card(name));
    let holders: Vec<_> = classes.iter().filter_map(|class| Some((name(class), inner(&class)?))).collect();
    let (class, card) = holders.first().filter(|_| 2 * holders.len() >= classes.len())?;
    Some(format!("`{class}` holds `{card}`, a folder of a memory card"))
}

fn cameras(classes: &[&Folder]) -> Option<String> {
    let names: Vec<String> = classes.iter().map(|class| name(class)).collect();
    let all = !names.is_empty() && names.iter().all(|name| is_camera(name));
    all.then(|| format!("{} are named like cameras", quoted(&names)))
}

/// Inner names that repeat are classes, unless they are named like places.
fn repeated(classes: &[&Folder], holders: &BTreeMap<String, BTreeSet<String>>) -> Option<String> {
    let outer: BTreeMap<String, String> =
        classes.iter().map(|class| (folded(&name(class)), name(class))).collect();
    for (inner, above) in holders {
        let other = above.iter().find(|holder| folded(holder) != folded(inner));
        if let (Some(class), Some(other)) = (outer.get(&folded(inner)), other) {
            return Some(format!(
                "`{class}` is a class folder, and lies in the class folder `{other}` again"
            ));
        }
    }
    let repeated: Vec<(&String, &BTreeSet<String>)> =
        holders.iter().filter(|(inner, above)| above.len() > 1 && !is_place(inner)).collect();
    let (_, above) = repeated.first()?;
    let inner: Vec<String> = repeated.iter().map(|(inner, _)| (*inner).clone()).collect();
    let above: Vec<String> = above.iter().cloned().collect();
    Some(format!("the same folders ({}) lie in {}", quoted(&inner), quoted(&above)))
}

fn name(folder: &Folder) -> String {
    folder.name().unwrap_or_else(|| folder.path.to_string_lossy().into_owned())
}

fn quoted(names: &[String]) -> String {
    let shown = names.iter().take(SHOWN).map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    if names.len() > SHOWN { shown + ", …" } else { shown }
}

/// A folder that a camera makes on its card: `DCIM`, `100RECNX` (three digits and five more characters, not all digits).
pub(super) fn is_card(name: &str) -> bool {
    let card = |name: &[u8]| {
        let (number, rest) = name.split_at(3);
        number.iter().all(u8::is_ascii_digit)
            && rest.iter().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || *c == b'_')
            && rest.iter().any(u8::is_ascii_uppercase)
    };
    name.eq_ignore_ascii_case("dcim") || (name.len() == 8 && name.is_ascii() && card(name.as_bytes()))
}

/// A word for a camera or its place with a number or letter: `CAM1`, `Kamera 2`, `site_B`.
pub(super) fn is_camera(name: &str) -> bool {
    let lower = name.to_lowercase();
    let short = |rest: &str| {
        let rest = rest.trim_start_matches([' ', '_', '-', '.', '#']);
        let letters = rest.chars().filter(|c| c.is_alphabetic()).count();
        let digits = rest.chars().filter(char::is_ascii_digit).count();
        let other = rest.chars().any(|c| !c.is_alphanumeric() && !matches!(c, '_' | '-' | ' ' | '.'));
        !other && (digits > 0 && letters <= 3 || digits == 0 && letters == 1)
    };
    is_card(name) || CAMERAS.iter().any(|word| lower.strip_prefix(word).is_some_and(short))
}

/// What may well be the name of a place, a day or a camera: a code with digits, a direction.
fn is_place(name: &str) -> bool {
    let lower = name.to_lowercase();
    let letters = lower.chars().filter(|c| c.is_alphabetic()).count();
    let has_digit = lower.chars().any(|c| c.is_ascii_digit());
    is_camera(name) || (has_digit && letters <= 6) || DIRECTIONS.contains(&lower.as_str()) || letters <= 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cards_cameras_and_classes_are_told_apart() {
        for name in ["DCIM", "dcim", "100RECNX", "101_BTCF", "100MEDIA"] {
            assert!(is_card(name), "{name}");
        }
        for name in ["20210503", "12345678", "001Raven", "fox", "caméra12"] {
            assert!(!is_card(name), "{name}");
        }
        for name in
            ["CAM1", "Cam_02", "Kamera 2", "camera-A", "Station3", "site_B", "SD12", "100RECNX", "CAM01_2021"]
        {
            assert!(is_camera(name), "{name}");
        }
        for name in [
            "camel",
            "Camelus dromedarius",
            "cardinal",
            "trapdoor spider",
            "sitatunga",
            "fox",
            "site",
            "locust",
        ] {
            assert!(!is_camera(name), "{name}");
        }
        assert!(["A01", "S1_A03", "2021-05-03", "north"].iter().all(|name| is_place(name)));
        assert!(!["fox", "roe deer", "adult"].iter().any(|name| is_place(name)));
    }
}
