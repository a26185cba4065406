use std::collections::BTreeMap;

use margay_core::NodeId;
use tch::Tensor;

use super::exec::apply;
use super::{Norms, TorchError, TorchModel};

/// Runs all batches through the model node by node: every batch passes a node before the next node starts.
///
/// `visit` sees each node with the inputs of all batches before its outputs are computed, and may change
/// the node's parameters: later nodes then see what the changed prefix produces. One pass therefore
/// prunes sequentially at the cost of a single forward pass. Live activations of all batches are held.
/// Returns the logits of each batch.
pub fn stream<E: From<TorchError>>(
    model: &mut TorchModel,
    batches: &[Tensor],
    mut visit: impl FnMut(NodeId, &[Tensor], &mut TorchModel) -> Result<(), E>,
) -> Result<Vec<Tensor>, E> {
    let _no_grad = tch::no_grad_guard();
    let graph = model.graph.clone();
    let mut readers = graph.readers();
    readers[graph.output().index()] += 1;
    let mut values: BTreeMap<NodeId, Vec<Tensor>> = BTreeMap::new();
    for id in graph.ids() {
        let node = graph.node(id);
        let first = node.inputs.first().map_or(batches, |input| values[input].as_slice());
        visit(id, first, model)?;
        let mut outputs = Vec::with_capacity(batches.len());
        for (index, batch) in first.iter().enumerate() {
            let mut inputs = vec![batch];
            inputs.extend(node.inputs.iter().skip(1).map(|input| &values[input][index]));
            outputs.push(apply(node, model, Norms::Stored, &inputs)?);
        }
        values.insert(id, outputs);
        for input in &node.inputs {
            readers[input.index()] -= 1;
            if readers[input.index()] == 0 {
                values.remove(input);
            }
        }
    }
    Ok(values.remove(&graph.output()).unwrap_or_default())
}
