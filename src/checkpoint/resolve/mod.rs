//! From the tensors of a file to the network: parametrisations are folded, the network is found under whatever is put
//! around it, its classifier under whatever name it has, and what is left over is listed.
//!
//! A key has three forms: the *path* in the file (`state_dict.net.feature.conv1.weight`, by which tensors are found
//! here), the *own* key in the language of the library (`conv1.weight`, which the architectures read) and the key that
//! is *written* (`feature.conv1.weight`, relative to the module that holds body and classifier).

mod fold;
mod head;
mod roots;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

pub(super) use fold::{Entry, Made, values};
pub(super) use head::Choice;

use super::Dtype;
use crate::models::{self, Config, Reading, Shapes};

/// Endings of tensors that training needs and inference does not; they are nowhere listed.
const SILENT: [&str; 5] =
    ["num_batches_tracked", "relative_position_index", "total_ops", "total_params", "_extra_state"];

/// More leftovers are counted.
const LISTED: usize = 12;

/// What the tensors of a file amount to.
pub(super) struct Resolution {
    /// The network's tensors by own key.
    pub tensors: BTreeMap<String, Tensor>,
    /// What stands around the network: dictionaries and modules, `state_dict.net.feature.`
    pub prefix: String,
    /// Names within keys that wrappers add, such as `_orig_mod`.
    pub wrappers: BTreeSet<String>,
    /// The path of the module that is the classifier; absent: there is none.
    pub head: Option<String>,
    /// What is no part of the network, by name.
    pub left_out: Vec<LeftOut>,
    /// What the user should know.
    pub notes: Vec<Note>,
}

/// A tensor of the network.
pub(super) struct Tensor {
    pub entry: Entry,
    /// Its key as it stands in the file.
    pub shown: String,
    /// Its key in files that are written.
    pub written: String,
}

/// Tensors that are no part of the network.
#[derive(Default)]
pub(super) struct LeftOut {
    /// The module, dictionary or tensor.
    pub name: String,
    /// How many tensors there are in it.
    pub tensors: usize,
    /// Whether a layer's weights are among them, and its name does not tell that it is there for the training.
    pub suspicious: bool,
}

/// Something the user should know of how a checkpoint was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// What was done.
    pub text: String,
    /// Whether it may be wrong.
    pub warning: bool,
}

/// More than one layer may be the classifier.
pub(super) struct SeveralHeads(pub Vec<String>);

impl Resolution {
    /// Reads the table of a file. `raw` is by path; `scopes` tell where keys of the file begin.
    pub fn new(
        raw: impl Iterator<Item = (String, Vec<usize>, Dtype)>,
        scopes: &BTreeSet<String>,
        config: &Config,
        labels: Option<usize>,
        choice: Choice<'_>,
    ) -> Result<Self, SeveralHeads> {
        let folded = fold::fold(raw.filter(|(path, ..)| !SILENT.iter().any(|ending| path.ends_with(ending))));
        let all = folded.entries;
        let mut notes = folded.notes;
        let found = roots::find(&all);
        let Some(taken) = roots::best(&found) else {
            return Ok(Self::unrecognised(all, scopes, folded.wrappers, notes));
        };
        notes.extend(roots::note(taken, &found));
        let root = taken.prefix.clone();
        let shapes = roots::under(&all, &root);
        let reading = models::recognise(&shapes);
        let parts = reading.as_ref().map(|reading| Parts::new(&all, &root, reading, config));
        let parts = parts.unwrap_or_else(|| Parts::whole(&all, &root));
        let mut found_head = head::find(&all, &root, reading.as_ref(), &parts, labels, choice, scopes)?;
        notes.append(&mut found_head.notes);
        let mut resolution = Self {
            tensors: BTreeMap::new(),
            prefix: root,
            wrappers: folded.wrappers,
            head: found_head.head.as_ref().map(|head| shown(&head.module, scopes)),
            left_out: Vec::new(),
            notes,
        };
        resolution.place(all, scopes, &parts, found_head, reading.as_ref());
        Ok(resolution)
    }

