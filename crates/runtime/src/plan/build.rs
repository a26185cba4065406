use std::collections::BTreeMap;

use margay_core::{MaxPool2d, NodeId, Op, SparseModel};
use margay_kernels::{ConvSpec, DenseConv, DenseLinear, Isa, Layout, SparseConv, SparseLinear};

use super::choose::{Candidate, KernelChoice};
use super::fuse::{self, Group};
use super::layouts::{self, Layouts, Value};
use super::weights::{self, Matrix};
use super::{Kernel, Plan, Step};
use crate::RuntimeError;

impl Plan {
    /// Plans `model` on an instruction set that the CPU has.
    pub(crate) fn new(model: &SparseModel, isa: Isa, choice: KernelChoice) -> Result<Self, RuntimeError> {
        weights::check(model)?;
        let groups = fuse::groups(&model.graph);
        let layouts = layouts::layouts(&model.graph, &groups)?;
        let mut builder = Builder { model, isa, choice, layouts: &layouts, pool: Pool::default() };
        let image = model.graph.ids().next().map(Value::Output);
        let image_buffer = image.map_or(0, |value| builder.pool.take(value, layouts.of[&value]));
        let last_use = last_uses(&groups, &layouts);
        let mut steps = Vec::new();
        for (index, group) in groups.iter().enumerate() {
            builder.push(group, &mut steps)?;
            builder.pool.release(index, &last_use);
        }
        let logits_buffer = steps.last().map_or(image_buffer, |step| step.output);
        let image = model.graph.input.len();
        let (classes, buffers) = (model.graph.classes(), builder.pool.layouts);
        Ok(Self { isa, steps, image, image_buffer, classes, logits_buffer, buffers })
    }
}

/// Index of the last group that reads each value; phase planes are read by the group that makes them.
fn last_uses(groups: &[Group], layouts: &Layouts) -> BTreeMap<Value, usize> {
    let mut last = BTreeMap::new();
    for (index, group) in groups.iter().enumerate() {
        last.insert(Value::Output(group.output()), usize::MAX);
        if layouts.taps.contains_key(&group.main()) {
            last.insert(Value::Phases(group.main()), index);
        }
        for read in group.residual.iter().chain([&group.input]) {
            last.insert(Value::Output(*read), index);
        }
    }
    last
}

/// Buffers and who holds them.
#[derive(Default)]
struct Pool {
    layouts: Vec<Layout>,
    holder: Vec<Option<Value>>,
}

impl Pool {
    /// A free buffer of this layout: its padding is zero, as every kernel leaves it so.
    fn take(&mut self, value: Value, layout: Layout) -> usize {
        let free = (0..self.layouts.len()).find(|i| self.holder[*i].is_none() && self.layouts[*i] == layout);
        let index = free.unwrap_or_else(|| {
            self.layouts.push(layout);
            self.holder.push(None);
            self.layouts.len() - 1
        });
        self.holder[index] = Some(value);
        index
    }

    fn find(&self, value: Value) -> usize {
        self.holder.iter().position(|h| *h == Some(value)).unwrap_or(0)
    }

    /// Frees what no group after `index` reads.
    fn release(&mut self, index: usize, last_use: &BTreeMap<Value, usize>) {
        for holder in &mut self.holder {
            if holder.is_some_and(|value| last_use.get(&value).is_some_and(|last| *last <= index)) {
                *holder = None;
            }
        }
    }
}

struct Builder<'a> {
    model: &'a SparseModel,
    isa: Isa,
    choice: KernelChoice,
    layouts: &'a Layouts,
    pool: Pool,
}

