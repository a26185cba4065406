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
    /// Median time for all images of a run in milliseconds.
    pub median_ms: f64,
    /// Shortest time for all images of a run in milliseconds.
    pub min_ms: f64,
}

/// Median and minimum of some times.
pub(crate) fn summary(times: &mut [f64]) -> [f64; 2] {
    times.sort_by(f64::total_cmp);
    let middle = |i: usize| times.get(i).copied().unwrap_or(0.0);
    let n = times.len();
    [f64::midpoint(middle(n.saturating_sub(1) / 2), middle(n / 2)), middle(0)]
}
