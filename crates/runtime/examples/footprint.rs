//! Time to open a ResNet-50 and the most memory that it takes.
//!
//! `cargo run --release -p margay-runtime --example footprint -- FILE [f32|bf16]`
//!
//! A file that does not exist is written first, at 95 % sparsity, by a run that measures nothing. Opening is timed with
//! kernels found by trying, with those that the opening before kept in a folder, and without trying.

use std::io::Write as _;
use std::path::Path;
use std::time::Instant;

use margay_core::SparseModel;
use margay_runtime::{Precision, Session, SessionOptions};

#[path = "../tests/it/nets/mod.rs"]
mod nets;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut out = std::io::stdout().lock();
    let args: Vec<String> = std::env::args().skip(1).collect();
    let path = Path::new(args.first().ok_or("a file is needed")?);
    let precision = args.get(1).map_or(Ok(Precision::F32), |name| name.parse())?;
    if !path.exists() {
        nets::pack(&nets::resnet::resnet50()?, 0.95)?.write(path)?;
        writeln!(out, "wrote {}", path.display())?;
        return Ok(());
    }
    let folder = std::env::temp_dir().join(format!("margay-footprint-{}", std::process::id()));
    for (what, tune, cache) in [
        ("tuned", true, None),
        ("tuned, kept", true, Some(&folder)),
        ("tuned, known", true, Some(&folder)),
        ("untuned", false, None),
    ] {
        let start = Instant::now();
        let model = SparseModel::read(path)?;
        let read = 1e3 * start.elapsed().as_secs_f64();
        let tune_cache = cache.cloned();
        let options = SessionOptions { threads: 1, precision, tune, tune_cache, ..SessionOptions::default() };
        let mut session = Session::new(&model, &options)?;
        let planned = 1e3 * start.elapsed().as_secs_f64() - read;
        drop(model);
        let mut logits = vec![0.0; session.classes()];
        session.run(&nets::noise(session.image_len(), 7), &mut logits)?;
        writeln!(out, "{precision}, {what}: read {read:.1} ms, planned {planned:.1} ms")?;
    }
    std::fs::remove_dir_all(&folder)?;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let most = status.lines().find(|line| line.starts_with("VmHWM")).unwrap_or("VmHWM: unknown");
    writeln!(out, "largest resident set: {most}")?;
    Ok(())
}
