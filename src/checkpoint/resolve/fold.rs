//! Weights that are stored in several tensors: pruned by a mask, normalised, or under the names that wrappers add.

use std::collections::{BTreeMap, BTreeSet};

use super::Note;
use crate::checkpoint::Dtype;

/// Names within keys that wrappers add around a module.
const WRAPPERS: [&str; 7] = [
    "module",
    "_orig_mod",
    "_fsdp_wrapped_module",
    "_checkpoint_wrapped_module",
    "_forward_module",
    "nncf_module",
    "_nncf_module",
];

/// Names of modules that watch or imitate quantisation and leave weights as they are.
const OBSERVERS: [&str; 12] = [
    "activation_post_process",
    "weight_fake_quant",
    "fake_quant",
    "quant",
    "dequant",
    "pre_ops",
    "post_ops",
    "external_quantizers",
    "activation_quantizers",
    "weight_quantizer",
    "input_quantizer",
    "output_quantizer",
];

/// Masks of NNCF behind the number of the operation.
const NNCF_MASKS: [&str; 4] =
    ["_binary_mask", "binary_mask", "_binary_filter_pruning_mask", "binary_filter_pruning_mask"];

/// A tensor of the network.
#[derive(Clone, Debug)]
pub(in crate::checkpoint) struct Entry {
    /// Path of the tensor in the file; of several, of that which has the shape.
    pub path: String,
    pub shape: Vec<usize>,
    pub dtype: Dtype,
    pub made: Made,
}

/// How a tensor is made of those in the file, by their paths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::checkpoint) enum Made {
    /// It is one of them.
    Stored(String),
    /// `weight · mask`; the mask may be one number per row.
    Masked { weight: String, mask: String },
    /// `direction · magnitude / ‖direction‖`, the norm over all axes along which the magnitude has extent 1.
    Normed { magnitude: String, direction: String },
    /// `weight / σ` with `σ = left · weight · right`.
    Spectral { weight: String, left: String, right: String },
    /// A bias that is not there.
    Zeros,
}

/// What folding made of the tensors of a file.
pub(super) struct Folded {
    pub entries: BTreeMap<String, Entry>,
    pub wrappers: BTreeSet<String>,
    pub notes: Vec<Note>,
}

/// Folds parametrisations and takes the names of wrappers out of keys.
pub(super) fn fold(raw: impl Iterator<Item = (String, Vec<usize>, Dtype)>) -> Folded {
    let stored = raw.map(|(path, shape, dtype)| {
        let made = Made::Stored(path.clone());
        (path.clone(), Entry { path, shape, dtype, made })
    });
    let (mut entries, wrappers) = unwrapped(stored.collect());
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    let keys: Vec<String> = entries.keys().cloned().collect();
    for key in keys {
        if let Some((what, folded)) = folded(&entries, &key) {
            *counts.entry(what).or_default() += 1;
            for part in folded.parts {
                entries.remove(&part);
            }
            entries.insert(folded.name, folded.entry);
        }
    }
    let notes = counts.into_iter().map(|(what, count)| format!("{what}: {count} weights"));
    let mut notes: Vec<String> = notes.collect();
    let before = entries.len();
    entries.retain(|key, _| !is_observer(key));
    if entries.len() < before {
        notes.push(format!(
            "left out what watches or imitates quantisation: {} tensors",
            before - entries.len()
        ));
    }
    let notes = notes.into_iter().map(|text| Note { text, warning: false }).collect();
    Folded { entries, wrappers, notes }
}

/// Keys without the names that wrappers add, wherever that makes no two keys equal; and those names.
fn unwrapped(entries: BTreeMap<String, Entry>) -> (BTreeMap<String, Entry>, BTreeSet<String>) {
    let plain = |key: &str| {
        let parts = key.split('.').filter(|part| !WRAPPERS.contains(part));
        parts.collect::<Vec<_>>().join(".")
    };
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for key in entries.keys() {
        *counts.entry(plain(key)).or_default() += 1;
    }
    if counts.contains_key("") || counts.values().any(|count| *count > 1) {
        return (entries, BTreeSet::new());
    }
    let names = entries.keys().flat_map(|key| key.split('.')).filter(|part| WRAPPERS.contains(part));
    let names = names.map(str::to_owned).collect();
    (entries.into_iter().map(|(key, entry)| (plain(&key), entry)).collect(), names)
}

