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
