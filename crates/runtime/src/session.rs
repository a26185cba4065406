use std::path::PathBuf;
use std::time::Instant;

use margay_core::{Limits, NodeId, Shape, SparseModel};
use margay_kernels::{Isa, Precision, Tensor, peak_bandwidth, peak_flops};
use rayon::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::RuntimeError;
use crate::plan::{Arena, KernelChoice, Plan};
use crate::profile::{Profile, StepProfile, summary};

/// How a model is run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionOptions {
    /// Threads; 0 means one per core. Outputs do not depend on it.
    pub threads: usize,
    /// Instruction set; without one, `MARGAY_ISA` or else the best of the CPU.
    pub isa: Option<Isa>,
    /// Kernels for layers with stored zeros.
    pub kernel: KernelChoice,
    /// How values are stored between layers.
    pub precision: Precision,
    /// Whether the fastest way to run each sparse layer, dense included, is found by trying, for some hundred
    /// milliseconds. Outputs do not depend on it.
    pub tune: bool,
    /// Folder where what was found is kept for the next opening, a small file per machine and model. Without one,
    /// nothing is read or written; a damaged or foreign file is measured anew.
    pub tune_cache: Option<PathBuf>,
    /// How much the session may take: a model that takes more is refused, and where not every thread can have buffers of
    /// its own, the threads share the work on each image. Outputs do not depend on it.
    pub limits: Limits,
}

impl Default for SessionOptions {
    fn default() -> Self {
        let (kernel, precision) = (KernelChoice::default(), Precision::default());
        Self {
            threads: 0,
            isa: None,
            kernel,
            precision,
            tune: true,
            tune_cache: None,
            limits: Limits::DEFAULT,
        }
    }
}

/// A model with its kernels, buffers and threads, ready to run.
///
/// With at least as many images as threads, each thread takes images of its own; with fewer, all threads
/// share the work on each image. Every output is summed in one fixed order, so neither the number of
/// threads nor the batch changes a bit of it. After the first run nothing is allocated.
#[derive(Debug)]
pub struct Session {
    pub(crate) plan: Plan,
    pub(crate) arenas: Vec<Arena>,
    pub(crate) pool: Option<ThreadPool>,
    pub(crate) threads: usize,
    pub(crate) options: SessionOptions,
}

/// A model that a session can run in the place of its own, such as its base with another adapter.
#[derive(Debug)]
pub struct Prepared(Plan);

