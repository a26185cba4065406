//! Configuration files as flat facts for the architectures.

use std::collections::BTreeMap;

use serde_json::Value;

/// Facts stored with the weights and the entries of a `config.json`, which win.
///
/// timm's `model_args` are lifted to the top level, where its own entries win.
pub(super) fn merged(stored: &BTreeMap<String, Value>, config: Option<&Value>) -> BTreeMap<String, Value> {
    let mut facts = stored.clone();
    let entries = config.and_then(Value::as_object);
    let args = entries.and_then(|entries| entries.get("model_args")?.as_object());
    for (key, value) in args.into_iter().chain(entries).flatten() {
        facts.insert(key.clone(), value.clone());
    }
    facts
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_configuration_wins_over_what_is_stored() {
        let stored = BTreeMap::from([("num_classes".to_owned(), json!(9)), ("epoch".to_owned(), json!(3))]);
        let config = json!({"architecture": "vit_tiny", "num_classes": 10, "pretrained_cfg": {"tag": "a"},
                            "model_args": {"img_size": 96, "num_classes": 11}});
        let merged = merged(&stored, Some(&config));
        for (key, value) in [("num_classes", json!(10)), ("img_size", json!(96)), ("epoch", json!(3))] {
            assert_eq!(merged[key], value, "{key}");
        }
        assert_eq!(merged["pretrained_cfg"]["tag"], "a");
        assert_eq!(super::merged(&stored, None), stored);
    }
}
