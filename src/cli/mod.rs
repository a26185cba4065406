//! The command line.
//!
//! One command is one function that returns an `Exit`. Data goes to stdout, talk to stderr, and
//! `printer::Printer` is the only place that prints.
//!
//! There are two programs. `margay` links no libtorch, so that it starts at once and predicts where there is none;
//! it hands commands that compute with libtorch to `margay-torch` beside it.

mod commands;
mod exit;
#[cfg(any(feature = "torch", test))]
mod inputs;
mod interrupt;
mod limits;
mod output;
mod printer;
mod progress;
mod settings;
#[cfg(feature = "torch")]
mod torch_program;

use std::path::Path;
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand};
use indicatif::{MultiProgress, ProgressDrawTarget};

#[cfg(feature = "torch")]
use crate::peers;
use crate::peers::StartLibtorch;
use commands::{
    adapt, bench, completions, compress, demo, eval, experiment, export, front, inspect, list, predict,
    report, train,
};
use exit::{Exit, Failure};
use printer::Printer;
use progress::Bars;

/// Turns a pretrained vision classifier and a few photos into a small, fast, sparse specialist
///
/// Compress once (with libtorch), then run the specialist on any CPU (without).
#[derive(Debug, Parser)]
#[command(name = "margay", bin_name = "margay", version, max_term_width = 100, after_help = exit::HELP)]
#[command(disable_help_subcommand = true, propagate_version = true, subcommand_required = true)]
pub struct Cli {
    #[command(flatten)]
    global: GlobalArgs,
    #[command(subcommand)]
    command: Command,
}

/// Options of every command.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Global options")]
struct GlobalArgs {
    /// CPU threads; 0 takes every core
    #[arg(long, global = true, value_name = "N", env = "MARGAY_THREADS", hide_env_values = true, value_parser = parse_threads)]
    threads: Option<usize>,
    /// Print nothing but data, warnings and errors
    #[arg(short, long, global = true)]
    quiet: bool,
    /// Draw no progress bars
    #[arg(long, global = true)]
    no_progress: bool,
    /// Tell more on stderr; twice for everything
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
}

#[derive(Debug, Subcommand)]
enum Command {
    Compress(Box<compress::CompressArgs>),
    Front(Box<front::FrontArgs>),
    Adapt(Box<adapt::AdaptArgs>),
    Train(Box<train::TrainArgs>),
    Predict(predict::PredictArgs),
    Eval(eval::EvalArgs),
    Bench(bench::BenchArgs),
    Export(export::ExportArgs),
    Inspect(inspect::InspectArgs),
    Report(report::ReportArgs),
    List(list::ListArgs),
    Experiment(experiment::ExperimentArgs),
    Demo(demo::DemoArgs),
    Completions(completions::CompletionsArgs),
}

#[cfg(feature = "torch")]
impl Command {
    /// Whether a command computes with libtorch, or lists what is built on it.
    fn needs_libtorch(&self) -> bool {
        match self {
            Self::Compress(_)
            | Self::Front(_)
            | Self::Adapt(_)
            | Self::Train(_)
            | Self::Demo(_)
            | Self::Experiment(_)
            | Self::List(_) => true,
            Self::Bench(args) => args.is_against_libtorch(),
            Self::Predict(_)
            | Self::Eval(_)
            | Self::Export(_)
            | Self::Inspect(_)
            | Self::Report(_)
            | Self::Completions(_) => false,
        }
    }
}

/// What every command needs besides its own arguments.
#[derive(Debug)]
struct Context {
    printer: Printer,
    bars: MultiProgress,
    threads: Option<usize>,
    /// libtorch as an engine to compare with, in the program that links it.
    libtorch: Option<StartLibtorch>,
}

