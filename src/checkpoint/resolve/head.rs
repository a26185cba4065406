//! Which linear layer is the classifier.

use std::collections::{BTreeMap, BTreeSet};

use super::fold::Entry;
use super::{Note, Parts, SeveralHeads, shown};
use crate::models::Reading;

/// Which layer the user says is the classifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::checkpoint) enum Choice<'a> {
    /// Nobody says.
    Open,
    /// The layer of this name.
    Layer(&'a str),
    /// None: a new one is fitted.
    None,
}

/// Words in names of layers that serve the training only.
const AUXILIARY: [&str; 28] = [
    "projector",
    "projection",
    "proj",
    "predictor",
    "prediction",
    "prototypes",
    "prototype",
    "aux",
    "auxiliary",
    "criterion",
    "loss",
    "losses",
    "center",
    "centers",
    "metric",
    "metrics",
    "queue",
    "decoder",
    "discriminator",
    "domain",
    "rotation",
    "jigsaw",
    "optimizer",
    "optimizers",
    "ema",
    "rot",
    "mask",
    "embedding",
];

/// The classifier.
pub(super) struct Head {
    /// Path of its layer.
    pub module: String,
    /// Paths of its tensors and the own keys under which the family looks for them.
    pub keys: BTreeMap<String, String>,
    /// Own key, module and length of a bias that is not there.
    pub zeros: Option<(String, String, usize)>,
}

/// What was found and what there is to say about it.
pub(super) struct Found {
    pub head: Option<Head>,
    /// Paths of other layers that fit.
    pub others: Vec<String>,
    pub notes: Vec<Note>,
}

/// A linear layer that fits behind the body.
#[derive(Clone, Copy)]
struct Layer<'a> {
    module: &'a str,
    classes: usize,
    weight: &'a str,
    bias: Option<&'a str>,
    /// Where the family looks for its classifier.
    usual: bool,
}

/// Finds the classifier: what the user names; else, of the layers that fit, the one nearest around the body; else the
/// one in its usual place or the only other.
pub(super) fn find(
    all: &BTreeMap<String, Entry>,
    root: &str,
    reading: Option<&Reading>,
    parts: &Parts,
    labels: Option<usize>,
    choice: Choice<'_>,
    scopes: &BTreeSet<String>,
) -> Result<Found, SeveralHeads> {
    let mut notes = Vec::new();
    let (Some(reading), Some(width)) = (reading, parts.width) else {
        return Ok(Found { head: None, others: Vec::new(), notes });
    };
    let search = Search { all, root, reading, parts, width, scopes };
    let layers = search.layers();
    let picked = match choice {
        Choice::None => None,
        Choice::Layer(name) => {
            let named = |module: &str| module == name || module.ends_with(&format!(".{name}"));
            let found = layers.iter().position(|layer| named(layer.module));
            Some(found.ok_or_else(|| SeveralHeads(search.described(&layers)))?)
        }
        Choice::Open => search.picked(&layers, labels)?,
    };
    let Some(layer) = picked.map(|at| &layers[at]) else {
        notes.push(search.headless(&layers, choice));
        let others = layers.iter().map(|layer| layer.module.to_owned()).collect();
        return Ok(Found { head: None, others, notes });
    };
    let others: Vec<String> = layers
        .iter()
        .filter(|other| other.module != layer.module)
        .map(|other| other.module.to_owned())
        .collect();
    if !others.is_empty() && choice == Choice::Open && !(layer.usual && reading.heads().len() > 1) {
        let names: Vec<String> = others.iter().map(|other| format!("`{}`", shown(other, scopes))).collect();
        let text = format!("the classifier is `{}`, not {}", shown(layer.module, scopes), names.join(", "));
        notes.push(Note { text, warning: false });
    }
    if layer.bias.is_none() {
        let text = format!("the classifier `{}` has no bias: zeros", shown(layer.module, scopes));
        notes.push(Note { text, warning: false });
    }
    Ok(Found { head: Some(search.head(layer)), others, notes })
}

/// Whether a name tells that what bears it serves the training only.
pub(super) fn is_auxiliary(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    lower.split(['.', '_', '-']).any(|word| AUXILIARY.contains(&word))
}

struct Search<'a> {
    all: &'a BTreeMap<String, Entry>,
    root: &'a str,
    reading: &'a Reading,
    parts: &'a Parts,
    width: usize,
    scopes: &'a BTreeSet<String>,
}

impl<'a> Search<'a> {
    /// Names of layers and how many classes they tell apart.
    fn described(&self, layers: &[Layer<'_>]) -> Vec<String> {
        let text =
            |layer: &Layer<'_>| format!("`{}` ({} classes)", shown(layer.module, self.scopes), layer.classes);
        layers.iter().map(text).collect()
    }

    /// Every group that is one linear layer behind the body.
    fn layers(&self) -> Vec<Layer<'a>> {
        let usual = self.usual();
        let groups = self.parts.grouped();
        let place = |group: &str| {
            Parts::is_beside(group, self.root) || usual.iter().any(|u| group.starts_with(u.as_str()))
        };
        let groups = groups.into_iter().filter(|(group, _)| place(group));
        groups.filter_map(|(_, paths)| self.layer(&paths, &usual)).collect()
    }