    /// A network that no family knows keeps its keys, for the error that says so; only what all share is taken off.
    fn unrecognised(
        all: BTreeMap<String, Entry>,
        scopes: &BTreeSet<String>,
        wrappers: BTreeSet<String>,
        notes: Vec<Note>,
    ) -> Self {
        let prefix = roots::largest(&all);
        let keep = |path: &str| path.strip_prefix(prefix.as_str()).map(str::to_owned);
        let tensors = all.into_iter().filter_map(|(path, entry)| {
            let own = keep(&path)?;
            let shown = shown(&entry.path, scopes);
            Some((own.clone(), Tensor { entry, shown, written: own }))
        });
        let tensors = tensors.collect();
        Self { tensors, prefix, wrappers, head: None, left_out: Vec::new(), notes }
    }

    /// Sorts every tensor to the network or to what is left out.
    fn place(
        &mut self,
        all: BTreeMap<String, Entry>,
        scopes: &BTreeSet<String>,
        parts: &Parts,
        found: head::Found,
        reading: Option<&Reading>,
    ) {
        let head::Found { head, others, .. } = found;
        let root = self.prefix.clone();
        let around = head.as_ref().map_or_else(|| root.clone(), |head| common(&root, &head.module));
        let written = |path: &str| path.strip_prefix(around.as_str()).unwrap_or(path).to_owned();
        let mut left: BTreeMap<&str, LeftOut> = BTreeMap::new();
        for (path, entry) in all {
            let group = parts.group(&path);
            let own = head.as_ref().and_then(|head| head.keys.get(&path).cloned());
            let own = own.or_else(|| belongs(&path, &root, group, reading));
            match (own, group) {
                // Counters within the body are no weights.
                (Some(_), Some(_)) if entry.shape.is_empty() && !entry.dtype.is_float() => {}
                (Some(own), _) => {
                    let tensor = Tensor { shown: shown(&entry.path, scopes), written: written(&path), entry };
                    self.tensors.insert(own, tensor);
                }
                (None, Some(group)) => {
                    let listed = left.entry(group).or_default();
                    listed.tensors += 1;
                    listed.name = shown(if listed.tensors == 1 { &path } else { group }, scopes);
                    let layer = entry.shape.len() > 1 && path.starts_with(&around);
                    listed.suspicious |=
                        layer && !head::is_auxiliary(group) && !others.iter().any(|o| o == group);
                }
                (None, None) => {}
            }
        }
        self.left_out = left.into_values().collect();
        if let Some(head::Head { zeros: Some((own, module, classes)), .. }) = &head {
            let entry =
                Entry { path: module.clone(), shape: vec![*classes], dtype: Dtype::F32, made: Made::Zeros };
            let path = format!("{module}.bias");
            let tensor = Tensor { entry, shown: shown(&path, scopes), written: written(&path) };
            self.tensors.insert(own.clone(), tensor);
        }
        self.notes.extend(head.and_then(|_| self.suspicion()));
    }

    /// A warning where layers were left out that may stand between body and classifier.
    fn suspicion(&self) -> Option<Note> {
        let names =
            self.left_out.iter().filter(|left| left.suspicious).map(|left| format!("`{}`", left.name));
        let names: Vec<String> = names.collect();
        let text = || {
            let names = names.join(", ");
            format!("{names} left out: if the network sends photos through it, its answers will be wrong")
        };
        (!names.is_empty()).then(|| Note { text: text(), warning: true })
    }

    /// The leftovers in words; nothing where there are none.
    pub fn leftovers(&self) -> Option<String> {
        let mut names: Vec<String> = self.left_out.iter().take(LISTED).map(ToString::to_string).collect();
        if self.left_out.len() > LISTED {
            names.push(format!("{} more", self.left_out.len() - LISTED));
        }
        (!names.is_empty()).then(|| names.join(", "))
    }
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.tensors {
            1 => write!(f, "`{}`", self.name),
            n => write!(f, "`{}` ({n} tensors)", self.name),
        }
    }
}

