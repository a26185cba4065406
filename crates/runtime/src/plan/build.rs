use margay_core::{Csr, Footprint, MaxPool2d, Node, NodeId, Op, Shape, SparseModel, Weight};
use margay_kernels::{
    Attention, BlockConv, ConvError, ConvSpec, DenseConv, DenseLinear, Embedding, Isa, LayerNorm, Layout,
    MAX_POOL_WINDOW, NormSpec, Pointwise, ResponseNorm, SparseConv, SparseLinear,
};

use super::buffers::{self, Buffers, Slots};
use super::cache::Cache;
use super::choose::{Candidate, KernelChoice};
use super::fuse::{self, Group};
use super::layouts::{self, Layouts, Value};
use super::tune::{Clock, Layer, Place, Stopwatch, Tuner, Way};
use super::weights::{self, Matrix};
use super::{Kernel, Plan, Step};
use crate::{RuntimeError, SessionOptions};

impl Plan {
    /// Plans `model` on an instruction set that the CPU has, for runs on up to `threads` threads.
    pub(crate) fn new(
        model: &SparseModel,
        isa: Isa,
        options: &SessionOptions,
        threads: usize,
    ) -> Result<Self, RuntimeError> {
        Self::with_clock(model, isa, options, threads, &mut Stopwatch::default())
    }

    /// The same with a clock of the caller's.
    pub(super) fn with_clock(
        model: &SparseModel,
        isa: Isa,
        options: &SessionOptions,
        threads: usize,
        clock: &mut dyn Clock,
    ) -> Result<Self, RuntimeError> {
        weights::check(model)?;
        let shapes = model.graph.shapes()?;
        if let (Shape::Tokens { .. }, [input, ..]) = (model.graph.input, model.graph.nodes()) {
            return Err(unsupported(input, "the input is no image"));
        }
        let groups = fuse::groups(&model.graph, &shapes);
        let layouts = layouts::layouts(&model.graph, &shapes, &groups, options.precision)?;
        let buffers = buffers::assign(&model.graph, &groups, &layouts);
        let needed = Needed::new(model, &shapes, options, &buffers);
        needed.check(0, options)?;
        let cache = Cache::new(model, isa, options, threads);
        let known = cache.as_ref().map(Cache::load).unwrap_or_default();
        let (before, tuner) = (known.len(), Tuner::new(clock, known));
        let mut builder = Builder { model, isa, options, tuner, shapes: &shapes, layouts: &layouts };
        let mut steps = Vec::new();
        for (group, slots) in groups.iter().zip(&buffers.slots) {
            builder.push(group, *slots, &mut steps)?;
        }
        if let Some(cache) = cache.filter(|_| builder.tuner.tried().len() > before) {
            cache.store(builder.tuner.tried());
        }
        let scratch = scratch(&steps, threads)?;
        needed.check(scratch.bytes(), options)?;
        let logits_buffer = steps.last().map_or(buffers.image, |step| step.output);
        let image = model.graph.input.len();
        let classes = shapes.last().map_or(0, |shape| shape.len());
        let (image_buffer, buffers) = (buffers.image, buffers.layouts);
        Ok(Self { isa, steps, image, image_buffer, classes, logits_buffer, buffers, scratch })
    }
}

/// What a plan takes, buffers as they lie in memory.
struct Needed(Footprint);

impl Needed {
    fn new(model: &SparseModel, shapes: &[Shape], options: &SessionOptions, buffers: &Buffers) -> Self {
        let stored = model.weights.values().map(Weight::bytes).sum();
        let footprint = Footprint::new(&model.graph, shapes, &model.preprocess, stored);
        let weights = if options.kernel == KernelChoice::Dense { footprint.dense } else { footprint.weights };
        // A footprint counts values twice.
        Self(Footprint { weights, values: buffers.bytes().div_ceil(2), ..footprint })
    }

    fn check(&self, scratch: u64, options: &SessionOptions) -> Result<(), RuntimeError> {
        let tables = self.0.tables.saturating_add(scratch);
        Ok(Footprint { tables, ..self.0 }.check(&options.limits)?)
    }
}

/// Scratch space that is enough for every step.
fn scratch(steps: &[Step], threads: usize) -> Result<Layout, RuntimeError> {
    let Some(step) = steps.iter().max_by_key(|step| step.kernel.scratch(threads)) else {
        return Ok(Layout::default());
    };
    let too_large = || RuntimeError::TooLarge { node: step.names.join(" + "), shape: step.shape };
    Layout::vector(step.kernel.scratch(threads)).ok_or_else(too_large)
}

/// How much of a weight is stored.
#[derive(Clone, Copy)]
struct Stored {
    stored: usize,
    total: usize,
}

impl Stored {
    fn density(self) -> f64 {
        self.stored as f64 / self.total.max(1) as f64
    }
}

struct Builder<'a, 'c> {
    model: &'a SparseModel,
    isa: Isa,
    options: &'a SessionOptions,
    tuner: Tuner<'c>,
    shapes: &'a [Shape],
    layouts: &'a Layouts,
}

