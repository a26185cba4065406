use std::path::Path;

use margay_core::input;
use serde_json::Value;

use super::json::{self, Trouble};
use super::names::clean;
use super::{Label, LabelError, text};

/// Longest file that is read: no list of names comes near.
const LIMIT: u64 = 1 << 26;

/// Reads class names in the order of a head, whatever file they are passed on in.
///
/// Text with a name per line (which may carry its number or the id of its synset), JSON and YAML lists, objects by
/// number or by name, also under the keys that libraries keep them under, a Keras class index, and tables with a column
/// of names. UTF-8 or UTF-16, with or without byte order mark; names come back in NFC.
pub fn read_labels(path: &Path) -> Result<Vec<Label>, LabelError> {
    let bytes = input::read(path, LIMIT)?;
    let text = decoded(&bytes).ok_or_else(|| LabelError::NotText { path: path.to_owned() })?;
    let form = |reason: String| LabelError::Form { path: path.to_owned(), reason };
    if let Some(reason) = stranger(&text) {
        return Err(form(reason.to_owned()));
    }
    let extension = path.extension().map(|e| e.to_string_lossy().to_lowercase()).unwrap_or_default();
    let starts_json = text.trim_start().starts_with(['[', '{']);
    let labels = match extension.as_str() {
        _ if starts_json => from_value(&parsed(&text).map_err(form)?, path)?,
        "yaml" | "yml" => from_value(&yaml(&text).map_err(form)?, path)?,
        "csv" | "tsv" => text::table(&text).map_err(form)?,
        _ => text::labels(&text),
    };
    let labels: Vec<Label> = labels.iter().map(cleaned).collect();
    let blank =
        if labels.is_empty() { Some(0) } else { labels.iter().position(|label| label.name.is_empty()) };
    match blank {
        Some(index) => Err(LabelError::Blank { path: path.to_owned(), index }),
        None => Ok(labels),
    }
}

/// Checks that there is one name of a file per output of a head.
pub fn check_count(path: &Path, labels: &[Label], outputs: usize) -> Result<(), LabelError> {
    let names = labels.len();
    if names == outputs { Ok(()) } else { Err(LabelError::Count { path: path.to_owned(), names, outputs }) }
}

fn cleaned(label: &Label) -> Label {
    Label { name: clean(&label.name), aliases: label.aliases.iter().map(|alias| clean(alias)).collect() }
}

fn from_value(value: &Value, path: &Path) -> Result<Vec<Label>, LabelError> {
    let path = path.to_owned();
    json::labels(value).map_err(|trouble| match trouble {
        Trouble::Gap { count, missing } => LabelError::Gap { path, count, missing },
        Trouble::Form(reason) => LabelError::Form { path, reason },
    })
}

/// JSON, or what Python prints, which YAML understands.
fn parsed(text: &str) -> Result<Value, String> {
    serde_json::from_str(text).or_else(|error| yaml(text).map_err(|_| error.to_string()))
}

fn yaml(text: &str) -> Result<Value, String> {
    // Keys that are numbers become text.
    serde_saphyr::from_str(text)
        .map_err(|error| error.to_string().lines().next().unwrap_or_default().to_owned())
}

/// The text of a file in UTF-8, or in UTF-16 with a byte order mark.
fn decoded(bytes: &[u8]) -> Option<String> {
    let wide = |read: fn([u8; 2]) -> u16| {
        let units = bytes[2..].chunks_exact(2).map(|unit| read([unit[0], unit[1]]));
        String::from_utf16(&units.collect::<Vec<_>>()).ok()
    };
    match bytes {
        [0xFF, 0xFE, ..] => wide(u16::from_le_bytes),
        [0xFE, 0xFF, ..] => wide(u16::from_be_bytes),
        _ => {
            let text = std::str::from_utf8(bytes).ok().filter(|text| !text.contains('\0'))?;
            Some(text.strip_prefix('\u{feff}').unwrap_or(text).to_owned())
        }
    }
    // Old Macs end lines so.
    .map(|text| if text.contains('\n') { text } else { text.replace('\r', "\n") })
}

/// What people pass by mistake.
fn stranger(text: &str) -> Option<&'static str> {
    let start: String = text.trim_start().chars().take(20).collect::<String>().to_lowercase();
    if start.starts_with("<!doctype") || start.starts_with("<html") {
        return Some("it is a web page: download the raw file");
    }
    if start.starts_with("version https://git") {
        return Some("it is a Git LFS pointer: download the file itself");
    }
    let is_item = start.strip_prefix("item").is_some_and(|rest| rest.trim_start().starts_with('{'));
    is_item.then_some("it is a TensorFlow label map")
}
