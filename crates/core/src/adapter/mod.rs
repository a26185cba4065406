//! An adapter apart from its base: what is added to each weight, and which parameters take the place of the
//! base's. One sparse base serves several regions, each with an adapter of its own.
//!
//! A weight `W0[m, n]` with mask `M` becomes `M ⊙ (W0 + B A + S)`. Adapters are folders, see [mod@file].

mod error;
pub mod file;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use ndarray::{Array2, ArrayD};

pub use error::AdapterError;

use crate::branch::with_branches;
use crate::{Csr, Limits, Mask, SparseModel, Weight};

/// A rank above this, and above what the weight itself can have, is refused: merging takes as many multiply-adds for each
/// stored weight.
const MAX_RANK: usize = 1024;

/// A trained adapter.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Adapter {
    /// Name of the method that trained it.
    pub method: String,
    /// Fingerprint of the model file it was trained on; empty if it was trained on a checkpoint: then it is for PEFT,
    /// and fits no model file.
    pub base: String,
    /// Class names in the order of the logits.
    pub labels: Vec<String>,
    /// What is added to each weight, by weight name.
    pub layers: BTreeMap<String, Change>,
    /// Head, norms and biases, by name: they replace the base's.
    pub params: BTreeMap<String, ArrayD<f32>>,
}

/// What is added to a weight `[m, n]`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Change {
    /// `B[m, r]`, its scale included, and `A[r, n]`.
    pub factors: Option<[Array2<f32>; 2]>,
    /// Positions in the flat weight, ascending, and what is added there.
    pub entries: Option<(Vec<u32>, Vec<f32>)>,
    /// Positions that leave the support; as many of the entries lie outside of it.
    pub dropped: Vec<u32>,
    /// Whether the product runs as a branch beside the layer, where the mask does not reach.
    pub branch: bool,
}

impl Adapter {
    /// Number of values that the adapter stores.
    pub fn values(&self) -> usize {
        let change = |c: &Change| {
            let factors = c.factors.iter().flatten().map(Array2::len).sum::<usize>();
            factors + c.entries.as_ref().map_or(0, |(_, values)| values.len())
        };
        let layers: usize = self.layers.values().map(change).sum();
        layers + self.params.values().map(ArrayD::len).sum::<usize>()
    }

    /// The model with the adapter in its weights, within the default limits. Where nothing is grown the support stays as it
    /// is.
    ///
    /// # Errors
    /// Where the adapter was trained on another model than `base`, and where the merged model is unsound.
    pub fn apply(&self, base: &SparseModel) -> Result<SparseModel, AdapterError> {
        self.apply_within(base, &Limits::DEFAULT)
    }

    /// The same within other limits.
    pub fn apply_within(&self, base: &SparseModel, limits: &Limits) -> Result<SparseModel, AdapterError> {
        if self.base.is_empty() {
            return Err(AdapterError::OfCheckpoint);
        }
        if self.base != base.fingerprint()? {
            return Err(AdapterError::OtherBase);
        }
        if self.layers.values().any(Change::needs_zeros) {
            base.check()?.check_dense(limits)?;
        }
        let model = self.merged(base)?;
        model.check()?.check(limits)?;
        Ok(model)
    }

    fn merged(&self, base: &SparseModel) -> Result<SparseModel, AdapterError> {
        let mut model = base.clone();
        for (name, value) in &self.params {
            let weight = model.weights.get_mut(name).ok_or_else(|| AdapterError::unknown(name))?;
            replace(name, weight, value)?;
        }
        for (name, change) in &self.layers {
            let weight = model.weights.get_mut(name).ok_or_else(|| AdapterError::unknown(name))?;
            *weight = change.applied(name, weight)?;
        }
        if !self.labels.is_empty() {
            model.graph.set_classes(self.labels.len());
            model.labels.clone_from(&self.labels);
        }
        let branches = self.layers.iter().filter(|(_, change)| change.branch);
        let factors: BTreeMap<String, [ArrayD<f32>; 2]> = branches
            .filter_map(|(name, change)| {
                let [b, a] = change.factors.clone()?;
                Some((name.strip_suffix(".weight")?.to_owned(), [b.into_dyn(), a.into_dyn()]))
            })
            .collect();
        if factors.is_empty() { Ok(model) } else { branched(model, &factors) }
    }
}

fn branched(
    model: SparseModel,
    factors: &BTreeMap<String, [ArrayD<f32>; 2]>,
) -> Result<SparseModel, AdapterError> {
    let masks: BTreeMap<String, Mask> = model
        .weights
        .iter()
        .filter_map(|(name, weight)| match weight {
            Weight::Csr(csr) => Some((name.clone(), csr.mask())),
            Weight::Dense(_) => None,
        })
        .collect();
    let (graph, params) = with_branches(&model.graph, &model.to_params(), factors)?;
    let patterns = model.patterns();
    let SparseModel { labels, preprocess, provenance, .. } = model;
    let branched = SparseModel::pack(graph, &params, &masks, labels, preprocess, provenance)?;
    Ok(branched.with_patterns(&patterns)?)
}

