use std::collections::BTreeMap;

/// Leads from canonical parameter names to a checkpoint's own keys and back.
///
/// Names that are not in the map are their own keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NameMap {
    keys: BTreeMap<String, String>,
    names: BTreeMap<String, String>,
}

impl NameMap {
    /// The map of a checkpoint whose keys are canonical.
    pub fn identity() -> Self {
        Self::default()
    }

    /// The checkpoint's key of a canonical name.
    pub fn key<'a>(&'a self, name: &'a str) -> &'a str {
        self.keys.get(name).map_or(name, String::as_str)
    }

    /// The canonical name of a checkpoint's key.
    pub fn name<'a>(&'a self, key: &'a str) -> &'a str {
        self.names.get(key).map_or(key, String::as_str)
    }
}

impl FromIterator<(String, String)> for NameMap {
    /// Collects pairs of canonical name and key.
    fn from_iter<I: IntoIterator<Item = (String, String)>>(pairs: I) -> Self {
        let keys: BTreeMap<String, String> = pairs.into_iter().collect();
        let names = keys.iter().map(|(name, key)| (key.clone(), name.clone())).collect();
        Self { keys, names }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leads_both_ways_and_is_the_identity_elsewhere() {
        let map: NameMap = [("fc.weight".to_owned(), "head.weight".to_owned())].into_iter().collect();
        assert_eq!((map.key("fc.weight"), map.name("head.weight")), ("head.weight", "fc.weight"));
        assert_eq!((map.key("conv1.weight"), map.name("conv1.weight")), ("conv1.weight", "conv1.weight"));
    }
}
