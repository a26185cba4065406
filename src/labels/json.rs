//! Class names in JSON, which YAML and the facts of a checkpoint are read as, too.

use serde_json::{Map, Value};

use super::{Label, in_order, is_synset_id};

/// Keys under which names stand by number.
pub(crate) const LISTS: [&str; 19] = [
    "labels",
    "label_names",
    "classes",
    "class_names",
    "id2label",
    "idx_to_class",
    "id_to_labels",
    "id_to_label",
    "idx_to_labels",
    "idx_to_label",
    "idx2label",
    "idx2class",
    "id2class",
    "index_to_name",
    "class_map",
    "names",
    "categories",
    "classnames",
    "CLASSES",
];
/// Keys under which numbers stand by name.
pub(crate) const INVERSE: [&str; 9] = [
    "class_to_idx",
    "label2id",
    "label_to_idx",
    "labels_to_ids",
    "label2idx",
    "class2idx",
    "class_to_id",
    "name_to_id",
    "label_to_id",
];
/// Dictionaries of settings in which margay, Lightning and timm keep more of them.
pub(crate) const NESTED: [&str; 9] = [
    "margay",
    "hyper_parameters",
    "config",
    "args",
    "pretrained_cfg",
    "hparams",
    "cfg",
    "meta",
    "dataset_meta",
];
/// Keys of an object that is one class.
const NAME_KEYS: [&str; 5] = ["name", "label", "class", "class_name", "title"];
const NUMBER_KEYS: [&str; 5] = ["id", "index", "idx", "class_id", "label_id"];

/// Why a value holds no names.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// Numbers leave a gap.
    Gap { count: usize, missing: usize },
    /// It has another form.
    Form(String),
}

/// Class names of any of the forms known, in the order of the head.
pub(super) fn labels(value: &Value) -> Result<Vec<Label>, Trouble> {
    match value {
        Value::Array(items) => from_list(items),
        Value::Object(entries) => from_object(entries),
        _ => Err(Trouble::Form("it is neither a list nor an object".to_owned())),
    }
}

fn from_object(entries: &Map<String, Value>) -> Result<Vec<Label>, Trouble> {
    if entries.is_empty() {
        return Ok(Vec::new());
    }
    let nested = NESTED.iter().filter_map(|key| entries.get(*key)?.as_object());
    let find = |key: &str| {
        let held = entries.get(key).or_else(|| nested.clone().find_map(|inner| inner.get(key)));
        held.filter(|value| value.is_array() || value.is_object())
    };
    if let Some(value) = LISTS.iter().chain(&INVERSE).find_map(|key| find(key)) {
        return labels(value);
    }
    if let Some(numbered) =
        entries.iter().map(|(key, value)| Some((key.trim().parse().ok()?, value))).collect()
    {
        return numbered_labels(numbered);
    }
    if let Some(numbered) = entries.iter().map(|(name, value)| Some((number(value)?, name))).collect() {
        return ordered(numbered, |name: &String| Ok(name.clone().into()));
    }
    if entries.keys().all(|key| is_synset_id(key)) {
        // Class folders are named like this, and their order is that of the ids.
        return by_synset(entries);
    }
    let keys: Vec<&str> = entries.keys().take(3).map(String::as_str).collect();
    Err(Trouble::Form(format!("it has the keys {} …", keys.join(", "))))
}

fn numbered_labels(numbered: Vec<(u64, &Value)>) -> Result<Vec<Label>, Trouble> {
    ordered(numbered, label)
}

fn ordered<T>(
    numbered: Vec<(u64, T)>,
    read: impl Fn(T) -> Result<Label, Trouble>,
) -> Result<Vec<Label>, Trouble> {
    let count = numbered.len();
    let sorted = in_order(numbered).map_err(|missing| Trouble::Gap { count, missing })?;
    sorted.into_iter().map(read).collect()
}

fn by_synset(entries: &Map<String, Value>) -> Result<Vec<Label>, Trouble> {
    let mut sorted: Vec<(&String, &Value)> = entries.iter().collect();
    sorted.sort_by_key(|(id, _)| *id);
    let read = |(id, value): (&String, &Value)| {
        let mut label = label(value)?;
        label.aliases.push(id.clone());
        Ok(label)
    };
    sorted.into_iter().map(read).collect()
}

/// Names, or objects that may say their number.
fn from_list(items: &[Value]) -> Result<Vec<Label>, Trouble> {
    let numbers = items.iter().map(|item| NUMBER_KEYS.iter().find_map(|key| number(item.get(*key)?)));
    match numbers.collect::<Option<Vec<u64>>>() {
        Some(numbers) if !items.is_empty() => ordered(numbers.into_iter().zip(items).collect(), label),
        _ => items.iter().map(label).collect(),
    }
}

/// A name, `["n01440764", "tench"]`, or an object with a name.
fn label(value: &Value) -> Result<Label, Trouble> {
    if let Some(name) = text(value) {
        return Ok(name.into());
    }
    match value {
        Value::Array(names) => {
            let names: Option<Vec<String>> = names.iter().map(text).collect();
            match names.as_deref() {
                Some([id, name]) if is_synset_id(id) => Ok(Label::with_alias(name, id)),
                Some([_, ..]) => Ok(names.unwrap_or_default().join(", ").into()),
                _ => Err(unnamed(value)),
            }
        }
        Value::Object(entries) => {
            let name = NAME_KEYS.iter().find_map(|key| text(entries.get(*key)?));
            name.map(Label::from).ok_or_else(|| unnamed(value))
        }
        _ => Err(unnamed(value)),
    }
}

fn unnamed(value: &Value) -> Trouble {
    let text = value.to_string();
    let start: String = text.chars().take(60).collect();
    Trouble::Form(format!("`{start}` is no name"))
}

/// A name; numbers are names, too.
fn text(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned).or_else(|| value.as_i64().map(|number| number.to_string()))
}

fn number(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_str()?.trim().parse().ok())
}