impl Context {
    fn new(global: &GlobalArgs, libtorch: Option<StartLibtorch>) -> Self {
        let hidden = global.quiet || global.no_progress;
        let target = if hidden { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        let bars = MultiProgress::with_draw_target(target);
        let printer = Printer::new(global.quiet, bars.clone());
        Self { printer, bars, threads: global.threads, libtorch }
    }

    /// Bars for the stages of a command.
    fn progress(&self) -> Bars {
        Bars::new(self.printer.clone(), self.bars.clone())
    }

    /// Threads of the torch-free stages; 0 takes every core.
    fn threads(&self) -> usize {
        self.threads.unwrap_or(0)
    }
}

/// The program `margay`: runs the command that the process was started with, or hands it to `margay-torch`.
pub fn main() -> ExitCode {
    #[cfg(feature = "torch")]
    let run = |command: Command, context: &Context| {
        if command.needs_libtorch() {
            torch_program::replace_this()
        } else {
            without_libtorch(command, context)
        }
    };
    #[cfg(not(feature = "torch"))]
    let run = any;
    start(run, None)
}

/// The program `margay-torch`: runs the command that the process was started with.
#[cfg(feature = "torch")]
pub fn torch_main() -> ExitCode {
    start(any, Some(peers::libtorch))
}

fn start(
    run: impl Fn(Command, &Context) -> Result<Exit, Failure>,
    libtorch: Option<StartLibtorch>,
) -> ExitCode {
    let cli = Cli::try_parse().unwrap_or_else(|error| named(error).exit());
    interrupt::install();
    log_to_stderr(cli.global.verbose);
    let context = Context::new(&cli.global, libtorch);
    // Fails only if the pool exists already, which it does not before the first command.
    let _ = rayon::ThreadPoolBuilder::new().num_threads(context.threads()).build_global();
    let exit = run(cli.command, &context).unwrap_or_else(|failure| {
        context.printer.failure(&failure);
        failure.exit
    });
    ExitCode::from(exit as u8)
}

/// Every command. What this function names, `margay-torch` links; `main` must not name it where there is libtorch.
fn any(command: Command, context: &Context) -> Result<Exit, Failure> {
    match command {
        Command::Compress(args) => compress::run(&args, context),
        Command::Front(args) => front::run(&args, context),
        Command::Adapt(args) => adapt::run(*args, context),
        Command::Train(args) => train::run(&args, context),
        Command::Demo(args) => demo::run(&args, context),
        Command::Experiment(args) => experiment::run(&args, context),
        Command::List(args) => list::run(&args, context),
        command => without_libtorch(command, context),
    }
}

/// The commands that need no libtorch.
fn without_libtorch(command: Command, context: &Context) -> Result<Exit, Failure> {
    match command {
        Command::Predict(args) => predict::run(&args, context),
        Command::Eval(args) => eval::run(&args, context),
        Command::Bench(args) => bench::run(&args, context),
        Command::Export(args) => export::run(&args, context),
        Command::Inspect(args) => inspect::run(&args, context),
        Command::Report(args) => report::run(&args, context),
        Command::Completions(args) => completions::run(&args, &mut Cli::command(), context),
        Command::Compress(_)
        | Command::Front(_)
        | Command::Adapt(_)
        | Command::Train(_)
        | Command::Demo(_)
        | Command::Experiment(_)
        | Command::List(_) => unreachable!("`needs_libtorch` and `any` take these commands"),
    }
}

/// Adds to an error about a bare word which option it was meant for: a folder is photos, a file a checkpoint.
fn named(mut error: clap::Error) -> clap::Error {
    use clap::error::{ContextKind, ContextValue, ErrorKind};
    let word = match (error.kind(), error.get(ContextKind::InvalidArg)) {
        (ErrorKind::UnknownArgument, Some(ContextValue::String(word))) if !word.starts_with('-') => {
            word.clone()
        }
        _ => return error,
    };
    let option = if Path::new(&word).is_dir() { "--data" } else { "--model" };
    let tip = format!("name what it is, such as `{option} {word}`; --help lists the options").into();
    error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip]));
    error
}

fn log_to_stderr(verbose: u8) {
    let level = match verbose {
        0 => tracing::Level::WARN,
        1 => tracing::Level::INFO,
        _ => tracing::Level::TRACE,
    };
    tracing_subscriber::fmt().with_max_level(level).with_writer(std::io::stderr).without_time().init();
}

/// Far above what any machine has, and far below what the system refuses to start.
const MAX_THREADS: usize = 1024;

fn parse_threads(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(threads) if threads <= MAX_THREADS => Ok(threads),
        _ => Err(format!("give a number from 0 to {MAX_THREADS}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_shows_an_example() {
        for command in Cli::command().get_subcommands() {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains("margay "), "`{}` has no example", command.get_name());
        }
    }
}