    /// Paths where the family looks for its classifiers.
    fn usual(&self) -> Vec<String> {
        self.reading
            .heads()
            .iter()
            .map(|head| format!("{}{}", self.root, self.reading.own_module(head)))
            .collect()
    }

    fn layer(&self, paths: &[&'a str], usual: &[String]) -> Option<Layer<'a>> {
        let weight = paths.iter().find(|path| path.ends_with(".weight"))?;
        let module = weight.strip_suffix(".weight")?;
        let bias = paths.iter().find(|path| path.strip_suffix(".bias") == Some(module));
        if paths.len() != 1 + usize::from(bias.is_some()) {
            return None;
        }
        let entry = self.all.get(*weight)?;
        let (classes, inner) = match entry.shape.as_slice() {
            [classes, inner] | [classes, inner, 1, 1] => (*classes, *inner),
            _ => return None,
        };
        let fits = inner == self.width || inner == 2 * self.width && self.reading.concatenates();
        let usual = usual.iter().any(|path| path == module);
        (fits && classes > 0 && entry.dtype.is_float() || usual).then_some(Layer {
            module,
            classes,
            weight,
            bias: bias.copied(),
            usual,
        })
    }

    /// The layer that is meant; several that may be are an error.
    fn picked(&self, layers: &[Layer<'a>], labels: Option<usize>) -> Result<Option<usize>, SeveralHeads> {
        let eligible: Vec<usize> = (0..layers.len())
            .filter(|at| layers[*at].usual || !is_auxiliary(self.local(layers[*at].module)))
            .collect();
        // A module around the body classifies what the body gives it; a classifier within is not used then.
        let outer = |at: &usize| !layers[*at].module.starts_with(self.root);
        let nearest = eligible.iter().copied().filter(outer).map(|at| self.depth(layers[at].module)).max();
        let level: Vec<usize> = match nearest {
            Some(depth) => eligible
                .iter()
                .copied()
                .filter(|at| outer(at) && self.depth(layers[*at].module) == depth)
                .collect(),
            None => eligible,
        };
        match level.as_slice() {
            [] => Ok(None),
            [only] => Ok(Some(*only)),
            // Two in their usual places are those of a distilled network.
            _ if level.iter().all(|at| layers[*at].usual) => Ok(Some(level[0])),
            several => {
                let named: Vec<usize> =
                    several.iter().copied().filter(|at| Some(layers[*at].classes) == labels).collect();
                match named.as_slice() {
                    [only] => Ok(Some(*only)),
                    _ => Err(SeveralHeads(
                        self.described(&several.iter().map(|at| layers[*at]).collect::<Vec<_>>()),
                    )),
                }
            }
        }
    }

    /// How many names a path shares with the body's.
    fn depth(&self, module: &str) -> usize {
        super::common(self.root, module).matches('.').count()
    }

    /// A path without what it shares with the body's.
    fn local<'p>(&self, module: &'p str) -> &'p str {
        let shared = super::common(self.root, module);
        module.strip_prefix(shared.as_str()).unwrap_or(module)
    }

    fn head(&self, layer: &Layer<'_>) -> Head {
        let heads = self.reading.heads();
        let usual_pair = layer.usual && heads.len() > 1;
        let own = self.reading.own_module(heads[0]);
        let mut keys = BTreeMap::new();
        if usual_pair {
            for (name, path) in heads.iter().zip(self.usual()) {
                for part in ["weight", "bias"] {
                    let path = format!("{path}.{part}");
                    if self.all.contains_key(&path) {
                        keys.insert(path, format!("{}.{part}", self.reading.own_module(name)));
                    }
                }
            }
        } else {
            keys.insert(layer.weight.to_owned(), format!("{own}.weight"));
            keys.extend(layer.bias.map(|bias| (bias.to_owned(), format!("{own}.bias"))));
        }
        let zeros =
            layer.bias.is_none().then(|| (format!("{own}.bias"), layer.module.to_owned(), layer.classes));
        Head { module: layer.module.to_owned(), keys, zeros }
    }

    /// What there is to say of a network without a classifier.
    fn headless(&self, layers: &[Layer<'_>], choice: Choice<'_>) -> Note {
        let several = |group: &&str| {
            Parts::is_beside(group, self.root) && !is_auxiliary(self.local(group)) && self.has_weights(group)
        };
        let groups = self.parts.grouped();
        let compound: Vec<String> = groups
            .keys()
            .filter(|group| several(group))
            .map(|group| format!("`{}`", shown(group, self.scopes)))
            .collect();
        let text = match choice {
            Choice::None => "the classifier was left out as you said".to_owned(),
            _ if !compound.is_empty() && layers.is_empty() => format!(
                "no classifier was found: {} is not one linear layer behind the body's {} features, and is left out",
                compound.join(", "),
                self.width
            ),
            _ => "the checkpoint has no classifier".to_owned(),
        };
        Note { text, warning: false }
    }

    /// Whether a group under the body's own dictionary holds a matrix.
    fn has_weights(&self, group: &str) -> bool {
        let groups = self.parts.grouped();
        let paths = groups.get(group).map_or(&[] as &[&str], Vec::as_slice);
        paths.iter().any(|path| path.ends_with("weight") && self.all[*path].shape.len() >= 2)
    }
}