impl Builder<'_, '_> {
    fn push(&mut self, group: &Group, slots: Slots, steps: &mut Vec<Step>) -> Result<(), RuntimeError> {
        let Slots { mut input, other, phases, output } = slots;
        if let Some(planes) = phases {
            let taps = &self.layouts.taps[&group.main()];
            let [channels, height, width] = taps.source();
            steps.push(Step {
                nodes: Vec::new(),
                names: vec![self.name(group.main())],
                kernel: Kernel::Phases(taps.clone()),
                density: None,
                stored: 0,
                shape: Shape::map(channels, height, width),
                input,
                other: None,
                output: planes,
            });
            input = planes;
        }
        let (kernel, weight) = self.kernel(group)?;
        let shape = self.shapes[group.output().index()];
        let names = group.nodes.iter().map(|id| self.name(*id)).collect();
        let nodes = group.nodes.clone();
        let (density, stored) = weight.map_or((None, 0), |weight| (Some(weight.density()), weight.stored));
        steps.push(Step { nodes, names, kernel, density, stored, shape, input, other, output });
        Ok(())
    }

    fn name(&self, id: NodeId) -> String {
        self.model.graph.node(id).name.clone()
    }

    fn kernel(&mut self, group: &Group) -> Result<(Kernel, Option<Stored>), RuntimeError> {
        let node = self.model.graph.node(group.main());
        let values = |name: String| weights::values(self.model, name);
        let kernel = match &node.op {
            Op::Conv2d(conv) => {
                return self.conv(group, weights::layer(self.model, node, conv.out_channels)?);
            }
            Op::BatchNorm(norm) => return self.conv(group, weights::affine(self.model, node, norm)?),
            Op::Linear(linear) => {
                let weight = weights::layer(self.model, node, linear.out_features)?;
                if fuse::is_windowed(&self.model.graph, self.shapes, group.main()) {
                    return self.conv(group, weight);
                }
                return Ok(self.linear(group, [linear.out_features, linear.in_features], weight));
            }
            Op::LayerNorm(norm) => Kernel::LayerNorm(self.with_norm(group, norm.eps, LayerNorm::new)?),
            Op::ResponseNorm(_) if matches!(self.shapes[group.output().index()], Shape::Vector { .. }) => {
                return Err(unsupported(node, "a vector has one position only"));
            }
            Op::ResponseNorm(norm) => {
                Kernel::ResponseNorm(self.with_norm(group, norm.eps, ResponseNorm::new)?)
            }
            Op::Attention(attention) => {
                let [input, output] = self.layouts_of(group);
                Kernel::Attention(Attention::new(self.isa, attention.heads, input, output))
            }
            Op::Embed(embed) => {
                let (table, [height, width]) = (weights::embedding(self.model, node, embed)?, embed.grid);
                Kernel::Embed(Embedding::new(embed.prefix, [embed.features, height, width], &table))
            }
            Op::Scale(_) => Kernel::Scale(values(node.weight())?),
            Op::Add | Op::Activation(_) => self.pointwise(group, 1.0),
            Op::Average => self.pointwise(group, 0.5),
            Op::Gate => Kernel::Gate,
            Op::Concat => Kernel::Concat,
            Op::MaxPool2d(pool) => Kernel::MaxPool(check_pool(&node.name, pool)?),
            Op::AvgPool2d(pool) => Kernel::AvgPool(pool.clone()),
            Op::SamePad(pad) => {
                let [_, height, width] = self.layouts_of(group)[0].dims();
                Kernel::Pad(
                    pad.sides([height, width])
                        .expect("a checked graph fits its padding")
                        .map(|[before, _]| before),
                )
            }
            Op::GlobalAvgPool => Kernel::Mean(0),
            Op::MeanTokens(mean) => Kernel::Mean(mean.prefix),
            Op::Token(token) => Kernel::Token(token.index),
            Op::LogSumExp(join) => Kernel::LogSumExp(join.groups.clone()),
            Op::Input => return Err(unsupported(node, "a second image")),
        };
        Ok((kernel, None))
    }

    /// Layouts of input and output.
    fn layouts_of(&self, group: &Group) -> [Layout; 2] {
        [group.input, group.output()].map(|id| self.layouts.of[&Value::Output(id)])
    }

    fn pointwise(&self, group: &Group, factor: f32) -> Kernel {
        let [_, output] = self.layouts_of(group);
        Kernel::Pointwise(Pointwise::new(self.isa, output, factor, group.activation))
    }

    /// The factors and summands of a norm, to plan it with.
    fn with_norm<K>(
        &self,
        group: &Group,
        eps: f64,
        plan: fn(Isa, &NormSpec) -> K,
    ) -> Result<K, RuntimeError> {
        let [_, layout] = self.layouts_of(group);
        let [gain, shift] = weights::norm(self.model, self.model.graph.node(group.main()))?;
        Ok(plan(self.isa, &NormSpec { layout, gain: &gain, shift: &shift, eps }))
    }

