//! The sparse model and its file.

mod check;
mod error;
mod file;
mod header;
mod index;
mod rice;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use ndarray::ArrayD;
use serde::{Deserialize, Serialize};

pub use error::FormatError;
pub use file::{MAGIC, VERSION, seal};

use crate::{Csr, Footprint, Graph, Mask, Params, ParamsError, Pattern, Preprocess};

/// A compressed classifier: everything that is needed to run it on a photo.
#[derive(Clone, Debug, PartialEq)]
pub struct SparseModel {
    /// What is computed; batch norms are folded.
    pub graph: Graph,
    /// Value of every parameter of the graph by name.
    pub weights: BTreeMap<String, Weight>,
    /// Class names in the order of the logits.
    pub labels: Vec<String>,
    /// How a photo becomes the graph's input.
    pub preprocess: Preprocess,
    /// Where the model comes from.
    pub provenance: Provenance,
}

/// The stored form of one parameter.
#[derive(Clone, Debug, PartialEq)]
pub enum Weight {
    /// Every value, row-major.
    Dense(ArrayD<f32>),
    /// The kept values of a weight seen as a matrix `[out, in / groups · kh · kw]`.
    Csr(Csr),
}

/// Where a model comes from: free-form facts in a fixed order, shown by `margay inspect`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Provenance {
    /// Program and version that wrote the file.
    pub generator: String,
    /// File name of the checkpoint the model was made from.
    pub source: String,
    /// SHA-256 of that checkpoint, hexadecimal.
    pub source_sha256: String,
    /// The recipe that made it, as TOML.
    pub recipe: String,
    /// Licence and citation that travel with the weights, if known.
    pub licence: Option<String>,
}

impl Weight {
    /// Bytes that it takes in memory.
    pub fn bytes(&self) -> u64 {
        match self {
            Self::Dense(values) => 4 * values.len() as u64,
            Self::Csr(csr) => 8 * csr.nnz() as u64 + 4 * csr.row_ptr().len() as u64,
        }
    }

    /// Number of stored values.
    pub fn stored(&self) -> usize {
        match self {
            Self::Dense(values) => values.len(),
            Self::Csr(csr) => csr.nnz(),
        }
    }
}

impl SparseModel {
    /// Checks everything that a reader of a file checks, and returns what the model takes to run.
    pub fn check(&self) -> Result<Footprint, FormatError> {
        check::model(self)
    }

    /// Packs `params` of a folded graph; a weight with a mask becomes CSR, all others stay dense.
    ///
    /// # Panics
    /// If a mask is not as long as its weight.
    pub fn pack(
        graph: Graph,
        params: &Params,
        masks: &BTreeMap<String, Mask>,
        labels: Vec<String>,
        preprocess: Preprocess,
        provenance: Provenance,
    ) -> Result<Self, ParamsError> {
        params.check(&graph)?;
        let mut weights = BTreeMap::new();
        for node in graph.nodes() {
            for spec in node.params() {
                let value = params.get(&spec.name)?;
                let weight = match (masks.get(&spec.name), node.matrix()) {
                    (Some(mask), Some([rows, cols])) => {
                        let dense: Vec<f32> = value.iter().copied().collect();
                        Weight::Csr(Csr::from_dense(rows, cols, &dense, mask))
                    }
                    _ => Weight::Dense(value.clone()),
                };
                weights.insert(spec.name, weight);
            }
        }
        Ok(Self { graph, weights, labels, preprocess, provenance })
    }

    /// Says which pattern the support of each of some sparse weights has, by name. The file states it and takes less
    /// space, and the runtime uses it.
    pub fn with_patterns(mut self, patterns: &BTreeMap<String, Pattern>) -> Result<Self, FormatError> {
        for (name, pattern) in patterns {
            if let Some(Weight::Csr(csr)) = self.weights.get_mut(name) {
                let patterned = csr.clone().with_pattern(*pattern);
                *csr = patterned.map_err(|source| FormatError::Pattern { name: name.clone(), source })?;
            }
        }
        Ok(self)
    }

    /// The patterns of its sparse weights by name, where they have one.
    pub fn patterns(&self) -> BTreeMap<String, Pattern> {
        let patterns = self.weights.iter().filter_map(|(name, weight)| match weight {
            Weight::Csr(csr) if !csr.pattern().is_unstructured() => Some((name.clone(), csr.pattern())),
            Weight::Csr(_) | Weight::Dense(_) => None,
        });
        patterns.collect()
    }

    /// Every parameter as a dense array with zeros where nothing is stored.
    pub fn to_params(&self) -> Params {
        let specs = self.graph.params().filter_map(|spec| {
            let value = match self.weights.get(&spec.name)? {
                Weight::Dense(values) => values.clone(),
                Weight::Csr(csr) => ArrayD::from_shape_vec(spec.shape, csr.to_dense()).ok()?,
            };
            Some((spec.name, value))
        });
        specs.collect()
    }
}
