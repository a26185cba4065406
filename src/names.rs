//! Names that others chose, made fit to be written: paths, labels, whatever a model file or a folder holds.
//!
//! A path is bytes, not text, and a label may hold anything. Written as it stands, a file name ends a line, colours a
//! terminal or fills a spreadsheet's cell with a formula.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use percent_encoding::{percent_decode, percent_encode_byte};

/// A path as text, `/` between its parts. [`to_path`] finds the way back, so two files never have one name.
///
/// Bytes that are not UTF-8 and control characters are percent-encoded, and in such a path `%` itself, too:
/// `fuchs_%E4.jpg`. Every other path stays as it is.
pub fn path(path: &Path) -> String {
    let text = encoded(path.as_os_str().as_encoded_bytes());
    if cfg!(windows) { text.replace('\\', "/") } else { text }
}

/// The path that [`path`] wrote.
pub fn to_path(text: &str) -> PathBuf {
    if !needs_encoding(text.as_bytes()) {
        return PathBuf::from(text);
    }
    from_bytes(percent_decode(text.as_bytes()).collect())
}

/// Text for one line: control characters and those that turn the direction of writing are escaped, `\u{1b}`.
pub fn line(text: &str) -> Cow<'_, str> {
    replaced(text, is_hidden, |letter| letter.escape_default().to_string())
}

/// Text of many lines: as [`line()`], but line breaks and tabs stay.
pub fn lines(text: &str) -> Cow<'_, str> {
    replaced(
        text,
        |letter| is_hidden(letter) && !matches!(letter, '\n' | '\t'),
        |l| l.escape_default().to_string(),
    )
}

/// JSON as [`lines()`], escaped as JSON does it.
pub fn json(text: &str) -> Cow<'_, str> {
    let escape = |letter| format!("\\u{:04x}", u32::from(letter));
    replaced(text, |letter| is_hidden(letter) && letter != '\n', escape)
}

/// A cell of a table that a spreadsheet may open: one line that is never taken for a formula.
pub fn cell(text: &str) -> Cow<'_, str> {
    let text = line(text);
    if text.starts_with(['=', '+', '-', '@']) { Cow::Owned(format!("'{text}")) } else { text }
}

fn encoded(bytes: &[u8]) -> String {
    if !needs_encoding(bytes) {
        return String::from_utf8(bytes.to_owned()).expect("what needs no encoding is text");
    }
    let mut text = String::with_capacity(bytes.len() + 8);
    let encode = |text: &mut String, bytes: &[u8]| {
        text.extend(bytes.iter().map(|byte| percent_encode_byte(*byte)));
    };
    for chunk in bytes.utf8_chunks() {
        for letter in chunk.valid().chars() {
            match letter {
                letter if letter == '%' || is_hidden(letter) => {
                    encode(&mut text, letter.encode_utf8(&mut [0; 4]).as_bytes());
                }
                letter => text.push(letter),
            }
        }
        encode(&mut text, chunk.invalid());
    }
    text
}

/// Whether a name cannot stand as it is, or looks like the encoding of one that cannot, however often that was encoded. So
/// what `encoded` makes of a name needs encoding exactly if the name does, and no two names have one text.
fn needs_encoding(bytes: &[u8]) -> bool {
    let mut bytes = Cow::Borrowed(bytes);
    while is_plain(&bytes) {
        let decoded: Vec<u8> = percent_decode(&bytes).collect();
        if decoded == *bytes {
            return false;
        }
        bytes = Cow::Owned(decoded);
    }
    true
}

/// Whether bytes are text without hidden characters.
fn is_plain(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_ok_and(|text| !text.chars().any(is_hidden))
}

/// Control characters, line separators, and marks that reorder the letters around them.
fn is_hidden(letter: char) -> bool {
    letter.is_control() || matches!(letter, '\u{2028}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
}

fn replaced(text: &str, hidden: impl Fn(char) -> bool, escape: impl Fn(char) -> String) -> Cow<'_, str> {
    if !text.chars().any(&hidden) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 8);
    for letter in text.chars() {
        let _ = if hidden(letter) { safe.write_str(&escape(letter)) } else { safe.write_char(letter) };
    }
    Cow::Owned(safe)
}

#[cfg(unix)]
fn from_bytes(bytes: Vec<u8>) -> PathBuf {
    use std::os::unix::ffi::OsStringExt as _;
    std::ffi::OsString::from_vec(bytes).into()
}

#[cfg(not(unix))]
fn from_bytes(bytes: Vec<u8>) -> PathBuf {
    String::from_utf8_lossy(&bytes).into_owned().into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_paths_that_are_no_plain_text_are_encoded() {
        for (bytes, text) in [
            (&b"a b/\xC3\xA4%.jpg"[..], "a b/ä%.jpg"),
            (b"fuchs_\xE4.jpg", "fuchs_%E4.jpg"),
            (b"100%_\xE4.jpg", "100%25_%E4.jpg"),
            (b"100%25.jpg", "100%25.jpg"),
            (b"a\nb.jpg", "a%0Ab.jpg"),
            (b"a\x1B[2J.jpg", "a%1B[2J.jpg"),
            (b"fuchs_%E4.jpg", "fuchs_%25E4.jpg"),
        ] {
            assert_eq!(encoded(bytes), text);
        }
    }

    #[test]
    fn what_a_terminal_obeys_is_escaped() {
        assert_eq!(line("fox\x1b[31m\n\u{9b}2J\u{202e}x"), "fox\\u{1b}[31m\\n\\u{9b}2J\\u{202e}x");
        assert_eq!(lines("a\tb\nc\r\u{7f}"), "a\tb\nc\\r\\u{7f}");
        assert_eq!(json("{\n\"a\u{202e}\u{7f}\"}"), "{\n\"a\\u202e\\u007f\"}");
        assert_eq!(line("Bär 熊"), "Bär 熊");
    }

    #[test]
    fn a_cell_is_no_formula() {
        for formula in ["=1+1", "+1", "-1", "@SUM(A1)"] {
            assert_eq!(cell(formula), format!("'{formula}"));
        }
        assert_eq!(cell("\t=1"), "\\t=1");
        assert_eq!(cell("red-fox"), "red-fox");
    }

    proptest! {
        #[cfg(unix)]
        #[test]
        fn a_written_path_leads_back(name in prop::collection::vec(any::<u8>(), 1..12), plain in "[%E425a-f]{1,8}") {
            for bytes in [name, plain.into_bytes()] {
                let original = from_bytes(bytes);
                let text = path(&original);
                prop_assert!(!text.chars().any(is_hidden));
                prop_assert_eq!(to_path(&text), original);
            }
        }
    }
}
