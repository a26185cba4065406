use std::collections::BTreeMap;

use margay_core::{Graph, NodeId};
use tch::Tensor;

use super::exec::apply;
use super::{Norms, TorchError, TorchModel};

/// Batches on their way through a network, all of them as far.
///
/// A batch passes several nodes in one go, so that of all batches only the values are held that later nodes read.
pub struct Flow {
    batches: Vec<Tensor>,
    graph: Graph,
    /// Reads of each node's value that are still to come.
    readers: Vec<usize>,
    /// Live values of each batch.
    values: Vec<BTreeMap<NodeId, Tensor>>,
    /// Nodes that are computed.
    passed: usize,
}

impl Flow {
    /// Nothing is computed yet.
    pub fn new(graph: &Graph, batches: &[Tensor]) -> Self {
        let mut readers = graph.readers();
        readers[graph.output().index()] += 1;
        let values = batches.iter().map(|_| BTreeMap::new()).collect();
        Self { batches: shallow(batches), graph: graph.clone(), readers, values, passed: 0 }
    }

    /// Another flow from here on, which shares what is computed.
    #[must_use]
    pub fn fork(&self) -> Self {
        let copy = |values: &BTreeMap<NodeId, Tensor>| {
            values.iter().map(|(id, value)| (*id, value.shallow_clone())).collect()
        };
        Self {
            batches: shallow(&self.batches),
            graph: self.graph.clone(),
            readers: self.readers.clone(),
            values: self.values.iter().map(copy).collect(),
            passed: self.passed,
        }
    }

    /// Number of nodes that are computed.
    pub fn passed(&self) -> usize {
        self.passed
    }

    /// What the next node reads first, for every batch.
    pub fn inputs(&self) -> Vec<Tensor> {
        let node = &self.graph.nodes()[self.passed];
        let of_batch = |(batch, values): (&Tensor, &BTreeMap<NodeId, Tensor>)| {
            node.inputs.first().map_or(batch, |input| &values[input]).shallow_clone()
        };
        self.batches.iter().zip(&self.values).map(of_batch).collect()
    }

    /// A node's value of a batch, which a later node reads.
    pub fn value(&self, id: NodeId, batch: usize) -> &Tensor {
        &self.values[batch][&id]
    }

    /// Computes all nodes before the one at `end` with the model's parameters.
    pub fn advance(&mut self, end: usize, model: &TorchModel) -> Result<(), TorchError> {
        let Self { batches, graph, readers, values, passed } = self;
        let part: Vec<NodeId> = graph.ids().take(end).skip(*passed).collect();
        let mut left = readers.clone();
        for (batch, values) in batches.iter().zip(values) {
            left.clone_from(readers);
            for id in &part {
                let node = graph.node(*id);
                let first = node.inputs.first().map_or(batch, |input| &values[input]);
                let others = node.inputs.iter().skip(1).map(|input| &values[input]);
                let inputs: Vec<&Tensor> = std::iter::once(first).chain(others).collect();
                let output = apply(node, model, Norms::Stored, &inputs)?;
                for input in &node.inputs {
                    left[input.index()] -= 1;
                    if left[input.index()] == 0 {
                        values.remove(input);
                    }
                }
                values.insert(*id, output);
            }
        }
        (self.readers, self.passed) = (left, end.max(*passed));
        Ok(())
    }

    /// The logits of each batch, once all nodes are computed.
    pub fn logits(mut self, model: &TorchModel) -> Result<Vec<Tensor>, TorchError> {
        self.advance(self.graph.nodes().len(), model)?;
        let output = self.graph.output();
        let of_batch = |mut values: BTreeMap<NodeId, Tensor>| {
            values.remove(&output).expect("the last node is computed and nobody reads it")
        };
        Ok(self.values.into_iter().map(of_batch).collect())
    }
}

fn shallow(tensors: &[Tensor]) -> Vec<Tensor> {
    tensors.iter().map(Tensor::shallow_clone).collect()
}

/// Runs all batches through the model node by node.
///
/// `visit` sees each node with the inputs of all batches before its outputs are computed, and may change
/// the node's parameters: later nodes then see what the changed prefix produces. One pass therefore
/// recalibrates a network layer by layer at the cost of a single forward pass. Returns the logits of each batch.
pub fn stream<E: From<TorchError>>(
    model: &mut TorchModel,
    batches: &[Tensor],
    mut visit: impl FnMut(NodeId, &[Tensor], &mut TorchModel) -> Result<(), E>,
) -> Result<Vec<Tensor>, E> {
    let _no_grad = tch::no_grad_guard();
    let mut flow = Flow::new(&model.graph, batches);
    for id in model.graph.clone().ids() {
        visit(id, &flow.inputs(), model)?;
        flow.advance(id.index() + 1, model)?;
    }
    Ok(flow.logits(model)?)
}
