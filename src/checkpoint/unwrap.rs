//! Training scripts wrap state dicts in dictionaries and modules in modules; this undoes both.

use std::collections::BTreeMap;

use serde_json::Value;

/// Top-level entries that hold the weights, best first (the order is timm's).
const WRAPPERS: [&str; 9] = [
    "state_dict_ema",
    "model_ema",
    "state_dict",
    "model",
    "model_state_dict",
    "teacher",
    "student",
    "encoder",
    "params",
];

/// Attribute names under which training code keeps the network.
const PREFIXES: [&str; 14] = [
    "module.",
    "_orig_mod.",
    "model.",
    "net.",
    "network.",
    "base_model.",
    "backbone.",
    "encoder.",
    "student.",
    "ema.",
    "timm_model.",
    "resnet.",
    "feature.",
    "visual.trunk.",
];

/// Endings of tensors that training needs and inference does not.
const IGNORED: [&str; 2] = ["num_batches_tracked", "relative_position_index"];

/// The tensors of the network under its own keys, and the prefix that was taken off.
pub(super) fn unwrap<T>(
    mut tensors: BTreeMap<String, T>,
    facts: &BTreeMap<String, Value>,
    recognised: impl Fn(&BTreeMap<String, T>) -> bool,
) -> (BTreeMap<String, T>, String) {
    let mut prefix = String::new();
    let mut level = facts.clone();
    while let Some(wrapper) = wrapper(&tensors, &level) {
        tensors = enter(tensors, wrapper);
        prefix = format!("{prefix}{wrapper}.");
        let inner = level.get(wrapper).and_then(Value::as_object).cloned();
        level = inner.unwrap_or_default().into_iter().collect();
    }
    tensors.retain(|key, _| !IGNORED.iter().any(|ending| key.ends_with(ending)));
    while !recognised(&tensors) {
        let Some(shared) = shared_prefix(&tensors) else { break };
        let strip = |key: String| key.strip_prefix(shared).map_or_else(|| key.clone(), str::to_owned);
        tensors = tensors.into_iter().map(|(key, tensor)| (strip(key), tensor)).collect();
        prefix.push_str(shared);
    }
    (tensors, prefix)
}

/// The best entry that is a dictionary with tensors in it.
fn wrapper<T>(tensors: &BTreeMap<String, T>, level: &BTreeMap<String, Value>) -> Option<&'static str> {
    let holds = |name: &str| {
        let start = format!("{name}.");
        level.get(name).is_some_and(Value::is_object) && tensors.keys().any(|key| key.starts_with(&start))
    };
    WRAPPERS.into_iter().find(|name| holds(name))
}

fn enter<T>(tensors: BTreeMap<String, T>, wrapper: &str) -> BTreeMap<String, T> {
    let start = format!("{wrapper}.");
    let inside = tensors.into_iter().filter_map(|(key, t)| Some((key.strip_prefix(&start)?.to_owned(), t)));
    inside.collect()
}

/// A known prefix of more than half of the keys whose removal makes no two keys equal.
fn shared_prefix<T>(tensors: &BTreeMap<String, T>) -> Option<&'static str> {
    PREFIXES.into_iter().find(|prefix| {
        let mut rest = tensors.keys().filter_map(|key| key.strip_prefix(prefix)).peekable();
        let clash = rest.clone().any(|key| key.is_empty() || tensors.contains_key(key));
        rest.peek().is_some() && rest.count() * 2 > tensors.len() && !clash
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn tensors(keys: &[&str]) -> BTreeMap<String, usize> {
        keys.iter().map(|key| ((*key).to_owned(), key.len())).collect()
    }

    fn facts(value: &Value) -> BTreeMap<String, Value> {
        value.as_object().unwrap().clone().into_iter().collect()
    }

    #[test]
    fn wrappers_and_prefixes_come_off() {
        let table = [
            (json!({}), vec!["fc.weight", "fc.bias"], vec!["fc.bias", "fc.weight"], ""),
            (
                json!({"epoch": 3, "model": {}, "state_dict": {}}),
                vec!["model.a", "state_dict.b"],
                vec!["b"],
                "state_dict.",
            ),
            (
                json!({"state_dict": {}}),
                vec!["state_dict.module.model.a"],
                vec!["a"],
                "state_dict.module.model.",
            ),
            (
                json!({"model": {"ema": 1, "state_dict": {}}}),
                vec!["model.state_dict.a"],
                vec!["a"],
                "model.state_dict.",
            ),
            (json!({}), vec!["net.a", "net.b", "head.c"], vec!["a", "b", "head.c"], "net."),
            (json!({}), vec!["net.a", "net.b", "a"], vec!["a", "net.a", "net.b"], ""),
            (json!({}), vec!["bn.num_batches_tracked", "x"], vec!["x"], ""),
        ];
        for (top, keys, expected, expected_prefix) in table {
            let (unwrapped, prefix) = unwrap(tensors(&keys), &facts(&top), |_| false);
            let mut sorted = expected.clone();
            sorted.sort_unstable();
            assert_eq!(unwrapped.keys().collect::<Vec<_>>(), sorted, "{top}");
            assert_eq!(prefix, expected_prefix, "{top}");
        }
    }

    #[test]
    fn a_recognised_network_keeps_its_names() {
        let keys = ["encoder.a", "encoder.b"];
        let (unwrapped, _) = unwrap(tensors(&keys), &BTreeMap::new(), |t| t.contains_key("encoder.a"));
        assert_eq!(unwrapped.keys().collect::<Vec<_>>(), keys);
    }
}
