//! Class names of a checkpoint, and which of its outputs a dataset needs.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use margay_core::nearest_name;

/// Why a labels file is unusable.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LabelError {
    /// The file cannot be read; the message names it.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The file is JSON, but neither a list of names nor an object of index → name.
    #[error(
        "`{}` is neither a JSON list of names nor an object {{\"0\": name, …}}: {reason}",
        path.display()
    )]
    Json {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// An object's keys do not count from 0 without a gap.
    #[error("`{}` has {count} names, but none for index {missing}", path.display())]
    Gap {
        /// The file.
        path: PathBuf,
        /// Names there are.
        count: usize,
        /// The first index without a name.
        missing: usize,
    },
    /// The file is not UTF-8.
    #[error("`{}` is not UTF-8 text", path.display())]
    NotText {
        /// The file.
        path: PathBuf,
    },
    /// A name is blank, or there is none at all.
    #[error("`{}` has no name at index {index}", path.display())]
    Blank {
        /// The file.
        path: PathBuf,
        /// Where a name was expected.
        index: usize,
    },
    /// There are not as many names as the checkpoint has outputs.
    #[error(
        "`{}` has {names} class names for a head of {outputs} outputs; give the names of the checkpoint, one \
         per output, not those of the photos", path.display()
    )]
    Count {
        /// The file.
        path: PathBuf,
        /// Names there are.
        names: usize,
        /// Outputs of the head.
        outputs: usize,
    },
}

/// How a head for the dataset's classes is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeadPlan {
    /// Every class is an output of the checkpoint: these rows of its head, in the dataset's order.
    Slice(Vec<usize>),
    /// A new head is fitted; these classes have no output of their own in the checkpoint.
    Probe(Vec<Unmatched>),
}

/// A class of the dataset that is not exactly one output of the checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unmatched {
    /// Name of the class.
    pub class: String,
    /// The label that looks most like it.
    pub nearest: Option<String>,
    /// How many labels match it, or how many classes match its label: 0, or more than 1.
    pub matches: usize,
}

/// Reads class names: a JSON list, a JSON object `{"0": name, …}`, or text with a name per line.
pub fn read_labels(path: &Path) -> Result<Vec<String>, LabelError> {
    let bytes = fs_err::read(path)?;
    let text = String::from_utf8(bytes).map_err(|_| LabelError::NotText { path: path.to_owned() })?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let names = match text.trim_start().chars().next() {
        Some('[') => from_json::<Vec<String>>(text, path)?,
        Some('{') => in_order(from_json(text, path)?, path)?,
        _ => text.trim_end().lines().map(|line| line.trim().to_owned()).collect(),
    };
    let blank = if names.is_empty() { Some(0) } else { names.iter().position(|name| name.trim().is_empty()) };
    match blank {
        Some(index) => Err(LabelError::Blank { path: path.to_owned(), index }),
        None => Ok(names),
    }
}

fn from_json<T: serde::de::DeserializeOwned>(text: &str, path: &Path) -> Result<T, LabelError> {
    serde_json::from_str(text)
        .map_err(|error| LabelError::Json { path: path.to_owned(), reason: error.to_string() })
}

fn in_order(names: BTreeMap<usize, String>, path: &Path) -> Result<Vec<String>, LabelError> {
    let count = names.len();
    match (0..count).find(|index| !names.contains_key(index)) {
        Some(missing) => Err(LabelError::Gap { path: path.to_owned(), count, missing }),
        None => Ok(names.into_values().collect()),
    }
}

/// Checks that there is one name of a file per output of a head.
pub fn check_count(path: &Path, labels: &[String], outputs: usize) -> Result<(), LabelError> {
    let names = labels.len();
    if names == outputs { Ok(()) } else { Err(LabelError::Count { path: path.to_owned(), names, outputs }) }
}

/// Finds the checkpoint's output of each of the dataset's classes.
///
/// Names match if they are equal, else if they are equal without regard to case, spaces, underscores and
/// hyphens, else if one of a label's comma-separated synonyms is. A class that matches several labels,
/// or shares its label with another class, is unmatched.
pub fn match_classes(classes: &[String], labels: &[String]) -> HeadPlan {
    let index = LabelIndex::new(labels);
    let found: Vec<BTreeSet<usize>> = classes.iter().map(|class| index.find(class)).collect();
    let mut takers: BTreeMap<usize, usize> = BTreeMap::new();
    for label in found.iter().filter(|set| set.len() == 1).flatten() {
        *takers.entry(*label).or_default() += 1;
    }
    let (mut rows, mut unmatched) = (Vec::new(), Vec::new());
    for (class, found) in classes.iter().zip(&found) {
        let matches = match found.first() {
            Some(label) if found.len() == 1 => takers[label],
            _ => found.len(),
        };
        match found.first() {
            Some(label) if matches == 1 => rows.push(*label),
            first => {
                let nearest = first.map(|label| labels[*label].clone());
                let nearest = nearest.or_else(|| nearest_name(class, labels.iter().map(String::as_str)));
                unmatched.push(Unmatched { class: class.clone(), nearest, matches });
            }
        }
    }
    if unmatched.is_empty() { HeadPlan::Slice(rows) } else { HeadPlan::Probe(unmatched) }
}

impl HeadPlan {
    /// One line on why a new head is needed, or `None` if the checkpoint's own serves.
    pub fn explain(&self, classes: usize) -> Option<String> {
        let Self::Probe(unmatched) = self else { return None };
        let first = unmatched.first()?;
        let hint = match (&first.nearest, first.matches) {
            (Some(label), 0) => format!(" (nearest label: `{label}`)"),
            (Some(label), _) => format!(" (label `{label}` fits more than once)"),
            (None, _) => String::new(),
        };
        let how_many = if unmatched.len() == classes && unmatched.iter().all(|u| u.matches == 0) {
            "no class is".to_owned()
        } else {
            format!("{} of {classes} classes are not", unmatched.len())
        };
        Some(format!("{how_many} among the labels, such as `{}`{hint}: a new head is fitted", first.class))
    }
}

/// Labels by name, by simplified name and by simplified synonym.
struct LabelIndex([BTreeMap<String, BTreeSet<usize>>; 3]);

impl LabelIndex {
    fn new(labels: &[String]) -> Self {
        let mut tiers: [BTreeMap<String, BTreeSet<usize>>; 3] = Default::default();
        for (i, label) in labels.iter().enumerate() {
            tiers[0].entry(label.clone()).or_default().insert(i);
            tiers[1].entry(simplified(label)).or_default().insert(i);
            for synonym in label.split(',') {
                tiers[2].entry(simplified(synonym)).or_default().insert(i);
            }
        }
        Self(tiers)
    }

    fn find(&self, class: &str) -> BTreeSet<usize> {
        let [exact, simple, synonyms] = &self.0;
        let key = simplified(class);
        let tiers = [exact.get(class), simple.get(&key), synonyms.get(&key)];
        tiers.into_iter().flatten().next().cloned().unwrap_or_default()
    }
}

fn simplified(name: &str) -> String {
    name.to_lowercase().chars().filter(|c| !c.is_whitespace() && *c != '_' && *c != '-').collect()
}

#[cfg(test)]
mod tests;
