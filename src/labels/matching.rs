use std::collections::{BTreeMap, BTreeSet};

use margay_core::nearest_name;

use super::names::{alike, clean, ends_with, simplified, synonyms};
use super::{Label, LabelError};
use crate::recipe::ClassSpec;

/// Labels that are shown beside a class.
const NEAR: usize = 4;

/// How a head for the dataset's classes is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeadPlan {
    /// Every class is one output of the checkpoint, or several that are joined: the rows of its head, in the dataset's
    /// order.
    Slice(Vec<Vec<Row>>),
    /// A new head is fitted; these classes have no output of their own in the checkpoint.
    Probe(Vec<Unmatched>),
}

/// An output of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Its position in the head.
    pub index: usize,
    /// Its label.
    pub name: String,
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

/// Finds the checkpoint's outputs for each of the dataset's classes.
///
/// A class that `spec.map` names gets what it says. The others match a label that is equal, else one that is equal
/// without regard to case, blanks, underscores and hyphens, else one with such a synonym. Classes without a match get a
/// new head, with all others.
///
/// `spec.fit_head` asks for a new head, whatever matches.
///
/// # Errors
/// Unless a new head is asked for: if classes without a match look like labels, if several labels match, or if
/// a label matches several classes. In any case: if `spec.map` names what is not there.
pub fn plan_head(classes: &[String], labels: &[Label], spec: &ClassSpec) -> Result<HeadPlan, LabelError> {
    let index = LabelIndex::new(labels);
    let mapped = mapped(classes, &index, spec)?;
    let find = |class: &String| mapped.get(class).cloned().unwrap_or_else(|| index.find(class));
    let found: Vec<BTreeSet<usize>> = classes.iter().map(find).collect();
    let mut takers: BTreeMap<usize, Vec<String>> = BTreeMap::new();
    for (class, found) in classes.iter().zip(&found) {
        for label in found {
            takers.entry(*label).or_default().push(class.clone());
        }
    }
    let is_sound = |class: &String, found: &BTreeSet<usize>| {
        let alone = found.iter().all(|label| takers[label].len() == 1);
        alone && (found.len() == 1 || (mapped.contains_key(class) && !found.is_empty()))
    };
    if !spec.fit_head && classes.iter().zip(&found).all(|(class, found)| is_sound(class, found)) {
        let row = |label: usize| Row { index: label, name: labels[label].name.clone() };
        return Ok(HeadPlan::Slice(
            found.into_iter().map(|group| group.into_iter().map(row).collect()).collect(),
        ));
    }
    if !spec.fit_head {
        refuse_to_throw_away(classes, labels, &found, &takers, &mapped)?;
    }
    let unmatched = classes.iter().zip(&found).filter(|(class, found)| !is_sound(class, found));
    Ok(HeadPlan::Probe(unmatched.map(|(class, found)| missing(class, labels, found, &takers)).collect()))
}

/// The outputs of a model that each class is: what `spec.map` says of it, else the one label that matches, else none.
///
/// Several classes may be one output.
///
/// # Errors
/// If `spec.map` names what is not there, or outputs that overlap without being the same.
pub fn match_each(
    classes: &[String],
    labels: &[Label],
    spec: &ClassSpec,
) -> Result<Vec<Vec<usize>>, LabelError> {
    let index = LabelIndex::new(labels);
    let mapped = mapped(classes, &index, spec)?;
    let find = |class: &String| match mapped.get(class) {
        Some(mapped) => mapped.iter().copied().collect(),
        None => {
            Some(index.find(class)).filter(|found| found.len() == 1).unwrap_or_default().into_iter().collect()
        }
    };
    let found: Vec<Vec<usize>> = classes.iter().map(find).collect();
    for (at, outputs) in found.iter().enumerate().filter(|(_, outputs)| outputs.len() > 1) {
        let overlaps =
            |other: &Vec<usize>| other != outputs && other.iter().any(|output| outputs.contains(output));
        if let Some(other) = found.iter().position(overlaps) {
            let label = labels
                [*outputs.iter().find(|output| found[other].contains(output)).unwrap_or(&outputs[0])]
            .name
            .clone();
            return Err(LabelError::Shared {
                label,
                classes: vec![classes[at].clone(), classes[other].clone()],
            });
        }
    }
    Ok(found)
}

/// How many of these names are labels.
pub fn count_known(names: &[String], labels: &[Label]) -> usize {
    let index = LabelIndex::new(labels);
    names.iter().filter(|name| !index.find(name).is_empty()).count()
}

/// What a mapping says of each class that it names.
fn mapped(
    classes: &[String],
    index: &LabelIndex,
    spec: &ClassSpec,
) -> Result<BTreeMap<String, BTreeSet<usize>>, LabelError> {
    let mut mapped = BTreeMap::new();
    for (named, wanted) in &spec.map {
        let class = classes.iter().find(|class| **class == clean(named));
        let class = class.or_else(|| classes.iter().find(|class| simplified(class) == simplified(named)));
        let Some(class) = class else {
            let nearest = nearest_name(named, classes.iter().map(String::as_str));
            let classes = classes.iter().take(NEAR).cloned().collect();
            return Err(LabelError::NoClass { class: named.clone(), nearest, classes });
        };
        for label in wanted {
            let at = index.named(class, label)?;
            mapped.entry(class.clone()).or_insert_with(BTreeSet::new).insert(at);
        }
    }
    Ok(mapped)
}