/// A weight made of several tensors.
struct Several {
    name: String,
    entry: Entry,
    /// The keys that it replaces.
    parts: Vec<String>,
}

/// What `key` is the first part of, in words and folded.
fn folded(entries: &BTreeMap<String, Entry>, key: &str) -> Option<(&'static str, Several)> {
    let entry = entries.get(key)?;
    let path = |key: &str| entries.get(key).map(|entry| entry.path.clone());
    let several = |name: &str, main: &str, parts: &[&str], made: Made| {
        let main = entries.get(main)?;
        let entry = Entry { path: main.path.clone(), shape: main.shape.clone(), dtype: main.dtype, made };
        let parts = parts.iter().map(|part| (*part).to_owned()).collect();
        Some(Several { name: name.to_owned(), entry, parts })
    };
    let masked = |name: &str, weight: &str, mask: &str| {
        let (shape, over) = (&entries.get(weight)?.shape, &entries.get(mask)?.shape);
        let rows = over.len() == 1 && over.first() == shape.first();
        if shape != over && !rows {
            return None;
        }
        let made = Made::Masked { weight: path(weight)?, mask: path(mask)? };
        Some(("masks of pruning applied", several(name, weight, &[weight, mask], made)?))
    };
    let spectral = |name: &str, weight: &str, left: &str, right: &str| {
        let made = Made::Spectral { weight: path(weight)?, left: path(left)?, right: path(right)? };
        Some(("spectral norms applied", several(name, weight, &[weight, left, right], made)?))
    };
    let normed = |name: &str, magnitude: &str, direction: &str| {
        let (g, v) = (&entries.get(magnitude)?.shape, &entries.get(direction)?.shape);
        let fits = g.len() == v.len() && g.iter().zip(v).all(|(g, v)| *g == 1 || g == v) || g.is_empty();
        let made = Made::Normed { magnitude: path(magnitude)?, direction: path(direction)? };
        let several = several(name, direction, &[magnitude, direction], made)?;
        fits.then_some(("directions and magnitudes (weight norm) joined", several))
    };
    if !entry.dtype.is_float() {
        return None;
    }
    if let Some(name) = key.strip_suffix("_orig") {
        let [mask, left, right] = ["mask", "u", "v"].map(|end| format!("{name}_{end}"));
        return masked(name, key, &mask).or_else(|| spectral(name, key, &left, &right));
    }
    if let Some(name) = key.strip_suffix("_g") {
        return normed(name, key, &format!("{name}_v"));
    }
    if let Some((module, rest)) = key.split_once("parametrizations.") {
        let (weight, part) = rest.split_once('.')?;
        let (name, base) = (format!("{module}{weight}"), format!("{module}parametrizations.{weight}."));
        let beside = |part: &str| format!("{base}{part}");
        return match part {
            "original" => masked(&name, key, &beside("0.mask"))
                .or_else(|| spectral(&name, key, &beside("0._u"), &beside("0._v"))),
            "original0" => normed(&name, key, &beside("original1")),
            _ => None,
        };
    }
    // The weight stands beside its mask.
    let (module, own) = key.rsplit_once('.').unwrap_or(("", key));
    if own == "weight" || own == "bias" {
        let dot = if module.is_empty() { "" } else { "." };
        let names = [format!("{key}_mask"), format!("{module}{dot}mask")];
        let beside = names.iter().find(|mask| own == "weight" && entries.contains_key(*mask));
        let inside = || nncf_mask(entries, module);
        let mask = beside.cloned().or_else(inside)?;
        let (what, mut several) = masked(key, key, &mask)?;
        // A mask of rows is that of the bias, too.
        several.parts.retain(|part| *part != mask || beside.is_some());
        return Some((what, several));
    }
    None
}