impl Builder<'_> {
    fn push(&mut self, group: &Group, steps: &mut Vec<Step>) -> Result<(), RuntimeError> {
        let mut input = self.pool.find(Value::Output(group.input));
        if let Some(taps) = self.layouts.taps.get(&group.main()).filter(|t| t.is_strided()) {
            let value = Value::Phases(group.main());
            let output = self.pool.take(value, self.layouts.of[&value]);
            steps.push(Step {
                nodes: Vec::new(),
                names: vec![self.name(group.main())],
                kernel: Kernel::Phases(taps.clone()),
                density: None,
                dims: taps.source().to_vec(),
                input,
                residual: None,
                output,
            });
            input = output;
        }
        let residual = group.residual.map(|id| self.pool.find(Value::Output(id)));
        let (kernel, density) = self.kernel(group)?;
        let value = Value::Output(group.output());
        let output = self.pool.take(value, self.layouts.of[&value]);
        let shapes = self.model.graph.shapes()?;
        let dims = shapes[group.output().index()].dims();
        let names = group.nodes.iter().map(|id| self.name(*id)).collect();
        let nodes = group.nodes.clone();
        steps.push(Step { nodes, names, kernel, density, dims, input, residual, output });
        Ok(())
    }

    fn name(&self, id: NodeId) -> String {
        self.model.graph.node(id).name.clone()
    }

    fn kernel(&self, group: &Group) -> Result<(Kernel, Option<f64>), RuntimeError> {
        let node = self.model.graph.node(group.main());
        let kernel = match &node.op {
            Op::Conv2d(conv) => {
                return self.conv(group, weights::layer(self.model, node, conv.out_channels)?);
            }
            Op::BatchNorm(norm) => return self.conv(group, weights::affine(self.model, node, norm)?),
            Op::Linear(linear) => {
                let weight = weights::layer(self.model, node, linear.out_features)?;
                return Ok(self.linear(group, [linear.out_features, linear.in_features], weight));
            }
            Op::MaxPool2d(pool) => Kernel::MaxPool(check_pool(&node.name, pool)?),
            Op::GlobalAvgPool => Kernel::Mean,
            Op::Add | &Op::RELU => Kernel::Combine { relu: group.relu },
            Op::Input => {
                let reason = "a second image".to_owned();
                return Err(RuntimeError::Unsupported { node: node.name.clone(), reason });
            }
            other => {
                let reason = format!("{other:?}");
                return Err(RuntimeError::Unsupported { node: node.name.clone(), reason });
            }
        };
        Ok((kernel, None))
    }

    fn conv(
        &self,
        group: &Group,
        (weight, bias): (Matrix, Vec<f32>),
    ) -> Result<(Kernel, Option<f64>), RuntimeError> {
        let refuse = |reason: String| RuntimeError::Unsupported { node: self.name(group.main()), reason };
        let taps = self.layouts.taps.get(&group.main());
        let taps = taps.ok_or_else(|| refuse("it has no windows".to_owned()))?;
        let source = self.layouts.of[&layouts::source(group, taps)];
        let output = self.layouts.of[&Value::Output(group.output())];
        let spec = ConvSpec { taps, source, output, bias: &bias, relu: group.relu };
        let matrix = [taps.output()[0], taps.columns()];
        let total = matrix[0] * matrix[1];
        let candidate = Candidate {
            isa: self.isa,
            nonzeros: weight.stored(),
            padded: DenseConv::padded_rows(self.isa, taps) * matrix[1],
            vectors: (output.pitch() * output.dims()[1]).div_ceil(self.isa.lanes()),
        };
        let density = weight.stored() as f64 / total.max(1) as f64;
        let kernel = if self.choice.is_sparse(&candidate) {
            SparseConv::new(self.isa, &spec, &weight.into_csr(matrix)).map(Kernel::SparseConv)
        } else {
            DenseConv::new(self.isa, &spec, &weight.into_dense()).map(Kernel::DenseConv)
        };
        Ok((kernel.map_err(|error| refuse(error.to_string()))?, Some(density)))
    }

    fn linear(
        &self,
        group: &Group,
        matrix: [usize; 2],
        (weight, bias): (Matrix, Vec<f32>),
    ) -> (Kernel, Option<f64>) {
        let density = weight.stored() as f64 / (matrix[0] * matrix[1]).max(1) as f64;
        let sparse = match self.choice {
            KernelChoice::Sparse => true,
            KernelChoice::Dense => false,
            // A gathered product is scalar: it pays when a vector of the dense one is mostly zeros.
            KernelChoice::Auto => density * (self.isa.lanes() as f64) < 1.0,
        };
        let kernel = if sparse {
            Kernel::SparseLinear(SparseLinear::new(&weight.into_csr(matrix), &bias, group.relu))
        } else {
            Kernel::DenseLinear(DenseLinear::new(self.isa, &weight.into_dense(), &bias, group.relu))
        };
        (kernel, Some(density))
    }
}

/// Refuses a pooling with windows that hold nothing but padding.
fn check_pool(node: &str, pool: &MaxPool2d) -> Result<MaxPool2d, RuntimeError> {
    let inside = (0..2).all(|axis| pool.padding[axis] < pool.kernel[axis]);
    inside.then(|| pool.clone()).ok_or_else(|| RuntimeError::Unsupported {
        node: node.to_owned(),
        reason: format!("padding {:?} leaves windows {:?} empty", pool.padding, pool.kernel),
    })
}
