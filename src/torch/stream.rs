use std::collections::BTreeMap;

use margay_core::{Graph, NodeId};
use tch::Tensor;

use super::exec::apply;
use super::{Norms, TorchError, TorchModel};

/// Batches on their way through a network, node by node: every batch passes a node before the next node starts.
///
/// Live activations of all batches are held.
pub struct Flow {
    batches: Vec<Tensor>,
    graph: Graph,
    readers: Vec<usize>,
    values: BTreeMap<NodeId, Vec<Tensor>>,
}

impl Flow {
    /// Nothing is computed yet.
    pub fn new(graph: &Graph, batches: &[Tensor]) -> Self {
        let (graph, batches) = (graph.clone(), shallow(batches));
        let mut readers = graph.readers();
        readers[graph.output().index()] += 1;
        Self { batches, graph, readers, values: BTreeMap::new() }
    }

    /// Another flow from here on, which shares what is computed.
    #[must_use]
    pub fn fork(&self) -> Self {
        let values = self.values.iter().map(|(id, values)| (*id, shallow(values))).collect();
        Self {
            batches: shallow(&self.batches),
            graph: self.graph.clone(),
            readers: self.readers.clone(),
            values,
        }
    }

    /// What the node reads first, for every batch.
    pub fn inputs(&self, id: NodeId) -> &[Tensor] {
        self.graph.node(id).inputs.first().map_or(&self.batches, |input| &self.values[input])
    }

    /// Computes the node with the model's parameters; nodes go in the graph's order.
    pub fn pass(&mut self, id: NodeId, model: &TorchModel) -> Result<(), TorchError> {
        let node = self.graph.node(id);
        let mut outputs = Vec::with_capacity(self.batches.len());
        for (index, batch) in self.inputs(id).iter().enumerate() {
            let mut inputs = vec![batch];
            inputs.extend(node.inputs.iter().skip(1).map(|input| &self.values[input][index]));
            outputs.push(apply(node, model, Norms::Stored, &inputs)?);
        }
        for input in &node.inputs {
            self.readers[input.index()] -= 1;
            if self.readers[input.index()] == 0 {
                self.values.remove(input);
            }
        }
        self.values.insert(id, outputs);
        Ok(())
    }

    /// The logits of each batch, after the last node.
    pub fn logits(mut self) -> Vec<Tensor> {
        self.values.remove(&self.graph.output()).unwrap_or_default()
    }
}

fn shallow(tensors: &[Tensor]) -> Vec<Tensor> {
    tensors.iter().map(Tensor::shallow_clone).collect()
}

/// Runs all batches through the model node by node.
///
/// `visit` sees each node with the inputs of all batches before its outputs are computed, and may change
/// the node's parameters: later nodes then see what the changed prefix produces. One pass therefore
/// prunes sequentially at the cost of a single forward pass. Returns the logits of each batch.
pub fn stream<E: From<TorchError>>(
    model: &mut TorchModel,
    batches: &[Tensor],
    mut visit: impl FnMut(NodeId, &[Tensor], &mut TorchModel) -> Result<(), E>,
) -> Result<Vec<Tensor>, E> {
    let _no_grad = tch::no_grad_guard();
    let mut flow = Flow::new(&model.graph, batches);
    for id in model.graph.clone().ids() {
        visit(id, flow.inputs(id), model)?;
        flow.pass(id, model)?;
    }
    Ok(flow.logits())
}
