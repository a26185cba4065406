//! Class names that travel with the weights.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::Value;

use super::CheckpointError;
use super::source::Source;
use crate::labels::json::{INVERSE, LISTS, NESTED};

/// Class names and the file that stores them.
#[derive(Debug)]
pub(super) struct Labels {
    pub names: Vec<String>,
    pub path: PathBuf,
}

impl Labels {
    /// There must be one name per output of the classifier.
    pub fn check(&self, classes: usize) -> Result<(), CheckpointError> {
        let got = self.names.len();
        if got == classes {
            return Ok(());
        }
        Err(CheckpointError::Labels { path: self.path.clone(), classes, got })
    }
}

/// The class names of a checkpoint: those that margay wrote, else those of its `config.json`, else any other
/// that are stored with the weights.
pub(super) fn find(facts: &BTreeMap<String, Value>, source: &Source) -> Option<Labels> {
    let from = |path: &PathBuf| {
        let path = path.clone();
        move |names| Labels { names, path }
    };
    let weights = source.weights.first()?;
    let own = facts.get("margay").and_then(|own| list(own.get("labels")?)).map(from(weights));
    let config = || {
        let config = source.config.as_ref()?;
        let entries = config.value.as_object()?.clone().into_iter().collect();
        stored(&entries).map(from(&config.path))
    };
    own.or_else(config).or_else(|| stored(facts).map(from(weights)))
}

/// The class names among facts, in the order of the head.
fn stored(facts: &BTreeMap<String, Value>) -> Option<Vec<String>> {
    let nested = NESTED.iter().filter_map(|key| facts.get(*key)?.as_object());
    let find = |key: &str| facts.get(key).or_else(|| nested.clone().find_map(|settings| settings.get(key)));
    let species = find("species").and_then(list);
    let listed = LISTS.iter().find_map(|key| find(key).and_then(list)).or(species);
    listed.or_else(|| INVERSE.iter().find_map(|key| find(key).and_then(inverse)))
}

/// `["ant", "bee"]` or `{"0": "ant", "1": "bee"}`; numbers are names, too, unless they only count.
fn list(value: &Value) -> Option<Vec<String>> {
    let text = |v: &Value| v.as_str().map(str::to_owned).or_else(|| v.as_u64().map(|n| n.to_string()));
    let names: Vec<String> = match value {
        Value::Array(items) => items.iter().map(text).collect::<Option<_>>()?,
        Value::Object(entries) => {
            (0..entries.len()).map(|i| entries.get(&i.to_string()).and_then(text)).collect::<Option<_>>()?
        }
        _ => return None,
    };
    (!names.is_empty() && !are_placeholders(&names)).then_some(names)
}

/// `{"bee": 1, "ant": 0}`.
fn inverse(value: &Value) -> Option<Vec<String>> {
    let entries = value.as_object()?;
    let index = |i: &Value| i.as_u64().or_else(|| i.as_str()?.parse().ok());
    let by_index: BTreeMap<u64, &String> =
        entries.iter().map(|(name, i)| Some((index(i)?, name))).collect::<Option<_>>()?;
    let dense = by_index.keys().copied().eq(0..entries.len() as u64);
    let names: Vec<String> = by_index.into_values().cloned().collect();
    (dense && !names.is_empty() && !are_placeholders(&names)).then_some(names)
}

/// Whether the names are those that transformers gives to classes without any (`LABEL_0`), or their numbers.
fn are_placeholders(names: &[String]) -> bool {
    let counts = |(i, name): (usize, &String)| *name == i.to_string() || *name == format!("LABEL_{i}");
    names.iter().enumerate().all(counts)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_way_to_store_names() {
        let sound = [
            json!({"labels": ["ant", "bee"]}),
            json!({"id2label": {"1": "bee", "0": "ant"}}),
            json!({"class_to_idx": {"bee": 1, "ant": 0}}),
            json!({"label2id": {"bee": "1", "ant": "0"}}),
            json!({"pretrained_cfg": {"label_names": ["ant", "bee"]}}),
            json!({"hyper_parameters": {"species": ["ant", "bee"]}}),
        ];
        let read = |value: &Value| stored(&value.as_object().unwrap().clone().into_iter().collect());
        for facts in sound {
            assert_eq!(read(&facts), Some(vec!["ant".to_owned(), "bee".to_owned()]), "{facts}");
        }
        assert_eq!(
            read(&json!({"id2label": {"0": 281, "1": 7}})),
            Some(vec!["281".to_owned(), "7".to_owned()])
        );
        let unsound = [
            json!({"id2label": {"0": "LABEL_0", "1": "LABEL_1"}, "label2id": {"LABEL_0": 0, "LABEL_1": 1}}),
            json!({"id2label": {"0": 0, "1": 1}}),
            json!({"labels": [0, 1]}),
            json!({"labels": []}),
            json!({"id2label": {"0": "ant", "2": "bee"}}),
            json!({"class_to_idx": {"ant": 1, "bee": 1}}),
            json!({"epoch": 3}),
        ];
        for facts in unsound {
            assert_eq!(read(&facts), None, "{facts}");
        }
    }
}
