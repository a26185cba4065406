use std::collections::{BTreeMap, BTreeSet};

/// Leads from canonical parameter names to a checkpoint's own keys and back.
///
/// A parameter may be stored in several tensors, joined along their first axis (queries, keys and values),
/// and with axes of extent 1 around its own. Names that are not in the map are their own keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NameMap {
    parts: BTreeMap<String, Vec<Part>>,
    names: BTreeMap<String, String>,
    unused: BTreeSet<String>,
}

/// One tensor of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Its key.
    pub key: String,
    /// Its shape in the file.
    pub shape: Vec<usize>,
}

impl NameMap {
    /// The map of a checkpoint whose keys are canonical.
    pub fn identity() -> Self {
        Self::default()
    }

    /// Adds a tensor behind those that a parameter has already.
    pub fn push(&mut self, name: &str, part: Part) {
        self.names.insert(part.key.clone(), name.to_owned());
        self.parts.entry(name.to_owned()).or_default().push(part);
    }

    /// The same map with every key changed.
    #[must_use]
    pub fn rekeyed(&self, change: impl Fn(&str) -> String) -> Self {
        let part = |part: &Part| Part { key: change(&part.key), shape: part.shape.clone() };
        let parts = self.parts.iter().map(|(name, parts)| (name.clone(), parts.iter().map(part).collect()));
        Self {
            parts: parts.collect(),
            names: self.names.iter().map(|(key, name)| (change(key), name.clone())).collect(),
            unused: self.unused.iter().map(|key| change(key)).collect(),
        }
    }

    /// Marks a key that no parameter needs.
    pub fn leave_out(&mut self, key: &str) {
        self.unused.insert(key.to_owned());
    }

    /// Whether no parameter needs the key.
    pub fn leaves_out(&self, key: &str) -> bool {
        self.unused.contains(key)
    }

    /// The tensors of a parameter of this shape, in order; their rows add up to the parameter's.
    ///
    /// A parameter without values, such as the classifier of a network that has none, is in no tensor.
    pub fn parts(&self, name: &str, shape: &[usize]) -> Vec<Part> {
        if shape.contains(&0) {
            return Vec::new();
        }
        match self.parts.get(name).map(Vec::as_slice) {
            None => vec![Part { key: name.to_owned(), shape: shape.to_vec() }],
            // A head may have been sliced and positions resampled since the file was read.
            Some([only]) => {
                let shape = widened(shape, &only.shape);
                vec![Part { key: only.key.clone(), shape }]
            }
            Some(parts) => parts.to_vec(),
        }
    }

    /// The first key of a canonical name.
    pub fn key<'a>(&'a self, name: &'a str) -> &'a str {
        self.parts.get(name).and_then(|parts| parts.first()).map_or(name, |part| part.key.as_str())
    }

    /// The canonical name of a checkpoint's key.
    pub fn name<'a>(&'a self, key: &'a str) -> &'a str {
        self.names.get(key).map_or(key, String::as_str)
    }
}

/// `shape` with the axes of extent 1 that `stored` has around its own.
fn widened(shape: &[usize], stored: &[usize]) -> Vec<usize> {
    let extra = stored.len().saturating_sub(shape.len());
    let leading = stored.iter().take(extra).take_while(|extent| **extent == 1).count();
    let ones = |n: usize| std::iter::repeat_n(1, n);
    // Height and width come together; one axis behind is no library's habit.
    if extra - leading == 1 {
        return shape.to_vec();
    }
    ones(leading).chain(shape.iter().copied()).chain(ones(extra - leading)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(key: &str, shape: &[usize]) -> Part {
        Part { key: key.to_owned(), shape: shape.to_vec() }
    }

    #[test]
    fn leads_both_ways_and_is_the_identity_elsewhere() {
        let mut map = NameMap::identity();
        map.push("fc.weight", part("head.weight", &[3, 2]));
        assert_eq!((map.key("fc.weight"), map.name("head.weight")), ("head.weight", "fc.weight"));
        assert_eq!((map.key("conv1.weight"), map.name("conv1.weight")), ("conv1.weight", "conv1.weight"));
        assert_eq!(map.parts("conv1.weight", &[2]), [part("conv1.weight", &[2])]);
        assert_eq!(map.parts("fc.weight", &[0, 2]), []);
    }

    #[test]
    fn axes_of_extent_one_follow_a_changed_shape() {
        let mut map = NameMap::identity();
        map.push("position", part("pos_embed", &[1, 5, 4]));
        map.push("gamma", part("layer_scale", &[4, 1, 1]));
        map.push("fc1", part("fc1.weight", &[8, 4, 1, 1]));
        assert_eq!(map.parts("position", &[10, 4]), [part("pos_embed", &[1, 10, 4])]);
        assert_eq!(map.parts("gamma", &[4]), [part("layer_scale", &[4, 1, 1])]);
        assert_eq!(map.parts("fc1", &[8, 4]), [part("fc1.weight", &[8, 4, 1, 1])]);
        map.push("bias", part("fc1.bias", &[4, 1]));
        assert_eq!(map.parts("bias", &[4]), [part("fc1.bias", &[4])]);
    }

    #[test]
    fn joined_tensors_keep_their_order() {
        let mut map = NameMap::identity();
        map.push("qkv", part("query", &[2, 2]));
        map.push("qkv", part("key", &[2, 2]));
        let parts = map.parts("qkv", &[4, 2]);
        assert_eq!(parts, [part("query", &[2, 2]), part("key", &[2, 2])]);
        assert_eq!(map.name("key"), "qkv");
    }
}