/// Which paths the body needs, and the modules that all others are in.
pub(super) struct Parts {
    groups: BTreeMap<String, String>,
    /// Features that the body gives to its classifier.
    pub width: Option<usize>,
}

impl Parts {
    fn new(all: &BTreeMap<String, Entry>, root: &str, reading: &Reading, config: &Config) -> Self {
        let Some(body) = reading.body(config) else { return Self::whole(all, root) };
        let mut used: BTreeSet<String> = body.keys.iter().map(|own| format!("{root}{own}")).collect();
        used.extend(reading.unused().map(|own| format!("{root}{own}")));
        let mut parts = Self::around(all, &used);
        parts.width = Some(body.width);
        parts
    }

    /// Everything under the root belongs to the body.
    fn whole(all: &BTreeMap<String, Entry>, root: &str) -> Self {
        Self::around(all, &all.keys().filter(|path| path.starts_with(root)).cloned().collect())
    }

    fn around(all: &BTreeMap<String, Entry>, used: &BTreeSet<String>) -> Self {
        let modules =
            used.iter().flat_map(|path| path.match_indices('.').map(|(at, _)| path[..=at].to_owned()));
        let body: BTreeSet<String> = modules.collect();
        let group = |path: &str| {
            let ends = path.match_indices('.').map(|(at, _)| at);
            let module = ends.map(|at| &path[..at]).find(|module| !body.contains(&format!("{module}.")));
            module.unwrap_or(path).to_owned()
        };
        let others = all.keys().filter(|path| !used.contains(*path));
        let groups = others.map(|path| (path.clone(), group(path))).collect();
        Self { groups, width: None }
    }

    /// The outermost module or dictionary around a tensor that the body has no part in; nothing for the body's own.
    fn group(&self, path: &str) -> Option<&str> {
        self.groups.get(path).map(String::as_str)
    }

    /// Paths of every group.
    fn grouped(&self) -> BTreeMap<&str, Vec<&str>> {
        let mut all: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (path, group) in &self.groups {
            all.entry(group).or_default().push(path);
        }
        all
    }

    /// Whether a group stands beside the body or around it, and not within one of its modules.
    fn is_beside(group: &str, root: &str) -> bool {
        let parent = group.rfind('.').map_or("", |at| &group[..=at]);
        root.starts_with(parent)
    }
}

/// The longest module that two paths share, with its point.
fn common(a: &str, b: &str) -> String {
    let b = format!("{b}.");
    let shared = a.match_indices('.').map(|(at, _)| &a[..=at]).take_while(|module| b.starts_with(*module));
    // The module of the classifier is not one that holds it.
    shared.filter(|module| module.len() < b.len()).last().unwrap_or("").to_owned()
}

/// The own key of a tensor that stands in the body, or beside it under a name that the library has.
fn belongs(path: &str, root: &str, group: Option<&str>, reading: Option<&Reading>) -> Option<String> {
    let own = path.strip_prefix(root)?;
    // The classifier that counts has been found already.
    if group.is_some() && reading.is_some_and(|reading| reading.is_head(own)) {
        return None;
    }
    let inside = group.is_none_or(|group| !Parts::is_beside(group, root));
    let known = || reading.is_some_and(|reading| reading.knows(own));
    (inside || known()).then(|| own.to_owned())
}

/// A path as it stands in the file, without the names of the dictionaries around it.
fn shown(path: &str, scopes: &BTreeSet<String>) -> String {
    let mut ends = path.match_indices('.').map(|(at, _)| at + 1).rev();
    let start = ends.find(|end| scopes.contains(&path[..*end])).unwrap_or(0);
    path[start..].to_owned()
}

/// Shapes by own key.
pub(super) fn shapes(tensors: &BTreeMap<String, Tensor>) -> Shapes {
    tensors.iter().map(|(own, tensor)| (own.clone(), tensor.entry.shape.clone())).collect()
}
