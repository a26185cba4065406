//! Other libraries' names for the parameters of a family, as tables of renamings.

use std::collections::{BTreeMap, BTreeSet};

use super::names::Part;
use super::{NameMap, Shapes};

/// How one library names the parameters of a family.
#[derive(Clone, Copy, Debug)]
pub struct Dialect {
    /// Name of the library, as `margay inspect` prints it.
    pub library: &'static str,
    /// Module names under which whole networks hang; the first that fits is passed over.
    pub roots: &'static [&'static str],
    /// `(its key, canonical name)`, the first that fits counts; keys that none fits stay as they are.
    ///
    /// In a key `*` stands for one or more characters other than a point; in the name `*` stands for what
    /// it stood for, `+` for that number plus one and `-` for it minus one. `name#1` joins tensors in the order of the numbers.
    pub renamings: &'static [(&'static str, &'static str)],
    /// Keys that networks named so do not have.
    pub without: &'static [&'static str],
    /// Patterns of keys that inference does not need, such as mask tokens.
    pub unused: &'static [&'static str],
    /// Facts that its code knows and its weights do not tell: keys of a [`Config`](super::Config) and JSON
    /// values that count where the checkpoint has no such entry.
    pub assumes: &'static [(&'static str, &'static str)],
}

impl Dialect {
    /// A library whose names are the canonical ones.
    pub const fn canonical(library: &'static str) -> Self {
        Self { library, roots: &[], renamings: &[], without: &[], unused: &[], assumes: &[] }
    }

    /// Whether the dialect is out of the question for a checkpoint with these keys.
    pub fn excludes(&self, shapes: &Shapes) -> bool {
        self.without.iter().any(|key| shapes.contains_key(*key))
    }

    /// Shapes by canonical name, and the way back.
    pub fn translate(&self, shapes: &Shapes) -> (Shapes, NameMap) {
        let mut found: BTreeMap<(String, usize), Part> = BTreeMap::new();
        let (mut canonical, mut names) = (Shapes::new(), NameMap::identity());
        for (key, shape) in shapes {
            if self.unused.iter().any(|pattern| captures(pattern, self.stem(key)).is_some()) {
                names.leave_out(key);
                continue;
            }
            let part = Part { key: key.clone(), shape: shape.clone() };
            found.insert(self.rename(key), part);
        }
        for ((name, _), part) in found {
            let own = own_axes(&part.shape);
            canonical.entry(name.clone()).and_modify(|shape| join(shape, &own)).or_insert(own);
            names.push(&name, part);
        }
        (canonical, names)
    }

    /// Whether there is a name for the key.
    pub fn knows(&self, key: &str) -> bool {
        let stem = self.stem(key);
        self.renamings.iter().any(|(pattern, _)| captures(pattern, stem).is_some())
    }

    /// The library's key for a canonical name: of several, one that is among `keys`.
    pub fn own_key(&self, canonical: &str, keys: &BTreeSet<String>) -> String {
        let root =
            self.roots.iter().find(|root| keys.iter().any(|key| key.starts_with(**root))).unwrap_or(&"");
        let stems = self.renamings.iter().filter_map(|(pattern, name)| {
            let name = name.split_once('#').map_or(*name, |(name, _)| name);
            filled_back(pattern, name, canonical)
        });
        let stems: Vec<String> = stems.chain([canonical.to_owned()]).collect();
        let named = stems.iter().flat_map(|stem| [format!("{root}{stem}"), stem.clone()]);
        named.clone().find(|key| keys.contains(key)).unwrap_or_else(|| format!("{root}{}", stems[0]))
    }

    /// The key without the module under which the network hangs.
    fn stem<'k>(&self, key: &'k str) -> &'k str {
        self.roots.iter().find_map(|root| key.strip_prefix(root)).unwrap_or(key)
    }

    /// The canonical name of a key, and its place among the tensors that are joined.
    fn rename(&self, key: &str) -> (String, usize) {
        let renamed = self.renamings.iter().find_map(|(pattern, name)| {
            let captures = captures(pattern, self.stem(key))?;
            filled(name, &captures)
        });
        match renamed {
            None => (key.to_owned(), 0),
            Some(name) => match name.split_once('#') {
                Some((name, place)) => {
                    (name.to_owned(), place.parse().expect("a dialect numbers what it joins"))
                }
                None => (name, 0),
            },
        }
    }
}

/// Axes without those of extent 1 that libraries put around vectors and embeddings.
fn own_axes(shape: &[usize]) -> Vec<usize> {
    match shape {
        [1, rows, features] => vec![*rows, *features],
        [n, 1, 1] | [1, 1, 1, n] => vec![*n],
        _ => shape.to_vec(),
    }
}