    fn conv(
        &mut self,
        group: &Group,
        (weight, bias): (Matrix, Vec<f32>),
    ) -> Result<(Kernel, Option<Stored>), RuntimeError> {
        let refuse = |reason: String| RuntimeError::Unsupported { node: self.name(group.main()), reason };
        let taps = self.layouts.taps.get(&group.main());
        let taps = taps.ok_or_else(|| refuse("it has no windows".to_owned()))?;
        let source = self.layouts.of[&layouts::source(group, taps)];
        let output = self.layouts.of[&Value::Output(group.output())];
        let spec = ConvSpec { taps, source, output, bias: &bias, activation: group.activation };
        let matrix = [taps.output()[0], taps.columns()];
        let total = matrix[0] * matrix[1];
        let candidate = Candidate {
            isa: self.isa,
            precision: output.precision(),
            nonzeros: weight.stored(),
            blocks: weight.has_blocks(),
            padded: DenseConv::padded_rows(self.isa, output.precision(), taps) * matrix[1],
            vectors: (output.pitch() * output.dims()[1]).div_ceil(self.isa.lanes()),
        };
        let kept = Some(Stored { stored: weight.stored(), total });
        let refused = |error: ConvError| refuse(error.to_string());
        let dense =
            |weight: Matrix| DenseConv::new(self.isa, &spec, &weight.into_dense()).map(Kernel::DenseConv);
        if !self.options.kernel.may_be_sparse(&candidate) {
            return Ok((dense(weight).map_err(refused)?, kept));
        }
        let csr = weight.into_csr(matrix);
        let sparse = SparseConv::new(self.isa, &spec, &csr).map_err(refused)?;
        let blocks = weights::has_blocks(&csr).then(|| BlockConv::new(self.isa, &spec, &csr).ok()).flatten();
        if !self.options.tune {
            return Ok((blocks.map_or(Kernel::SparseConv(sparse), Kernel::BlockConv), kept));
        }
        let place = Place { source, output, residual: group.other.is_some() };
        let layer = Layer::new(&place, &csr, group.activation);
        let tall = blocks.iter().flat_map(BlockConv::widths).map(Way::Blocks);
        let mut ways: Vec<Way> = tall.chain(sparse.widths().into_iter().map(Way::Sparse)).collect();
        ways.extend(
            (self.options.kernel == KernelChoice::Auto && self.may_be_dense(&csr)).then_some(Way::Dense),
        );
        let make = |way| match way {
            Way::Dense => dense(Matrix::Csr(csr.clone())).ok(),
            Way::Sparse(width) => Some(Kernel::SparseConv(sparse.clone().with_strip(width))),
            Way::Blocks(width) => blocks.clone().map(|conv| Kernel::BlockConv(conv.with_strip(width))),
        };
        let best = self.tuner.choose(layer, &place, &ways, make);
        Ok((best.unwrap_or(Kernel::SparseConv(sparse)), kept))
    }

    /// Whether a sparse weight with its zeros is worth a try: not where it would take an eighth of the memory allowed, of
    /// which no network that a file of its size holds has need.
    fn may_be_dense(&self, weight: &Csr) -> bool {
        let dense = 8 * weight.rows() as u64 * weight.cols() as u64;
        dense <= self.options.limits.memory / 8
    }

    fn linear(
        &self,
        group: &Group,
        matrix: [usize; 2],
        (weight, bias): (Matrix, Vec<f32>),
    ) -> (Kernel, Option<Stored>) {
        let kept = Stored { stored: weight.stored(), total: matrix[0] * matrix[1] };
        let sparse = match self.options.kernel {
            KernelChoice::Sparse => true,
            KernelChoice::Dense => false,
            // A gathered product is scalar: it pays when a vector of the dense one is mostly zeros.
            KernelChoice::Auto => kept.density() * (self.isa.lanes() as f64) < 1.0,
        };
        let kernel = if sparse {
            Kernel::SparseLinear(SparseLinear::new(
                self.isa,
                &weight.into_csr(matrix),
                &bias,
                group.activation,
            ))
        } else {
            Kernel::DenseLinear(DenseLinear::new(self.isa, &weight.into_dense(), &bias, group.activation))
        };
        (kernel, Some(kept))
    }
}

fn unsupported(node: &Node, reason: &str) -> RuntimeError {
    RuntimeError::Unsupported { node: node.name.clone(), reason: reason.to_owned() }
}

/// Refuses a pooling with windows that hold nothing but padding.
fn check_pool(node: &str, pool: &MaxPool2d) -> Result<MaxPool2d, RuntimeError> {
    let refuse = |reason| Err(RuntimeError::Unsupported { node: node.to_owned(), reason });
    let MaxPool2d { padding, kernel, .. } = pool;
    if (0..2).any(|axis| padding[axis] >= kernel[axis]) {
        return refuse(format!("padding {padding:?} leaves windows {kernel:?} empty"));
    }
    if kernel[1] > MAX_POOL_WINDOW {
        return refuse(format!("windows {kernel:?} are wider than {MAX_POOL_WINDOW}"));
    }
    Ok(pool.clone())
}
