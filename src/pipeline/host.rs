//! Time and memory of the process.

use super::PipelineError;
use crate::record::Stages;

/// Largest resident set of this process so far, where the system tells.
pub fn peak_rss_bytes() -> Option<u64> {
    let status = fs_err::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

/// Lets [`peak_rss_bytes`] count from now on, where the system can.
pub fn reset_peak_rss() {
    let _ = fs_err::write("/proc/self/clear_refs", "5");
}

/// Adds the time of `work` to a stage.
pub fn timed<T>(
    seconds: &mut Stages,
    stage: &str,
    work: impl FnOnce() -> Result<T, PipelineError>,
) -> Result<T, PipelineError> {
    let started = std::time::Instant::now();
    let result = work();
    seconds.add(stage, started.elapsed().as_secs_f64());
    result
}
