//! Time to open a ResNet-50 and the most memory that it takes.
//!
//! `cargo run --release -p margay-runtime --example footprint -- FILE [f32|bf16]`
//!
//! A file that does not exist is written first, at 95 % sparsity, by a run that measures nothing.

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
    for tune in [true, false] {
        let start = Instant::now();
        let model = SparseModel::read(path)?;
        let read = 1e3 * start.elapsed().as_secs_f64();
        let options = SessionOptions { threads: 1, precision, tune, ..SessionOptions::default() };
        let mut session = Session::new(&model, &options)?;
        let planned = 1e3 * start.elapsed().as_secs_f64() - read;
        drop(model);
        let mut logits = vec![0.0; session.classes()];
        session.run(&nets::noise(session.image_len(), 7), &mut logits)?;
        writeln!(out, "{precision}, tuned {tune}: read {read:.1} ms, planned {planned:.1} ms")?;
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let most = status.lines().find(|line| line.starts_with("VmHWM")).unwrap_or("VmHWM: unknown");
    writeln!(out, "largest resident set: {most}")?;
    Ok(())
}