/// Puts a value in the place of a parameter; a head may have another number of rows.
fn replace(name: &str, weight: &mut Weight, value: &ArrayD<f32>) -> Result<(), AdapterError> {
    match weight {
        Weight::Dense(old) if old.shape().get(1..) == value.shape().get(1..) => old.clone_from(value),
        Weight::Csr(csr) if csr.rows() * csr.cols() == value.len() => {
            let mask = csr.mask();
            let kept = value.iter().zip(mask.iter()).filter(|(_, kept)| *kept);
            *csr = csr.with_values(kept.map(|(value, _)| *value).collect())?;
        }
        _ => return Err(AdapterError::shape(name)),
    }
    Ok(())
}

impl Change {
    /// The weight with this change, the branch left out.
    fn applied(&self, name: &str, weight: &Weight) -> Result<Weight, AdapterError> {
        let (rows, cols) = match weight {
            Weight::Dense(values) => {
                let rows = values.shape().first().copied().unwrap_or(0);
                (rows, values.len().checked_div(rows).unwrap_or(0))
            }
            Weight::Csr(csr) => (csr.rows(), csr.cols()),
        };
        self.check(name, rows, cols)?;
        let product = self.factors.as_ref().filter(|_| !self.branch);
        match weight {
            Weight::Csr(csr) => self.on_support(csr, product).map(Weight::Csr),
            Weight::Dense(values) => {
                let mut flat: Vec<f32> = values.iter().copied().collect();
                for (position, value) in flat.iter_mut().enumerate() {
                    *value += product.map_or(0.0, |[b, a]| dot(b, a, position / cols, position % cols));
                }
                for (position, value) in self.listed() {
                    flat[position] += value;
                }
                let shape = values.shape().to_vec();
                let values = ArrayD::from_shape_vec(shape, flat).map_err(|_| AdapterError::shape(name))?;
                Ok(Weight::Dense(values))
            }
        }
    }

    fn listed(&self) -> impl Iterator<Item = (usize, f32)> + '_ {
        let listed = self.entries.iter().flat_map(|(positions, values)| positions.iter().zip(values));
        listed.map(|(position, value)| (*position as usize, *value))
    }

    /// Whether merging stores every zero of a weight for a while.
    fn needs_zeros(&self) -> bool {
        self.branch || !self.dropped.is_empty()
    }

    /// Extents fit, positions ascend inside of the weight, and as many enter the support as leave it.
    fn check(&self, name: &str, rows: usize, cols: usize) -> Result<(), AdapterError> {
        let ascending = |positions: &[u32]| {
            positions.windows(2).all(|pair| pair[0] < pair[1])
                && positions.last().is_none_or(|last| (*last as usize) < rows * cols)
        };
        let (rank, limit) =
            (self.factors.as_ref().map_or(0, |[_, a]| a.nrows()), MAX_RANK.max(rows.min(cols)));
        if rank > limit {
            return Err(AdapterError::Rank { name: name.to_owned(), rank, limit });
        }
        let factors = self
            .factors
            .as_ref()
            .is_none_or(|[b, a]| b.nrows() == rows && a.ncols() == cols && b.ncols() == a.nrows());
        let entries = self
            .entries
            .as_ref()
            .is_none_or(|(positions, values)| positions.len() == values.len() && ascending(positions));
        if factors && entries && ascending(&self.dropped) { Ok(()) } else { Err(AdapterError::shape(name)) }
    }

    fn on_support(&self, csr: &Csr, product: Option<&[Array2<f32>; 2]>) -> Result<Csr, AdapterError> {
        if !self.dropped.is_empty() {
            return Ok(self.regrown(csr, product));
        }
        let mut values = csr.values().to_vec();
        let mut listed = self.listed().peekable();
        for row in 0..csr.rows() {
            let (start, end) = (csr.row_ptr()[row] as usize, csr.row_ptr()[row + 1] as usize);
            for (value, column) in values[start..end].iter_mut().zip(&csr.col_idx()[start..end]) {
                let column = *column as usize;
                *value += product.map_or(0.0, |[b, a]| dot(b, a, row, column));
                let position = row * csr.cols() + column;
                // Entries off the support have nowhere to go under a fixed mask.
                while listed.next_if(|(at, _)| *at < position).is_some() {}
                if let Some((_, change)) = listed.next_if(|(at, _)| *at == position) {
                    *value += change;
                }
            }
        }
        Ok(csr.with_values(values)?)
    }

    /// On a support from which some positions leave and which entries outside of it enter.
    fn regrown(&self, csr: &Csr, product: Option<&[Array2<f32>; 2]>) -> Csr {
        let mut flat = csr.to_dense();
        let mut kept: Vec<bool> = csr.mask().iter().collect();
        self.dropped.iter().for_each(|position| kept[*position as usize] = false);
        self.listed().for_each(|(position, _)| kept[position] = true);
        for (position, _) in kept.iter().enumerate().filter(|(_, kept)| **kept) {
            let (row, column) = (position / csr.cols(), position % csr.cols());
            flat[position] += product.map_or(0.0, |[b, a]| dot(b, a, row, column));
        }
        self.listed().for_each(|(position, value)| flat[position] += value);
        let mask = Mask::from_fn(flat.len(), |position| kept[position]);
        Csr::from_dense(csr.rows(), csr.cols(), &flat, &mask)
    }
}

/// One entry of `B A`.
fn dot(b: &Array2<f32>, a: &Array2<f32>, row: usize, column: usize) -> f32 {
    (0..a.nrows()).map(|k| b[[row, k]] * a[[k, column]]).sum()
}