fn nncf_mask(entries: &BTreeMap<String, Entry>, module: &str) -> Option<String> {
    let start = format!("{module}.pre_ops.");
    let after = entries.range(start.clone()..).map(|(key, _)| key).take_while(|key| key.starts_with(&start));
    let mut masks = after.filter(|key| key.rsplit('.').next().is_some_and(|own| NNCF_MASKS.contains(&own)));
    masks.next().cloned()
}

/// Whether a key belongs to something that watches quantisation.
fn is_observer(key: &str) -> bool {
    key.split('.').any(|part| OBSERVERS.contains(&part))
}

/// Values of a folded weight from those of its parts; an error in words where they cannot be meant so.
pub(in crate::checkpoint) fn values<E>(
    made: &Made,
    shape: &[usize],
    mut read: impl FnMut(&str) -> Result<Vec<f32>, E>,
    fail: impl Fn(String) -> E,
) -> Result<Vec<f32>, E> {
    match made {
        Made::Stored(path) => read(path),
        Made::Zeros => Ok(vec![0.0; shape.iter().product()]),
        Made::Masked { weight, mask } => {
            let (mut values, mask_values) = (read(weight)?, read(mask)?);
            if mask_values.iter().any(|m| *m != 0.0 && *m != 1.0) {
                return Err(fail(format!("`{mask}` is no mask: it holds other numbers than 0 and 1")));
            }
            let row = values.len() / mask_values.len().max(1);
            values.iter_mut().enumerate().for_each(|(i, value)| *value *= mask_values[i / row.max(1)]);
            Ok(values)
        }
        Made::Normed { magnitude, direction } => {
            let (magnitude, direction) = (read(magnitude)?, read(direction)?);
            Ok(normed(&magnitude, direction, shape))
        }
        Made::Spectral { weight, left, right } => {
            let (mut values, left, right) = (read(weight)?, read(left)?, read(right)?);
            let columns = right.len();
            if left.len() * columns != values.len() {
                return Err(fail(format!("`{weight}` does not fit the vectors of its spectral norm")));
            }
            let rows = values.chunks(columns.max(1)).zip(&left);
            let dot =
                |row: &[f32]| row.iter().zip(&right).map(|(w, v)| f64::from(*w) * f64::from(*v)).sum::<f64>();
            let sigma: f64 = rows.map(|(row, u)| dot(row) * f64::from(*u)).sum();
            for value in &mut values {
                *value = (f64::from(*value) / sigma) as f32;
            }
            Ok(values)
        }
    }
}

