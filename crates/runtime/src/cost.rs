//! What a layer costs on this machine at other sparsities than its own.

use margay_core::{Csr, Mask, Node, SparseModel, Weight};
use serde::Serialize;

use crate::{RuntimeError, Session, SessionOptions};

/// Timed runs of the network per sparsity, after one untimed.
const RUNS: usize = 9;

/// Time of one layer at one sparsity.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LayerCost {
    /// Name of its weight.
    pub weight: String,
    /// Extents of its weight as a matrix: outputs, inputs times window.
    pub matrix: [usize; 2],
    /// Extents of its output for one image.
    pub shape: Vec<usize>,
    /// Fraction of the weight that is zero.
    pub sparsity: f64,
    /// Kernel it runs on.
    pub kernel: String,
    /// Shortest time for one image in milliseconds, with the sum and the activation behind it.
    pub ms: f64,
}

/// Times every layer of `model` that may be pruned at each of `sparsities`, in its place in the network, with
/// weights kept at random (a fixed draw).
pub fn layer_costs(
    model: &SparseModel,
    options: &SessionOptions,
    sparsities: &[f64],
) -> Result<Vec<LayerCost>, RuntimeError> {
    let mut costs = Vec::new();
    for &sparsity in sparsities {
        let mut session = Session::new(&thinned(model, |_| sparsity), options)?;
        let image = vec![0.5; session.image_len()];
        session.profile(&image, 1)?;
        let profile = session.profile(&image, RUNS)?;
        for node in prunable(model) {
            let Some(step) =
                profile.steps.iter().find(|step| step.density.is_some() && step.nodes[0] == node.name)
            else {
                continue;
            };
            costs.push(LayerCost {
                weight: node.weight(),
                matrix: node.matrix().expect("a prunable layer has a matrix"),
                shape: step.shape.clone(),
                sparsity,
                kernel: step.kernel.clone(),
                ms: step.min_ms,
            });
        }
    }
    Ok(costs)
}

fn prunable(model: &SparseModel) -> impl Iterator<Item = &Node> {
    model.graph.prunable().map(|id| model.graph.node(id))
}

/// The same model with other shares of zeros in the layers that may be pruned, spread at random (a fixed draw): it takes as
/// long as a model pruned to them and answers nonsense.
pub fn thinned(model: &SparseModel, sparsity: impl Fn(&Node) -> f64) -> SparseModel {
    let (mut thin, params) = (model.clone(), model.to_params());
    for node in prunable(model) {
        let (Ok(value), Some([rows, columns])) = (params.get(&node.weight()), node.matrix()) else {
            continue;
        };
        let zeros = sparsity(node);
        let mask = Mask::from_fn(rows * columns, |i| draw(i) >= zeros);
        // A weight that the model lacks is stored as well, lest there be too few.
        let values: Vec<f32> = value.iter().map(|v| if *v == 0.0 { 1e-3 } else { *v }).collect();
        thin.weights.insert(node.weight(), Weight::Csr(Csr::from_dense(rows, columns, &values, &mask)));
    }
    thin
}

/// A reproducible number in 0 .. 1 (the finaliser of splitmix64).
fn draw(index: usize) -> f64 {
    let mut z = (index as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
}
