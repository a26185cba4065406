//! When two names are one, and when they are alike.

use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;

/// Of this many letters of a name one may be wrong.
const TYPO_LETTERS: usize = 5;

/// A name as it is kept: composed (NFC), without blanks around it.
pub fn clean(name: &str) -> String {
    name.trim().nfc().collect()
}

/// What names have in common that differ in case only.
pub fn folded(name: &str) -> String {
    clean(name).to_lowercase().nfc().collect()
}

/// What names have in common that differ in case, blanks, underscores, hyphens and forms of one character only.
pub fn simplified(name: &str) -> String {
    let separates = |c: &char| c.is_whitespace() || matches!(c, '_' | '-' | '\u{2010}'..='\u{2015}');
    let lower: String = name.nfkc().collect::<String>().to_lowercase();
    lower.nfc().filter(|c| !separates(c)).collect()
}

/// The names that a list of synonyms such as `tench, Tinca tinca` holds.
pub fn synonyms(name: &str) -> impl Iterator<Item = &str> {
    name.split(',').map(str::trim).filter(|synonym| !synonym.is_empty())
}

/// Whether two names that are not one may be meant as one: plural, accents, punctuation, a typo.
pub fn alike(a: &str, b: &str) -> bool {
    let (a, b) = (words(a), words(b));
    if a.is_empty() || b.is_empty() {
        return false;
    }
    let joined = |words: &[String]| words.concat();
    if joined(&a) == joined(&b) {
        return true;
    }
    let letters = a.concat().chars().count().max(b.concat().chars().count());
    let typos = || a.iter().zip(&b).map(|(a, b)| typos(a, b)).sum::<Option<usize>>();
    a.len() == b.len() && typos().is_some_and(|typos| typos <= letters / TYPO_LETTERS)
}

/// Whether the words of `part` are the last ones of `whole`: `fox` of `red fox`.
pub fn ends_with(whole: &str, part: &str) -> bool {
    let (whole, part) = (words(whole), words(part));
    !part.is_empty() && part.len() < whole.len() && whole.ends_with(&part)
}

/// Lower-case words without accents and punctuation.
fn words(name: &str) -> Vec<String> {
    let plain: String = name.nfkd().filter(|c| !is_combining_mark(*c) && *c != '\'').collect();
    let words = plain.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
    words.map(str::to_lowercase).collect()
}

/// By how many letters two words differ; `None` if they name different things: numbers, letters of a list.
fn typos(a: &str, b: &str) -> Option<usize> {
    if a == b || singular(a) == singular(b) {
        return Some(0);
    }
    let is_word = |word: &str| word.chars().count() >= 3 && !word.chars().any(char::is_numeric);
    (is_word(a) && is_word(b)).then(|| strsim::osa_distance(a, b))
}

fn singular(word: &str) -> String {
    if let Some(stem) = word.strip_suffix("ies").filter(|stem| stem.len() > 1) {
        return stem.to_owned() + "y";
    }
    let hisses = ["xes", "ses", "shes", "ches", "zes"].iter().any(|end| word.ends_with(end));
    let end = if hisses { "es" } else { "s" };
    match word.strip_suffix(end) {
        Some(stem) if stem.len() > 2 && !stem.ends_with('s') => stem.to_owned(),
        _ => word.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_of_one_name_are_one() {
        assert_eq!(clean(" Ba\u{308}r \u{a0}"), "Bär");
        assert_eq!(folded("BÄR"), folded("ba\u{308}r"));
        assert_eq!(simplified("Roe-Deer"), simplified("roe_ deer"));
        assert_eq!(simplified("ｆｏｘ"), "fox", "forms of a character");
        assert_ne!(simplified("Bär"), simplified("Bar"));
    }

    #[test]
    fn likeness_is_close_and_no_closer() {
        for [a, b] in [
            ["goldfsh", "goldfish"],
            ["foxes", "Fox"],
            ["black berries", "Black_Berry"],
            ["Bar", "Bär"],
            ["kaola", "koala"],
            ["St. Bernard", "st bernard"],
            ["redfox", "red_fox"],
            ["grisly bear", "grizly bear"],
        ] {
            assert!(alike(a, b), "{a} {b}");
        }
        for [a, b] in [
            ["owl", "bowl"],
            ["class_a", "class_b"],
            ["species 1", "species 2"],
            ["bear", "boar"],
            ["lion", "lynx"],
            ["fox", "red fox"],
            ["", "a"],
            ["狐", "狼"],
        ] {
            assert!(!alike(a, b), "{a} {b}");
        }
        assert!(
            ends_with("red_fox", "Fox") && !ends_with("fox", "fox") && !ends_with("tiger shark", "tiger")
        );
    }
}
