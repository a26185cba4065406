//! Milliseconds per image of networks that a run has made itself.

use std::time::{Duration, Instant};

use margay_core::{Limits, SparseModel};
use margay_runtime::{Session, SessionOptions};

use super::PipelineError;
use crate::record::Latency;

/// Options to run a network that this run has made itself: it is no stranger's file, so nothing is refused.
pub fn own_session(threads: usize) -> SessionOptions {
    SessionOptions { threads, limits: Limits::NONE, ..SessionOptions::default() }
}

/// Timed runs of each model.
const RUNS: usize = 30;
/// Warm-up and timing end after this long, whatever the number of runs.
const LIMIT: Duration = Duration::from_secs(10);

/// Milliseconds per image at batch 1, dense and sparse in turns in one process.
pub fn latency(
    dense: &SparseModel,
    sparse: &SparseModel,
    options: &SessionOptions,
) -> Result<Latency, PipelineError> {
    let mut sessions = [Session::new(dense, options)?, Session::new(sparse, options)?];
    let image: Vec<f32> = (0..sessions[0].image_len()).map(|i| ((i % 255) as f32 - 127.0) / 64.0).collect();
    let mut logits = vec![0.0; sessions[0].classes()];
    let mut times = [Vec::new(), Vec::new()];
    let started = Instant::now();
    for run in 0..=RUNS {
        for (session, times) in sessions.iter_mut().zip(&mut times) {
            let begun = Instant::now();
            session.run(&image, &mut logits)?;
            // The first run fills caches and allocates.
            if run > 0 {
                times.push(begun.elapsed().as_secs_f64() * 1e3);
            }
        }
        if run > 2 && started.elapsed() > LIMIT {
            break;
        }
    }
    for times in &mut times {
        times.sort_by(f64::total_cmp);
    }
    let range = |t: &[f64]| [t[0], t[t.len() - 1]];
    let [dense, sparse] = &times;
    Ok(Latency {
        dense: dense[dense.len() / 2],
        sparse: sparse[sparse.len() / 2],
        dense_range: range(dense),
        sparse_range: range(sparse),
        runs: dense.len(),
        batch: 1,
        threads: options.threads,
    })
}
