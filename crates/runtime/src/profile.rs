use serde::Serialize;

/// Where the time of an inference goes.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Profile {
    /// Instruction set of the kernels.
    pub isa: String,
    /// Threads used.
    pub threads: usize,
    /// Images per run.
    pub batch: usize,
    /// Runs measured.
    pub runs: usize,
    /// Median time of a whole run in milliseconds.
    pub median_ms: f64,
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
}

/// Median of some times.
pub(crate) fn median(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    match times {
        [] => 0.0,
        _ => f64::midpoint(times[(times.len() - 1) / 2], times[times.len() / 2]),
    }
}
