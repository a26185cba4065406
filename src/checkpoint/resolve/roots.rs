//! Where the network lies: under whatever names of dictionaries and modules training code puts around it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::Note;
use super::fold::Entry;
use crate::models::{self, Shapes};

/// A network has more tensors than this.
const FEWEST: usize = 8;
/// Names are looked at until so many tensors have been seen, counting each once per name above it.
const MOST: usize = 400_000;
/// Names of dictionaries that hold something about weights and not weights.
const ASIDE: [&str; 7] = ["optim", "exp_avg", "momentum_buffer", "grad", "scheduler", "scaler", "callbacks"];

/// A place where a network lies.
pub(super) struct Root {
    /// Names above it, each with a point behind.
    pub prefix: String,
    rank: Rank,
    headed: bool,
    elements: u64,
    shapes: Shapes,
}

/// How much a name speaks for the weights under it: lower is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    /// Means over the training (EMA, SWA), or the best ones.
    Averaged,
    Plain,
    /// One of two networks, namely the one that was trained.
    Student,
    /// The other, unless it is the mean of the first.
    Teacher,
    /// A copy that lags behind.
    Lagging,
}

/// Every place where a family recognises a network, outermost first.
pub(super) fn find(all: &BTreeMap<String, Entry>) -> Vec<Root> {
    let (mut found, mut seen) = (Vec::new(), 0);
    let mut queue = VecDeque::from([String::new()]);
    while let Some(prefix) = queue.pop_front() {
        let shapes = under(all, &prefix);
        seen += shapes.len();
        if seen > MOST {
            break;
        }
        match models::recognise(&shapes) {
            Some(reading) => {
                let elements =
                    shapes.values().map(|shape| shape.iter().map(|n| *n as u64).product::<u64>()).sum();
                found.push(Root {
                    rank: rank(&prefix),
                    headed: reading.has_head(),
                    elements,
                    shapes,
                    prefix,
                });
            }
            None => queue.extend(children(&shapes).map(|name| format!("{prefix}{name}."))),
        }
    }
    average_of_itself(&mut found);
    found
}

/// The shapes under a prefix by what follows it.
pub(super) fn under(all: &BTreeMap<String, Entry>, prefix: &str) -> Shapes {
    let within = all.range(prefix.to_owned()..).take_while(|(path, _)| path.starts_with(prefix));
    within.map(|(path, entry)| (path[prefix.len()..].to_owned(), entry.shape.clone())).collect()
}

/// Names of the next level under which a network may lie.
fn children(shapes: &Shapes) -> impl Iterator<Item = String> + use<> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for name in shapes.keys().filter_map(|key| key.split_once('.')).map(|(name, _)| name) {
        *counts.entry(name).or_default() += 1;
    }
    let aside = |name: &str| ASIDE.iter().any(|part| name.to_ascii_lowercase().contains(part));
    let names = counts.into_iter().filter(|(name, count)| *count >= FEWEST && !aside(name));
    names.map(|(name, _)| name.to_owned()).collect::<Vec<_>>().into_iter()
}

fn rank(prefix: &str) -> Rank {
    let lower = prefix.to_ascii_lowercase();
    let words: BTreeSet<&str> = lower.split(['.', '_', '-']).collect();
    let has = |names: &[&str]| names.iter().any(|name| words.contains(name));
    match () {
        () if has(&["ema", "swa", "averaged", "average", "best", "modelema"]) => Rank::Averaged,
        () if has(&["teacher"]) => Rank::Teacher,
        () if has(&["student", "online"]) => Rank::Student,
        () if has(&["momentum", "target", "k", "key"]) => Rank::Lagging,
        () => Rank::Plain,
    }
}

/// A teacher with the shapes of its student is the mean of it over the training, as in DINO.
fn average_of_itself(found: &mut [Root]) {
    let students: Vec<Shapes> =
        found.iter().filter(|root| root.rank == Rank::Student).map(|root| root.shapes.clone()).collect();
    for root in found.iter_mut().filter(|root| root.rank == Rank::Teacher) {
        if students.contains(&root.shapes) {
            root.rank = Rank::Averaged;
        }
    }
}

/// The network that is meant: by the rank of its name, then with a classifier before without, then the largest, then the
/// first by name.
pub(super) fn best(found: &[Root]) -> Option<&Root> {
    found.iter().min_by_key(|root| (root.rank, !root.headed, Reverse(root.elements), root.prefix.clone()))
}

/// What is said where there is more than one network.
pub(super) fn note(taken: &Root, found: &[Root]) -> Option<Note> {
    let name = |root: &Root| match root.prefix.trim_end_matches('.') {
        "" => "the outermost".to_owned(),
        name => format!("`{name}`"),
    };
    let others: Vec<String> = found.iter().filter(|root| root.prefix != taken.prefix).map(name).collect();
    let why = match taken.rank {
        Rank::Averaged => "averaged or best weights come first",
        _ => "averaged weights come first, then a network with a classifier, then the largest",
    };
    let text = || format!("{} of several networks was taken ({why}), not {}", name(taken), others.join(", "));
    (!others.is_empty()).then(|| Note { text: text(), warning: false })
}

/// The prefix under which most tensors lie, as long as it is more than half of them.
pub(super) fn largest(all: &BTreeMap<String, Entry>) -> String {
    let mut prefix = String::new();
    loop {
        let shapes = under(all, &prefix);
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for (name, _) in shapes.keys().filter_map(|key| key.split_once('.')) {
            *counts.entry(name).or_default() += 1;
        }
        // What holds nearly everything is a wrapper; what holds less is a part of the network.
        match counts.into_iter().max_by_key(|(_, count)| *count) {
            Some((name, count)) if count + 4 >= shapes.len() && count >= FEWEST => {
                prefix.push_str(name);
                prefix.push('.');
            }
            _ => return prefix,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_rank_averages_first() {
        let table = [
            ("state_dict_ema.", Rank::Averaged),
            ("model_ema.", Rank::Averaged),
            ("state_dict.model.", Rank::Plain),
            ("teacher.backbone.", Rank::Teacher),
            ("student.backbone.", Rank::Student),
            ("module.encoder_q.", Rank::Plain),
            ("module.encoder_k.", Rank::Lagging),
            ("schema.", Rank::Plain),
        ];
        for (prefix, expected) in table {
            assert_eq!(rank(prefix), expected, "{prefix}");
        }
    }
}
