use serde::Serialize;

/// Where the time of an inference goes.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Profile {
    /// Instruction set of the kernels.
    pub isa: String,
    /// How values are stored between layers.
    pub precision: String,
    /// Threads used.
    pub threads: usize,
    /// Images per run.
    pub batch: usize,
    /// Runs measured.
    pub runs: usize,
    /// Median time of a whole run in milliseconds.
    pub median_ms: f64,
    /// Shortest time of a whole run in milliseconds.
    pub min_ms: f64,
    /// Most that one core can compute, in 10⁹ f32 operations per second, a multiply-add being two: measured.
    pub peak_gflops: f64,
    /// Most that one core can read from memory, in 10⁹ bytes per second: measured.
    pub peak_gbytes: f64,
    /// Every step in execution order.
    pub steps: Vec<StepProfile>,
}

/// One step of a plan.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StepProfile {
    /// Names of the nodes it computes.
    pub nodes: Vec<String>,
    /// Kernel it runs on.
    pub kernel: String,
    /// Extents of its output for one image.
    pub shape: Vec<usize>,
    /// Fraction of its weight that is stored, if it has one.
    pub density: Option<f64>,
    /// Strip width of a sparse kernel, in vectors.
    pub strip: Option<usize>,
    /// Operations for one image: two per stored weight and output place, if it has a weight.
    pub flops: f64,
    /// Bytes that one image must at least move: inputs, output and stored weights with their positions.
    pub bytes: f64,
    /// Median time for all images of a run in milliseconds.
    pub median_ms: f64,
    /// Shortest time for all images of a run in milliseconds.
    pub min_ms: f64,
    /// The fastest other way to run a layer with zeros, where others were tried.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rival: Option<Rival>,
}

/// Another way to run a step, timed in turns with the one in use, one image at a time.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Rival {
    /// Kernel it runs on.
    pub kernel: String,
    /// Strip width of a sparse kernel, in vectors.
    pub strip: Option<usize>,
    /// Its shortest time in milliseconds.
    pub ms: f64,
    /// Shortest time of the way in use in milliseconds.
    pub chosen_ms: f64,
    /// Whether it is faster by more than a twentieth, which is about how well such times repeat.
    pub is_faster: bool,
}

impl Rival {
    pub(crate) fn new(kernel: &str, strip: Option<usize>, ms: f64, chosen_ms: f64) -> Self {
        Self { kernel: kernel.to_owned(), strip, ms, chosen_ms, is_faster: ms < 0.95 * chosen_ms }
    }
}

impl Profile {
    /// Share of the peak operations that a step reaches, of all threads' cores together.
    pub fn compute_share(&self, step: &StepProfile) -> f64 {
        self.share(step.flops, self.peak_gflops, step)
    }

    /// Share of the bandwidth of memory that a step would need if nothing stayed in a cache.
    pub fn memory_share(&self, step: &StepProfile) -> f64 {
        self.share(step.bytes, self.peak_gbytes, step)
    }

    fn share(&self, work: f64, peak: f64, step: &StepProfile) -> f64 {
        let possible = 1e6 * peak * self.threads as f64 * step.min_ms;
        work * self.batch as f64 / possible.max(f64::MIN_POSITIVE)
    }
}

/// Median and minimum of some times.
pub(crate) fn summary(times: &mut [f64]) -> [f64; 2] {
    times.sort_by(f64::total_cmp);
    let middle = |i: usize| times.get(i).copied().unwrap_or(0.0);
    let n = times.len();
    [f64::midpoint(middle(n.saturating_sub(1) / 2), middle(n / 2)), middle(0)]
}
