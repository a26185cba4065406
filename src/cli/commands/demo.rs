//! `margay demo`: the main job on a drawn camera-trap world and the built-in generalist.

use std::path::PathBuf;

use crate::cli::Context;
use crate::cli::exit::{Exit, Failure};

/// Compresses the built-in generalist for a few species of a drawn camera-trap world
///
/// Draws photos into FOLDER/world, then does what `margay compress` does with them and writes
/// FOLDER/result. Needs no downloads.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  margay demo --out demo-out")]
pub struct DemoArgs {
    /// Folder to write; an earlier demo there is replaced
    #[arg(short, long, value_name = "FOLDER", default_value = "demo-out")]
    out: PathBuf,
    /// Print the run record as JSON
    #[arg(long)]
    json: bool,
}

#[cfg(not(feature = "torch"))]
pub fn run(args: &DemoArgs, context: &Context) -> Result<Exit, Failure> {
    let DemoArgs { out: _, json: _ } = args;
    let Context { .. } = context;
    Err(super::without_torch::unavailable("demo"))
}

#[cfg(feature = "torch")]
pub fn run(args: &DemoArgs, context: &Context) -> Result<Exit, Failure> {
    use super::run::{Bar, PipelineResult, finish};
    use crate::cli::output_dir::{OutputDir, RECORD};
    use crate::pipeline::{CompressOptions, compress, demo_recipe, demo_world};

    let (world, result) = (args.out.join("world"), args.out.join("result"));
    let mut progress = context.progress();
    let drawn = OutputDir::create(&world, true, "generalist.safetensors")?;
    demo_world(drawn.path(), &mut progress).or_failure()?;
    drawn.commit()?;
    let recipe = demo_recipe(&world, context.threads());
    let out = OutputDir::create(&result, true, RECORD)?;
    let record = compress(&recipe, out.path(), &CompressOptions::default(), &mut progress).or_failure()?;
    let folder = out.commit()?;
    finish(&record, &folder, &Bar::default(), args.json, context)
}
