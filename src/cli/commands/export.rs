//! `margay export`: a model file in a format of other programs.

use std::io::Write as _;
use std::path::PathBuf;

use serde::Serialize;

use super::engine::{check_dense, read_adapted};
use crate::cli::Context;
use crate::cli::exit::{Exit, Failure, OrFail};
use crate::cli::limits::LimitArgs;
use crate::cli::output::OutputFile;
use crate::onnx::{OnnxOptions, to_onnx};

/// Writes a specialist as ONNX, for programs that run nothing else
///
/// The file holds every zero, so it is as large as the dense network, and engines that know no sparse weights run it
/// no faster. `margay bench --against` tells how they do.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  margay export out/specialist.margay -o specialist.onnx")]
pub struct ExportArgs {
    /// Model file written by `margay compress`
    #[arg(value_name = "MODEL")]
    model: PathBuf,
    /// Folder of an adapter that `margay adapt` made for this model
    #[arg(long, value_name = "FOLDER")]
    adapter: Option<PathBuf>,
    /// The file to write
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Replace that file if it exists
    #[arg(long)]
    force: bool,
    /// Version of the operator set
    #[arg(long, value_name = "N", default_value_t = 17, value_parser = opset)]
    opset: u8,
    /// Images per run, for engines that want to know [default: any number]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    batch: Option<u16>,
    #[command(flatten)]
    limits: LimitArgs,
    /// Print what was written as JSON
    #[arg(long)]
    json: bool,
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Exported {
    file: String,
    bytes: usize,
    opset: u8,
    inputs: &'static str,
    outputs: &'static str,
}

pub fn run(args: &ExportArgs, context: &Context) -> Result<Exit, Failure> {
    let limits = args.limits.limits();
    let model = read_adapted(&args.model, args.adapter.as_deref(), &limits)?;
    check_dense(&model, &limits)?;
    let mut file = OutputFile::create(&args.output, args.force, &context.printer)?;
    let options = OnnxOptions { opset: args.opset, batch: args.batch.map(usize::from) };
    let bytes = to_onnx(&model, &options).or_bad_input("could not write the model as ONNX")?;
    file.write_all(&bytes).or_io("could not write the output")?;
    file.commit()?;
    let exported = Exported {
        file: args.output.to_string_lossy().into_owned(),
        bytes: bytes.len(),
        opset: args.opset,
        inputs: "image",
        outputs: "logits",
    };
    let told = |it: &Exported| format!("{}: {} bytes, opset {}\n", it.file, it.bytes, it.opset);
    context.printer.show(args.json, &exported, told)?;
    Ok(Exit::Success)
}

fn opset(text: &str) -> Result<u8, String> {
    let known = crate::onnx::OPSETS;
    text.parse().ok().filter(|opset| known.contains(opset)).ok_or_else(|| format!("use one of {known:?}"))
}