/// As many magnitudes as there are entries along one axis (of those in front and behind), or one for all.
fn normed(magnitude: &[f32], mut direction: Vec<f32>, shape: &[usize]) -> Vec<f32> {
    let count = magnitude.len();
    // The axis with one magnitude each, and how far its entries lie apart.
    let axis = shape.iter().position(|extent| *extent == count).filter(|_| count > 1);
    let apart: usize = axis.map_or(direction.len(), |axis| shape[axis + 1..].iter().product());
    let of = |i: usize| if count > 1 { i / apart.max(1) % count } else { 0 };
    let mut squares = vec![0.0_f64; count];
    for (i, value) in direction.iter().enumerate() {
        squares[of(i)] += f64::from(*value).powi(2);
    }
    for (i, value) in direction.iter_mut().enumerate() {
        let at = of(i);
        *value = (f64::from(*value) * f64::from(magnitude[at]) / squares[at].sqrt()) as f32;
    }
    direction
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fold_of(keys: &[(&str, &[usize])]) -> Folded {
        fold(keys.iter().map(|(key, shape)| ((*key).to_owned(), shape.to_vec(), Dtype::F32)))
    }

    #[test]
    fn parts_become_one_weight() {
        type Parts<'a> = &'a [(&'a str, &'a [usize])];
        let table: [(Parts, &str); 7] = [
            (&[("a.weight_orig", &[2, 3]), ("a.weight_mask", &[2, 3])], "a.weight"),
            (&[("a.weight_orig", &[2, 3]), ("a.weight_u", &[2]), ("a.weight_v", &[3])], "a.weight"),
            (&[("a.weight_g", &[2, 1]), ("a.weight_v", &[2, 3])], "a.weight"),
            (
                &[
                    ("a.parametrizations.weight.original0", &[2, 1]),
                    ("a.parametrizations.weight.original1", &[2, 3]),
                ],
                "a.weight",
            ),
            (
                &[
                    ("a.parametrizations.weight.original", &[2, 3]),
                    ("a.parametrizations.weight.0._u", &[2]),
                    ("a.parametrizations.weight.0._v", &[3]),
                ],
                "a.weight",
            ),
            (
                &[
                    ("a.parametrizations.weight.original", &[2, 3]),
                    ("a.parametrizations.weight.0.mask", &[2, 3]),
                ],
                "a.weight",
            ),
            (&[("a.weight", &[2, 3]), ("a.mask", &[2, 3])], "a.weight"),
        ];
        for (keys, name) in table {
            let folded = fold_of(keys);
            assert_eq!(folded.entries.keys().collect::<Vec<_>>(), [name], "{keys:?}");
            assert_eq!(folded.entries[name].shape, [2, 3], "{keys:?}");
            assert_eq!(folded.notes.len(), 1);
        }
        // One that is not understood stays, and is an error later.
        let other = fold_of(&[("a.parametrizations.weight.original", &[2, 3])]);
        assert!(!other.entries.contains_key("a.weight"));
    }

    #[test]
    fn wrappers_within_keys_come_off_unless_keys_become_equal() {
        let folded = fold_of(&[("module._orig_mod.a.weight", &[1]), ("b.module.bias", &[1])]);
        assert_eq!(folded.entries.keys().collect::<Vec<_>>(), ["a.weight", "b.bias"]);
        assert_eq!(folded.wrappers.into_iter().collect::<Vec<_>>(), ["_orig_mod", "module"]);
        let folded = fold_of(&[("module.a", &[1]), ("a", &[1])]);
        assert_eq!(folded.entries.keys().collect::<Vec<_>>(), ["a", "module.a"]);
    }

    #[test]
    fn folded_values() {
        let tensors: BTreeMap<&str, Vec<f32>> = BTreeMap::from([
            ("w", vec![3.0, 4.0, 6.0, 8.0]),
            ("mask", vec![1.0, 0.0, 0.0, 1.0]),
            ("rows", vec![0.0, 1.0]),
            ("half", vec![0.5, 1.0]),
            ("g", vec![1.0, 5.0]),
            ("one", vec![2.0]),
            ("u", vec![1.0, 0.0]),
            ("v", vec![0.6, 0.8]),
        ]);
        let name = |name: &str| name.to_owned();
        let masked = |mask: &str| Made::Masked { weight: name("w"), mask: name(mask) };
        let normed = |magnitude: &str| Made::Normed { magnitude: name(magnitude), direction: name("w") };
        let read =
            |made: &Made| values::<String>(made, &[2, 2], |path| Ok(tensors[path].clone()), |reason| reason);
        assert_eq!(read(&masked("mask")).unwrap(), [3.0, 0.0, 0.0, 8.0]);
        assert_eq!(read(&masked("rows")).unwrap(), [0.0, 0.0, 6.0, 8.0]);
        assert!(read(&masked("half")).unwrap_err().contains("no mask"));
        assert_eq!(read(&normed("g")).unwrap(), [0.6, 0.8, 3.0, 4.0]);
        let length = 125.0_f32.sqrt();
        let all = read(&normed("one")).unwrap();
        assert!(all.iter().zip([3.0, 4.0, 6.0, 8.0]).all(|(a, w)| (a - 2.0 * w / length).abs() < 1e-6));
        let spectral = Made::Spectral { weight: name("w"), left: name("u"), right: name("v") };
        let fifth: Vec<f32> = tensors["w"].iter().map(|w| w / 5.0).collect();
        let got = read(&spectral).unwrap();
        assert!(got.iter().zip(&fifth).all(|(a, b)| (a - b).abs() < 1e-6), "{got:?}");
        assert_eq!(read(&Made::Zeros).unwrap(), [0.0; 4]);
    }
}
