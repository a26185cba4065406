//! Class names that travel with the weights.

use std::collections::BTreeMap;

use serde_json::Value;

const LISTS: [&str; 6] = ["labels", "label_names", "classes", "class_names", "id2label", "idx_to_class"];
const INVERSE: [&str; 2] = ["class_to_idx", "label2id"];
/// Dictionaries of settings in which margay, Lightning and timm keep more of them.
const NESTED: [&str; 4] = ["margay", "hyper_parameters", "config", "args"];

/// The class names among the facts of a checkpoint, in the order of the head.
pub(super) fn stored(facts: &BTreeMap<String, Value>) -> Option<Vec<String>> {
    let nested = NESTED.iter().filter_map(|key| facts.get(*key)?.as_object());
    let find = |key: &str| facts.get(key).or_else(|| nested.clone().find_map(|settings| settings.get(key)));
    let species = find("species").and_then(list);
    let listed = LISTS.iter().find_map(|key| find(key).and_then(list)).or(species);
    listed.or_else(|| INVERSE.iter().find_map(|key| find(key).and_then(inverse)))
}

/// `["ant", "bee"]` or `{"0": "ant", "1": "bee"}`.
fn list(value: &Value) -> Option<Vec<String>> {
    let text = |v: &Value| v.as_str().map(str::to_owned);
    let names: Vec<String> = match value {
        Value::Array(items) => items.iter().map(text).collect::<Option<_>>()?,
        Value::Object(entries) => {
            (0..entries.len()).map(|i| entries.get(&i.to_string()).and_then(text)).collect::<Option<_>>()?
        }
        _ => return None,
    };
    (!names.is_empty()).then_some(names)
}

/// `{"bee": 1, "ant": 0}`.
fn inverse(value: &Value) -> Option<Vec<String>> {
    let entries = value.as_object()?;
    let by_index: BTreeMap<u64, &String> =
        entries.iter().map(|(name, i)| Some((i.as_u64()?, name))).collect::<Option<_>>()?;
    let dense = by_index.keys().copied().eq(0..entries.len() as u64);
    (dense && !entries.is_empty()).then(|| by_index.into_values().cloned().collect())
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
            json!({"hyper_parameters": {"species": ["ant", "bee"]}}),
        ];
        let read = |value: &Value| stored(&value.as_object().unwrap().clone().into_iter().collect());
        for facts in sound {
            assert_eq!(read(&facts), Some(vec!["ant".to_owned(), "bee".to_owned()]), "{facts}");
        }
        let unsound = [
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