fn join(shape: &mut [usize], other: &[usize]) {
    if let (Some(rows), Some(more)) = (shape.first_mut(), other.first()) {
        *rows += more;
    }
}

/// What each `*` of a pattern stands for.
fn captures<'k>(pattern: &str, key: &'k str) -> Option<Vec<&'k str>> {
    let Some((before, after)) = pattern.split_once('*') else {
        return (pattern == key).then(Vec::new);
    };
    let rest = key.strip_prefix(before)?;
    let component = rest.split('.').next().unwrap_or(rest).len();
    // The longest reading first: numbers end at a point or at the next literal.
    (1..=component).rev().find_map(|end| {
        let mut captures = captures(after, &rest[end..])?;
        captures.insert(0, &rest[..end]);
        Some(captures)
    })
}

/// The name with its wildcards replaced; nothing if a `+` or `-` stands for no number.
fn filled(name: &str, captures: &[&str]) -> Option<String> {
    let mut captures = captures.iter();
    let mut out = String::with_capacity(name.len() + 8);
    for letter in name.chars() {
        match letter {
            '*' => out.push_str(captures.next()?),
            '+' => out.push_str(&captures.next()?.parse::<usize>().ok()?.checked_add(1)?.to_string()),
            '-' => out.push_str(&captures.next()?.parse::<usize>().ok()?.checked_sub(1)?.to_string()),
            _ => out.push(letter),
        }
    }
    Some(out)
}

/// The key that a renaming would turn into this name.
fn filled_back(pattern: &str, name: &str, canonical: &str) -> Option<String> {
    let wildcards = name.replace(['+', '-'], "*");
    let captured = captures(&wildcards, canonical)?;
    let kinds = name.chars().filter(|letter| ['*', '+', '-'].contains(letter));
    let mut stood = kinds.zip(captured).map(|(kind, text)| match kind {
        '+' => text.parse::<usize>().ok()?.checked_sub(1).map(|n| n.to_string()),
        '-' => text.parse::<usize>().ok()?.checked_add(1).map(|n| n.to_string()),
        _ => Some(text.to_owned()),
    });
    let mut out = String::with_capacity(pattern.len() + 8);
    for letter in pattern.chars() {
        match letter {
            '*' => out.push_str(&stood.next()??),
            _ => out.push(letter),
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIALECT: Dialect = Dialect {
        roots: &["net."],
        renamings: &[
            ("layer_*.query.*", "blocks.*.qkv.*#0"),
            ("layer_*.key.*", "blocks.*.qkv.*#1"),
            ("stages.*.conv.weight", "layer+.conv.weight"),
            ("features.*.conv.weight", "stages.-.conv.weight"),
            ("cls", "prefix"),
        ],
        unused: &["mask"],
        ..Dialect::canonical("test")
    };

    #[test]
    fn keys_are_renamed_counted_up_and_joined() {
        let table = [
            ("layer_11.query.weight", ("blocks.11.qkv.weight", 0)),
            ("net.layer_3.key.bias", ("blocks.3.qkv.bias", 1)),
            ("stages.0.conv.weight", ("layer1.conv.weight", 0)),
            ("stages.x.conv.weight", ("stages.x.conv.weight", 0)),
            ("features.4.conv.weight", ("stages.3.conv.weight", 0)),
            ("features.0.conv.weight", ("features.0.conv.weight", 0)),
            ("net.other", ("net.other", 0)),
        ];
        for (key, (name, place)) in table {
            assert_eq!(DIALECT.rename(key), (name.to_owned(), place));
        }
        for (canonical, key) in [
            ("blocks.11.qkv.weight", "net.layer_11.query.weight"),
            ("layer1.conv.weight", "net.stages.0.conv.weight"),
            ("stages.3.conv.weight", "net.features.4.conv.weight"),
            ("other", "net.other"),
        ] {
            assert_eq!(DIALECT.own_key(canonical, &BTreeSet::from(["net.x".to_owned()])), key);
        }
        let keys = [("layer_0.key.weight", vec![4, 2]), ("layer_0.query.weight", vec![4, 2])];
        let shapes = keys.into_iter().chain([("cls", vec![1, 1, 2]), ("net.mask", vec![2])]);
        let shapes: Shapes = shapes.map(|(key, shape)| (key.to_owned(), shape)).collect();
        let (canonical, names) = DIALECT.translate(&shapes);
        assert_eq!(canonical["blocks.0.qkv.weight"], [8, 2]);
        assert_eq!(canonical["prefix"], [1, 2]);
        assert!(names.leaves_out("net.mask") && canonical.len() == 2);
        let order: Vec<_> = names.parts("blocks.0.qkv.weight", &[8, 2]).into_iter().map(|p| p.key).collect();
        assert_eq!(order, ["layer_0.query.weight", "layer_0.key.weight"]);
    }
}
