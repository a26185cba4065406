use std::collections::BTreeMap;

use ndarray::ArrayD;

use crate::Graph;

/// Parameter values by canonical name, in name order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Params(BTreeMap<String, ArrayD<f32>>);

/// Why a parameter table does not fit a graph.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParamsError {
    /// The graph needs a parameter that the table lacks.
    #[error("parameter `{name}` is missing{}", hint(nearest.as_deref()))]
    Missing {
        /// Name the graph asks for.
        name: String,
        /// The unused name that looks most like it.
        nearest: Option<String>,
    },
    /// The table holds a parameter that no node of the graph uses.
    #[error("parameter `{name}` belongs to no layer{}", hint(nearest.as_deref()))]
    Extra {
        /// The unused name.
        name: String,
        /// The name of the graph that looks most like it.
        nearest: Option<String>,
    },
    /// A parameter has another shape than the graph needs.
    #[error("parameter `{name}` has shape {got:?}, expected {expected:?}")]
    Shape {
        /// Name of the parameter.
        name: String,
        /// Shape the graph asks for.
        expected: Vec<usize>,
        /// Shape found.
        got: Vec<usize>,
    },
    /// A parameter holds NaN or infinite values.
    #[error("parameter `{name}` holds {count} values that are NaN or infinite")]
    NotFinite {
        /// Name of the parameter.
        name: String,
        /// How many values.
        count: usize,
    },
}

fn hint(nearest: Option<&str>) -> String {
    nearest.map_or_else(String::new, |name| format!(" (nearest: `{name}`)"))
}

impl Params {
    /// An empty table.
    pub fn new() -> Self {
        Self::default()
    }

    /// Value of `name`, or the error that names it and its nearest match.
    pub fn get(&self, name: &str) -> Result<&ArrayD<f32>, ParamsError> {
        self.0.get(name).ok_or_else(|| ParamsError::Missing {
            name: name.to_owned(),
            nearest: nearest_name(name, self.names()),
        })
    }

    /// Value of `name`, to change.
    pub fn get_mut(&mut self, name: &str) -> Option<&mut ArrayD<f32>> {
        self.0.get_mut(name)
    }

    /// Sets `name`, and returns what it was.
    pub fn insert(&mut self, name: impl Into<String>, value: ArrayD<f32>) -> Option<ArrayD<f32>> {
        self.0.insert(name.into(), value)
    }

    /// Takes `name` out.
    pub fn remove(&mut self, name: &str) -> Option<ArrayD<f32>> {
        self.0.remove(name)
    }

    /// Whether `name` is there.
    pub fn contains(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// Every name in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Every name and value in name order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &ArrayD<f32>)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value))
    }

    /// Number of parameters.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether the table is empty.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Checks that the table holds exactly the parameters of `graph`, well-shaped and finite.
    pub fn check(&self, graph: &Graph) -> Result<(), ParamsError> {
        let wanted: BTreeMap<String, Vec<usize>> =
            graph.params().map(|spec| (spec.name, spec.shape)).collect();
        for (name, shape) in &wanted {
            let Some(value) = self.0.get(name) else {
                let unused = self.names().filter(|n| !wanted.contains_key(*n));
                return Err(ParamsError::Missing { name: name.clone(), nearest: nearest_name(name, unused) });
            };
            if value.shape() != shape.as_slice() {
                let (expected, got) = (shape.clone(), value.shape().to_vec());
                return Err(ParamsError::Shape { name: name.clone(), expected, got });
            }
            let count = value.iter().filter(|v| !v.is_finite()).count();
            if count > 0 {
                return Err(ParamsError::NotFinite { name: name.clone(), count });
            }
        }
        match self.names().find(|name| !wanted.contains_key(*name)) {
            Some(name) => Err(ParamsError::Extra {
                name: name.to_owned(),
                nearest: nearest_name(name, wanted.keys().map(String::as_str)),
            }),
            None => Ok(()),
        }
    }
}

impl FromIterator<(String, ArrayD<f32>)> for Params {
    fn from_iter<I: IntoIterator<Item = (String, ArrayD<f32>)>>(iter: I) -> Self {
        Self(iter.into_iter().collect())
    }
}

impl IntoIterator for Params {
    type Item = (String, ArrayD<f32>);
    type IntoIter = std::collections::btree_map::IntoIter<String, ArrayD<f32>>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

/// The candidate that looks most like `name` (Jaro–Winkler), if any is at all alike.
pub fn nearest_name<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<String> {
    candidates
        .map(|candidate| (strsim::jaro_winkler(name, candidate), candidate))
        .filter(|(likeness, _)| *likeness > 0.7)
        .max_by(|a, b| a.0.total_cmp(&b.0).then_with(|| b.1.cmp(a.1)))
        .map(|(_, candidate)| candidate.to_owned())
}
