//! Times two region adapters over one sparse ResNet-50 at 224².
//!
//! `taskset -c 1 cargo run --release -p margay-runtime --example swap_adapters -- [sparsity] [rank] [density]`

use std::io::Write as _;
use std::time::Instant;

use margay_runtime::{Session, SessionOptions};

#[path = "../tests/it/nets/mod.rs"]
mod nets;

/// Repetitions of each step.
const RUNS: usize = 21;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut out = std::io::stdout().lock();
    let args: Vec<String> = std::env::args().skip(1).collect();
    let sparsity: f64 = args.first().map_or(Ok(0.95), |a| a.parse())?;
    let rank: usize = args.get(1).map_or(Ok(4), |a| a.parse())?;
    let density: f64 = args.get(2).map_or(Ok(0.06), |a| a.parse())?;
    let base = nets::pack(&nets::resnet::resnet50()?, sparsity)?;
    let adapters = [nets::adapter(&base, rank, density, 1)?, nets::adapter(&base, rank, density, 2)?];
    let (merged, merge) = median(|| adapters[0].apply(&base))?;
    let north = merged;
    let south = adapters[1].apply(&base)?;
    let options = SessionOptions { threads: 1, ..SessionOptions::default() };
    let mut session = Session::new(&base, &options)?;
    let (mut first, prepare) = median(|| session.prepare(&north))?;
    let mut second = session.prepare(&south)?;
    let image = nets::noise(session.image_len(), 7);
    let logits = |session: &mut Session| -> Result<Vec<f32>, margay_runtime::RuntimeError> {
        let mut logits = vec![0.0; session.classes()];
        session.run(&image, &mut logits)?;
        Ok(logits)
    };
    let alone = [&north, &south].map(|model| logits(&mut Session::new(model, &options)?));
    let [alone_north, alone_south] = alone;
    session.swap(&mut first);
    let equal = logits(&mut session)? == alone_north?;
    let mut times = Vec::new();
    for _ in 0..RUNS {
        let started = Instant::now();
        session.swap(&mut second);
        times.push(1e3 * started.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    let equal = equal && logits(&mut session)? == alone_south?;
    let values = adapters[0].values();
    writeln!(out, "ResNet-50, {:.0} % sparse, adapter of rank {rank}: {values} values", 100.0 * sparsity)?;
    writeln!(out, "merge with the base  {merge:8.3} ms")?;
    writeln!(out, "prepare to run       {prepare:8.3} ms")?;
    writeln!(out, "swap                 {:8.5} ms", times[RUNS / 2])?;
    writeln!(out, "answers equal those of separately merged models: {equal}")?;
    Ok(())
}

/// The last result and the median time in milliseconds.
fn median<T, E>(mut step: impl FnMut() -> Result<T, E>) -> Result<(T, f64), E> {
    let mut times = Vec::new();
    loop {
        let started = Instant::now();
        let value = step()?;
        times.push(1e3 * started.elapsed().as_secs_f64());
        if times.len() == RUNS {
            times.sort_by(f64::total_cmp);
            return Ok((value, times[RUNS / 2]));
        }
    }
}
