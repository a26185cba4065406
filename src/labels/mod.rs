//! Class names of a checkpoint: the files they come in, and which outputs a dataset's classes are.
//!
//! [`read_labels`] reads every form in which such lists are passed on, [`plan_head`] finds the classes among them.
//! `json` knows the forms of JSON and YAML, which checkpoints hold, too.

mod error;
mod file;
pub(crate) mod json;
mod matching;
pub mod names;
mod text;

pub use error::LabelError;
pub use file::{check_count, read_labels};
pub use matching::{HeadPlan, Row, Unmatched, count_known, match_each, plan_head};

/// A class of a checkpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Label {
    /// Its name, or its synonyms separated by commas.
    pub name: String,
    /// Other names of it, such as the id of its WordNet synset.
    pub aliases: Vec<String>,
}

impl Label {
    /// A class with another name.
    pub fn with_alias(name: impl Into<String>, alias: impl Into<String>) -> Self {
        Self { name: name.into(), aliases: vec![alias.into()] }
    }
}

impl From<String> for Label {
    fn from(name: String) -> Self {
        Self { name, aliases: Vec::new() }
    }
}

/// Names alone as classes; where all are of the form `n01440764 tench`, the ids become aliases.
pub fn from_names(names: Vec<String>) -> Vec<Label> {
    match names.iter().map(|name| text::synset(name)).collect::<Option<Vec<Label>>>() {
        Some(labels) if !labels.is_empty() => labels,
        _ => names.into_iter().map(Label::from).collect(),
    }
}

/// Whether a name is the id of a WordNet synset, such as `n01440764`.
fn is_synset_id(name: &str) -> bool {
    name.strip_prefix(['n', 'v', 'a', 'r', 's'])
        .is_some_and(|digits| digits.len() == 8 && digits.bytes().all(|digit| digit.is_ascii_digit()))
}

/// Sorts what is numbered 0, 1, 2 … or 1, 2, 3 …; `Err` is the first number that is missing.
fn in_order<T>(numbered: Vec<(u64, T)>) -> Result<Vec<T>, usize> {
    let (count, first) = (numbered.len(), numbered.iter().map(|(number, _)| *number).min().unwrap_or(0));
    let first = u64::from(first == 1);
    let mut sorted = numbered;
    sorted.sort_by_key(|(number, _)| *number);
    match (0..count).find(|at| sorted[*at].0 != *at as u64 + first) {
        Some(missing) => Err(missing + first as usize),
        None => Ok(sorted.into_iter().map(|(_, item)| item).collect()),
    }
}

#[cfg(test)]
mod tests;
