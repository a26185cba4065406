//! A checkpoint in the language of its family: which dialect it speaks, what its classifier is called there.

use std::collections::BTreeSet;

use margay_core::{Graph, Op};

use super::{ARCHITECTURES, Architecture, Config, Dialect, ModelError, NameMap, Shapes};

/// An image to build graphs for where only their parameters are of interest.
const IMAGE: [usize; 2] = [224, 224];

/// The first family and dialect that recognise a checkpoint, and its shapes under canonical names.
pub struct Reading {
    family: &'static dyn Architecture,
    dialect: Dialect,
    canonical: Shapes,
    names: NameMap,
    /// Own keys.
    keys: BTreeSet<String>,
}

/// What stands in front of a classifier.
pub struct Body {
    /// Own keys of its tensors.
    pub keys: BTreeSet<String>,
    /// Features that it gives to the classifier.
    pub width: usize,
}

/// Reads a checkpoint by the names and shapes of its tensors; nothing if no family knows it.
pub fn recognise(shapes: &Shapes) -> Option<Reading> {
    let readings = ARCHITECTURES.iter().flat_map(|f| f.dialects().iter().map(move |dialect| (*f, *dialect)));
    readings.filter(|(_, dialect)| !dialect.excludes(shapes)).find_map(|(family, dialect)| {
        let (canonical, names) = dialect.translate(shapes);
        let keys = || shapes.keys().cloned().collect();
        family.recognises(&canonical).then(|| Reading { family, dialect, canonical, names, keys: keys() })
    })
}

impl Reading {
    /// Canonical names of the layers that classify.
    pub fn heads(&self) -> &'static [&'static str] {
        self.family.heads()
    }

    /// Whether there is a classifier in its usual place.
    pub fn has_head(&self) -> bool {
        self.heads().iter().any(|head| self.canonical.contains_key(&format!("{head}.weight")))
    }

    /// Whether a classifier may read the class token and the mean of the others, one behind the other.
    pub fn concatenates(&self) -> bool {
        self.family.concatenates()
    }

    /// The library that names parameters so.
    pub fn library(&self) -> &'static str {
        self.dialect.library
    }

    /// The network without its classifier; nothing if it cannot be built.
    pub fn body(&self, config: &Config) -> Option<Body> {
        let mut shapes = self.canonical.clone();
        shapes.retain(|name, _| !self.is_canonical_head(name));
        let graph = self.family.detect(&shapes, &config.assuming(self.dialect.assumes), IMAGE).ok()?;
        let Op::Linear(head) = &graph.node(*graph.heads().first()?).op else { return None };
        let parts = graph.params().flat_map(|spec| self.names.parts(&spec.name, &spec.shape));
        Some(Body { keys: parts.map(|part| part.key).collect(), width: head.in_features })
    }

    /// Own keys that inference does not need.
    pub fn unused(&self) -> impl Iterator<Item = &String> {
        self.keys.iter().filter(|key| self.names.leaves_out(key))
    }

    /// Whether the dialect has a name for the key.
    pub fn knows(&self, own: &str) -> bool {
        self.dialect.knows(own)
    }

    /// Whether the key belongs to a classifier in its usual place.
    pub fn is_head(&self, own: &str) -> bool {
        self.is_canonical_head(self.names.name(own))
    }

    fn is_canonical_head(&self, name: &str) -> bool {
        let part =
            |head: &&str| name.strip_prefix(*head).is_some_and(|part| [".weight", ".bias"].contains(&part));
        self.heads().iter().any(part)
    }

    /// Own name of a layer with this canonical name, whether it is there or not.
    pub fn own_module(&self, canonical: &str) -> String {
        let key = self.own_key(&format!("{canonical}.weight"));
        key.strip_suffix(".weight").unwrap_or(&key).to_owned()
    }

    /// Own key of a canonical name, whether it is there or not: errors name it as the file would.
    pub fn own_key(&self, canonical: &str) -> String {
        if self.canonical.contains_key(canonical) {
            return self.names.key(canonical).to_owned();
        }
        self.dialect.own_key(canonical, &self.keys)
    }

    /// The graph; errors name own keys.
    pub fn graph(&self, config: &Config, image: [usize; 2]) -> Result<Graph, ModelError> {
        let found = self.family.detect(&self.canonical, &config.assuming(self.dialect.assumes), image);
        found.map_err(|error| match error {
            ModelError::MissingKey { key, nearest } => ModelError::MissingKey {
                key: self.own_key(&key),
                nearest: nearest.map(|name| self.own_key(&name)),
            },
            ModelError::Axes { key, expected, got } => {
                ModelError::Axes { key: self.own_key(&key), expected, got }
            }
            other => other,
        })
    }

    /// The way back from canonical names to own keys.
    pub fn into_names(self) -> NameMap {
        self.names
    }
}

/// What a checkpoint that no family recognises resembles most: the family, and the marks that it has and lacks, by own
/// keys.
pub(super) struct Likeness {
    pub family: &'static str,
    pub has: Vec<String>,
    pub lacks: Vec<String>,
}

/// Letters of `.weight`, and a few more.
const LETTERS: usize = 8;

fn is_letter(c: char) -> bool {
    c.is_ascii_alphabetic()
}

/// The family and dialect with the most marks.
pub(super) fn likeness(shapes: &Shapes) -> Option<Likeness> {
    let keys: BTreeSet<String> = shapes.keys().cloned().collect();
    let all = ARCHITECTURES
        .iter()
        .flat_map(|family| family.dialects().iter().map(move |dialect| (family, dialect)));
    let likeness = all.map(|(family, dialect)| {
        let head = |mark: &str| family.heads().iter().any(|head| mark.strip_prefix(head) == Some(".weight"));
        let own = |mark: &&str| dialect.own_key(mark, &keys);
        // Many networks have a `conv1.weight`, and any a `0.weight`.
        let telling = |key: &String| key.matches('.').count() > 1 && key.matches(is_letter).count() > LETTERS;
        let has = family.marks().iter().map(own).filter(|key| telling(key) && keys.contains(key)).collect();
        let lacks = family.marks().iter().filter(|mark| !head(mark)).map(own);
        let lacks = lacks.filter(|key| !keys.contains(key)).collect();
        Likeness { family: family.name(), has, lacks }
    });
    // The first of those that are alike.
    likeness.reduce(|best, other| if other.has.len() > best.has.len() { other } else { best })
}