/// An error where the user can still save the head: by spelling, by naming one of several, by merging folders.
fn refuse_to_throw_away(
    classes: &[String],
    labels: &[Label],
    found: &[BTreeSet<usize>],
    takers: &BTreeMap<usize, Vec<String>>,
    mapped: &BTreeMap<String, BTreeSet<usize>>,
) -> Result<(), LabelError> {
    if let Some((label, takers)) = takers.iter().find(|(_, takers)| takers.len() > 1) {
        return Err(LabelError::Shared { label: labels[*label].name.clone(), classes: takers.clone() });
    }
    let named = |class: &String| mapped.contains_key(class);
    if let Some((class, found)) =
        classes.iter().zip(found).find(|(class, found)| found.len() > 1 && !named(class))
    {
        return Err(LabelError::Ambiguous { class: class.clone(), outputs: found.iter().copied().collect() });
    }
    let some_match = found.iter().any(|found| !found.is_empty());
    let missing = classes.iter().zip(found).filter(|(_, found)| found.is_empty()).map(|(class, _)| class);
    let near = missing.map(|class| (class.clone(), near(class, labels, some_match)));
    let pairs: Vec<(String, Vec<String>)> = near.filter(|(_, near)| !near.is_empty()).collect();
    if pairs.is_empty() { Ok(()) } else { Err(LabelError::Spelling { pairs, classes: classes.len() }) }
}

/// Labels that may be meant by a class; where other classes match, also kinds of it.
fn near(class: &str, labels: &[Label], some_match: bool) -> Vec<String> {
    let fits = |fit: &dyn Fn(&str) -> bool| -> Vec<String> {
        let fitting = labels.iter().filter(|label| synonyms(&label.name).any(fit));
        fitting.map(|label| label.name.clone()).take(NEAR).collect()
    };
    let same = fits(&|name| synonyms(class).any(|class| alike(class, name)));
    if !same.is_empty() || !some_match {
        return same;
    }
    fits(&|name| ends_with(name, class) || ends_with(class, name))
}

fn missing(
    class: &str,
    labels: &[Label],
    found: &BTreeSet<usize>,
    takers: &BTreeMap<usize, Vec<String>>,
) -> Unmatched {
    let matches = match found.first() {
        Some(label) if found.len() == 1 => takers[label].len(),
        _ => found.len(),
    };
    let nearest = found.first().map(|label| labels[*label].name.clone());
    let names = labels.iter().map(|label| label.name.as_str());
    Unmatched { class: class.to_owned(), nearest: nearest.or_else(|| nearest_name(class, names)), matches }
}

impl HeadPlan {
    /// Where the head comes from, in a word.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Slice(groups) if groups.iter().any(|group| group.len() > 1) => "joined",
            Self::Slice(_) => "sliced",
            Self::Probe(_) => "probe",
        }
    }

    /// The checkpoint's outputs of each class; none where a new head is fitted.
    pub fn rows(&self) -> Vec<Vec<usize>> {
        let Self::Slice(groups) = self else { return Vec::new() };
        groups.iter().map(|group| group.iter().map(|row| row.index).collect()).collect()
    }

    /// Names of the outputs of the linear head: those of `classes`, and where several are joined, the checkpoint's own.
    pub fn output_names(&self, classes: &[String]) -> Vec<String> {
        let Self::Slice(groups) = self else { return classes.to_vec() };
        let names = classes.iter().zip(groups).flat_map(|(class, group)| match group.as_slice() {
            [_] => vec![class.clone()],
            rows => rows.iter().map(|row| row.name.clone()).collect(),
        });
        names.collect()
    }

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
struct LabelIndex<'a> {
    labels: &'a [Label],
    tiers: [BTreeMap<String, BTreeSet<usize>>; 3],
}

impl<'a> LabelIndex<'a> {
    fn new(labels: &'a [Label]) -> Self {
        let mut tiers: [BTreeMap<String, BTreeSet<usize>>; 3] = Default::default();
        let mut add = |tier: usize, name: String, at: usize| {
            tiers[tier].entry(name).or_default().insert(at);
        };
        for (at, label) in labels.iter().enumerate() {
            for name in std::iter::once(&label.name).chain(&label.aliases) {
                add(0, clean(name), at);
                add(1, simplified(name), at);
                synonyms(name).for_each(|synonym| add(2, simplified(synonym), at));
            }
        }
        Self { labels, tiers }
    }

    fn find(&self, class: &str) -> BTreeSet<usize> {
        let [exact, simple, by_synonym] = &self.tiers;
        let key = simplified(class);
        let whole = [exact.get(&clean(class)), simple.get(&key), by_synonym.get(&key)];
        let found = whole.into_iter().flatten().next().cloned();
        // A folder may be named by all synonyms, or by some.
        let shared =
            || synonyms(class).filter_map(|synonym| by_synonym.get(&simplified(synonym))).flatten().copied();
        found.unwrap_or_else(|| shared().collect())
    }

    /// The one label that a mapping names, by name or number.
    fn named(&self, class: &str, label: &str) -> Result<usize, LabelError> {
        let (class, found) = (class.to_owned(), self.find(label));
        let number = label.trim().parse().ok().filter(|at| found.is_empty() && *at < self.labels.len());
        let label = label.to_owned();
        match (found.len(), found.first().copied().or(number)) {
            (0 | 1, Some(at)) => Ok(at),
            (0, None) => {
                let names = self.labels.iter().flat_map(|label| synonyms(&label.name));
                Err(LabelError::NoLabel { nearest: nearest_name(&label, names), class, label })
            }
            _ => Err(LabelError::ManyLabels { class, label, outputs: found.into_iter().collect() }),
        }
    }
}
