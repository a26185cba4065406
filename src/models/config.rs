use std::collections::BTreeMap;

use serde_json::Value;

/// What stands beside the weights and cannot be read from their shapes: entries of a `config.json`, or of
/// the checkpoint itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Config(BTreeMap<String, Value>);

impl Config {
    /// A whole number.
    pub fn integer(&self, key: &str) -> Option<usize> {
        self.0.get(key)?.as_u64()?.try_into().ok()
    }

    /// A number.
    pub fn number(&self, key: &str) -> Option<f64> {
        self.0.get(key)?.as_f64()
    }

    /// A text.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.as_str()
    }

    /// A truth value.
    pub fn flag(&self, key: &str) -> Option<bool> {
        self.0.get(key)?.as_bool()
    }

    /// The same with JSON values for entries that are missing.
    #[must_use]
    pub fn assuming(&self, facts: &[(&str, &str)]) -> Self {
        let mut config = self.clone();
        for (key, value) in facts {
            let value = || serde_json::from_str(value).expect("what is assumed is JSON");
            config.0.entry((*key).to_owned()).or_insert_with(value);
        }
        config
    }

    /// Any entry.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.0.get(key)
    }
}

impl From<BTreeMap<String, Value>> for Config {
    fn from(entries: BTreeMap<String, Value>) -> Self {
        Self(entries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_entries_win_over_assumptions() {
        let stored = BTreeMap::from([("eps".to_owned(), Value::from(0.5))]);
        let config = Config::from(stored).assuming(&[("eps", "1e-12"), ("same", "true"), ("heads", "3")]);
        assert_eq!(config.number("eps"), Some(0.5));
        assert_eq!((config.flag("same"), config.integer("heads")), (Some(true), Some(3)));
        assert_eq!(config.text("same"), None);
    }
}