impl Session {
    /// Plans `model`.
    pub fn new(model: &SparseModel, options: &SessionOptions) -> Result<Self, RuntimeError> {
        let isa = Isa::choose(options.isa)?;
        let threads = match options.threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            threads => threads,
        };
        let plan = Plan::new(model, isa, options, threads)?;
        let start = || ThreadPoolBuilder::new().num_threads(threads).build();
        let pool = (threads > 1).then(start).transpose();
        let pool = pool.map_err(|source| RuntimeError::Threads { threads, source })?;
        for step in &plan.steps {
            tracing::trace!(
                kernel = step.kernel.name(),
                density = step.density,
                "{}",
                step.names.join(" + ")
            );
        }
        tracing::debug!(%isa, threads, steps = plan.steps.len(), "planned {}", model.graph.architecture);
        let arenas = vec![Arena::new(&plan)];
        Ok(Self { plan, arenas, pool, threads, options: options.clone() })
    }

    /// Plans another model for this session, which goes on running its own.
    pub fn prepare(&self, model: &SparseModel) -> Result<Prepared, RuntimeError> {
        Plan::new(model, self.plan.isa, &self.options, self.threads).map(Prepared)
    }

    /// Exchanges the session's model with a prepared one. Models of one graph share buffers and threads: then
    /// nothing is copied, allocated or read.
    pub fn swap(&mut self, other: &mut Prepared) {
        let same_buffers = self.plan.has_buffers_of(&other.0);
        std::mem::swap(&mut self.plan, &mut other.0);
        if !same_buffers {
            self.arenas = vec![Arena::new(&self.plan)];
        }
    }

    /// Values of one image: channels · height · width.
    pub fn image_len(&self) -> usize {
        self.plan.image
    }

    /// Number of logits per image.
    pub fn classes(&self) -> usize {
        self.plan.classes
    }

    /// Instruction set of the kernels.
    pub fn isa(&self) -> Isa {
        self.plan.isa
    }

    /// Classifies a batch.
    ///
    /// `images` is `[batch, channels, height, width]`, row-major and normalised; `logits` is
    /// `[batch, classes]`.
    pub fn run(&mut self, images: &[f32], logits: &mut [f32]) -> Result<(), RuntimeError> {
        let batch = self.batch(images)?;
        let expected = batch * self.plan.classes;
        if logits.len() != expected {
            return Err(RuntimeError::OutputLength { expected, got: logits.len() });
        }
        if batch == 0 {
            return Ok(());
        }
        let (plan, threads) = (&self.plan, self.threads);
        match &self.pool {
            Some(pool) if batch >= threads && self.has_room(threads) => {
                self.arenas.resize_with(self.arenas.len().max(threads), || Arena::new(plan));
                let arenas = &mut self.arenas[..threads];
                pool.install(|| share_images(plan, arenas, images, logits));
            }
            Some(pool) => {
                let arena = &mut self.arenas[0];
                pool.install(|| each_image(plan, arena, images, logits, threads));
            }
            None => each_image(plan, &mut self.arenas[0], images, logits, 1),
        }
        Ok(())
    }

    /// Does `work` where parallel iterators use the session's threads.
    #[cfg(feature = "photos")]
    pub(crate) fn on_threads<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        match &self.pool {
            Some(pool) => pool.install(work),
            None => work(),
        }
    }

    /// Whether every thread can have buffers of its own.
    fn has_room(&self, threads: usize) -> bool {
        self.plan.arena_bytes().saturating_mul(threads as u64) <= self.options.limits.memory
    }

    /// The value of every node that is materialised (the last of each fused step), row-major without
    /// padding, `[batch, …]`.
    pub fn trace(&mut self, images: &[f32]) -> Result<Vec<(NodeId, Vec<f32>)>, RuntimeError> {
        self.batch(images)?;
        let (plan, arena) = (&self.plan, &mut self.arenas[0]);
        let outputs = || plan.steps.iter().filter_map(|s| s.nodes.last().map(|id| (*id, s)));
        let mut values: Vec<(NodeId, Vec<f32>)> = outputs().map(|(id, _)| (id, Vec::new())).collect();
        for image in images.chunks_exact(plan.image.max(1)) {
            arena.load(plan, image);
            let mut slots = values.iter_mut();
            for step in &plan.steps {
                arena.step(plan.isa, step, 1);
                if !step.nodes.is_empty() {
                    let value = row_major(arena.tensor(step.output), step.shape);
                    slots.by_ref().take(1).for_each(|slot| slot.1.extend_from_slice(&value));
                }
            }
        }
        Ok(values)
    }

    /// Times every step over `runs` runs, all threads sharing the work on each image.
    pub fn profile(&mut self, images: &[f32], runs: usize) -> Result<Profile, RuntimeError> {
        let batch = self.batch(images)?;
        let (plan, arena, threads) = (&self.plan, &mut self.arenas[0], self.threads);
        let mut times = vec![vec![0.0; runs]; plan.steps.len()];
        let mut totals = vec![0.0; runs];
        let mut measure = || {
            for run in 0..runs {
                let start = Instant::now();
                for image in images.chunks_exact(plan.image.max(1)) {
                    arena.load(plan, image);
                    for (step, times) in plan.steps.iter().zip(&mut times) {
                        let start = Instant::now();
                        arena.step(plan.isa, step, threads);
                        times[run] += 1e3 * start.elapsed().as_secs_f64();
                    }
                }
                totals[run] = 1e3 * start.elapsed().as_secs_f64();
            }
        };
        match &self.pool {
            Some(pool) => pool.install(measure),
            None => measure(),
        }
        let steps = plan.steps.iter().zip(&mut times).map(|(step, times)| {
            let [median_ms, min_ms] = summary(times);
            let (nodes, kernel) = (step.names.clone(), step.kernel.name().to_owned());
            let (shape, density, strip) = (step.shape.dims(), step.density, step.kernel.strip());
            let flops = 2.0 * step.stored as f64 * step.shape.positions() as f64;
            let bytes = arena.traffic(step) as f64;
            StepProfile { nodes, kernel, shape, density, strip, flops, bytes, median_ms, min_ms, rival: None }
        });
        let steps = steps.collect();
        let [median_ms, min_ms] = summary(&mut totals);
        let (peak_gflops, peak_gbytes) = (1e-9 * peak_flops(plan.isa), 1e-9 * peak_bandwidth());
        let precision = self.options.precision.to_string();
        Ok(Profile {
            isa: plan.isa.to_string(),
            precision,
            threads,
            batch,
            runs,
            median_ms,
            min_ms,
            peak_gflops,
            peak_gbytes,
            steps,
        })
    }

    pub(crate) fn batch(&self, images: &[f32]) -> Result<usize, RuntimeError> {
        let image = self.plan.image;
        match images.len().checked_rem(image) {
            Some(0) => Ok(images.len() / image),
            _ => Err(RuntimeError::InputLength { image, got: images.len() }),
        }
    }
}

/// The values of a tensor as its shape says: tokens, which lie feature by feature, token by token.
fn row_major(tensor: &Tensor, shape: Shape) -> Vec<f32> {
    let planar = tensor.to_dense();
    let Shape::Tokens { count, features } = shape else { return planar };
    (0..count).flat_map(|token| (0..features).map(move |f| f * count + token)).map(|i| planar[i]).collect()
}

fn each_image(plan: &Plan, arena: &mut Arena, images: &[f32], logits: &mut [f32], parts: usize) {
    let outputs = logits.chunks_exact_mut(plan.classes.max(1));
    for (image, logits) in images.chunks_exact(plan.image.max(1)).zip(outputs) {
        arena.infer(plan, image, logits, parts);
    }
}

/// Splits the batch over the arenas, one thread each.
fn share_images(plan: &Plan, arenas: &mut [Arena], images: &[f32], logits: &mut [f32]) {
    let share = (images.len() / plan.image.max(1)).div_ceil(arenas.len());
    let outputs = logits.par_chunks_mut((share * plan.classes).max(1));
    let inputs = images.par_chunks((share * plan.image).max(1));
    arenas.par_iter_mut().zip(inputs).zip(outputs).for_each(|((arena, images), logits)| {
        each_image(plan, arena, images, logits, 1);
    });
}
