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
    /// Folder to write
    #[arg(short, long, value_name = "FOLDER", default_value = "demo-out")]
    out: PathBuf,
    /// Replace an earlier demo there
    #[arg(long)]
    force: bool,
    /// Print the run record as JSON
    #[arg(long)]
    json: bool,
}

#[cfg(not(feature = "torch"))]
pub fn run(args: &DemoArgs, context: &Context) -> Result<Exit, Failure> {
    let DemoArgs { out: _, force: _, json: _ } = args;
    let Context { .. } = context;
    Err(super::without_torch::unavailable("demo"))
}

#[cfg(feature = "torch")]
pub use torch::run;

#[cfg(feature = "torch")]
mod torch {
    use std::path::Path;

    use margay_core::input;
    use margay_core::output::Scratch;

    use super::{Context, DemoArgs, Exit, Failure};
    use crate::cli::commands::run::{Bar, PipelineResult, finish};
    use crate::cli::exit::OrFail;
    use crate::cli::output::{OutputDir, RECORD, make_folder};
    use crate::pipeline::{CompressOptions, compress, demo_recipe, demo_world};

    /// Far above what a demo draws.
    const MAX_BYTES: u64 = 1 << 30;
    /// Marks a folder as a drawn world.
    const GENERALIST: &str = "generalist.safetensors";

    pub fn run(args: &DemoArgs, context: &Context) -> Result<Exit, Failure> {
        make_folder(&args.out)?;
        let (world, result) = (args.out.join("world"), args.out.join("result"));
        let out = OutputDir::create(&result, args.force, RECORD, &context.printer)?;
        draw(&world, args.force, context)?;
        let recipe = demo_recipe(&world, context.threads());
        let options = CompressOptions::default();
        let record = compress(&recipe, out.path(), &options, &mut context.progress()).or_failure()?;
        let folder = out.commit()?;
        finish(&record, &folder, &Bar::default(), args.json, context)
    }

    /// Draws the world. One that is there stays if it is what would be drawn, such as after a kill.
    fn draw(world: &Path, force: bool, context: &Context) -> Result<(), Failure> {
        let mut progress = context.progress();
        if !force && world.join(GENERALIST).is_file() {
            let parent = world.parent().unwrap_or(Path::new(""));
            let drawn = Scratch::new(parent, "again").or_io("could not draw the photos")?;
            demo_world(drawn.path(), &mut progress).or_failure()?;
            if same(drawn.path(), world).or_io("could not compare the photos")? {
                return Ok(());
            }
            let message = format!("{} exists and is not what this version draws", world.display());
            let hint = "choose another --out, or pass --force to replace an earlier demo";
            return Err(Failure::new(Exit::Io, message).hint(hint));
        }
        let drawn = OutputDir::create(world, force, GENERALIST, &context.printer)?;
        demo_world(drawn.path(), &mut progress).or_failure()?;
        drawn.commit()?;
        Ok(())
    }

    /// Whether two folders, or two files, hold the same.
    fn same(one: &Path, other: &Path) -> std::io::Result<bool> {
        if !one.is_dir() || !other.is_dir() {
            return Ok(one.is_file()
                && other.is_file()
                && input::read(one, MAX_BYTES)? == input::read(other, MAX_BYTES)?);
        }
        let names = |folder: &Path| -> std::io::Result<Vec<_>> {
            let names = fs_err::read_dir(folder)?.map(|entry| Ok(entry?.file_name()));
            let mut names = names.collect::<std::io::Result<Vec<_>>>()?;
            names.sort();
            Ok(names)
        };
        let names_of_one = names(one)?;
        if names_of_one != names(other)? {
            return Ok(false);
        }
        for name in names_of_one {
            if !same(&one.join(&name), &other.join(&name))? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
