//! `margay experiment`: sweeps, resumable, with their tables and plots.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use crate::cli::Context;
use crate::cli::exit::{Exit, Failure};
use crate::cli::output::{OutputFile, make_folder};
use crate::cli::settings::{adapter_names, check, check_device, read_text, suggestion};
use crate::experiment::{
    Experiment, ExperimentError, Plan, Results, Run, Shard, Summary, groups, markdown, plot, slug, splice,
};

/// Carries out the runs that a file describes and makes tables and plots of them
///
/// Each finished run is a line of OUT/runs.jsonl; the same command goes on where it was stopped. Writes
/// OUT/tables.md and OUT/plots/*.svg.
#[derive(Debug, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
#[command(after_help = "Example:
  margay experiment examples/recipes/rosa.toml --data checkpoints-and-photos/ --out rosa/ --dry-run
  margay experiment examples/recipes/rosa.toml --data checkpoints-and-photos/ --out rosa/
  margay experiment examples/recipes/rosa.toml --out rosa/ --tables --splice docs/results.md")]
pub struct ExperimentArgs {
    /// Experiment (TOML): checkpoints, tasks, a recipe and sweeps over them
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Folder that the paths in the file start from [default: that of the file]
    #[arg(short, long, value_name = "FOLDER")]
    data: Option<PathBuf>,
    /// Folder for results; finished runs in it are not done again [default: out/ and the experiment's name]
    #[arg(short, long, value_name = "FOLDER")]
    out: Option<PathBuf>,
    /// auto, cpu, cuda or cuda:n [default: as in the file, else auto]
    #[arg(long, value_name = "DEVICE", env = "MARGAY_DEVICE", hide_env_values = true)]
    device: Option<String>,
    /// Do every N-th group of runs only, such as 1/2, so that several processes can share OUT
    #[arg(long, value_name = "I/N")]
    shard: Option<Shard>,
    /// Do runs again that ended with an error
    #[arg(long)]
    retry_failed: bool,
    /// Measure the time per image, too
    #[arg(long)]
    latency: bool,
    /// Print what is done and what is left, and stop
    #[arg(long, conflicts_with_all = ["tables", "splice"])]
    dry_run: bool,
    /// Do no run: make tables and plots of those that are done
    #[arg(long)]
    tables: bool,
    /// Put the tables between this experiment's marks in a Markdown file, the plots in images/ beside it
    #[arg(long, value_name = "FILE")]
    splice: Option<PathBuf>,
    /// Print the summary (or the plan of a dry run) as JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: &ExperimentArgs, context: &Context) -> Result<Exit, Failure> {
    let (experiment, runs) = read(args, context)?;
    if let Some(path) = &args.splice {
        // A text without a place for the tables is told before hours of work.
        spliced(path, &experiment.about.name, "")?;
    }
    let out = args.out.clone().unwrap_or_else(|| Path::new("out").join(&experiment.about.name));
    let mut results = Results::read(&out).map_err(described)?;
    if args.retry_failed {
        results.forget_failures();
    }
    let mine = match args.shard {
        Some(shard) => shard.take(groups(runs.clone())),
        None => groups(runs.clone()),
    };
    if args.dry_run {
        context.printer.show(args.json, &Plan::new(&mine, &results), plan_text)?;
        return Ok(Exit::Success);
    }
    if !args.tables {
        carry_out(args, &out, &mine, &mut results, context)?;
    }
    let summary = Summary::new(&experiment, &runs, &results).map_err(described)?;
    publish(args, &out, &summary, context)?;
    Ok(if summary.failed.is_empty() { Exit::Success } else { Exit::GateFailed })
}

/// The experiment and its runs, every recipe checked.
fn read(args: &ExperimentArgs, context: &Context) -> Result<(Experiment, Vec<Run>), Failure> {
    let text = read_text(&args.file, "could not read the experiment")?;
    let experiment = Experiment::parse(&text).map_err(described)?;
    let mut runs = experiment.runs(&adapter_names().unwrap_or_default()).map_err(described)?;
    args.device.as_deref().map_or(Ok(()), check_device)?;
    for run in &mut runs {
        check(&run.recipe)?;
        if let Some(device) = &args.device {
            run.recipe.device.clone_from(device);
        }
        run.recipe.threads = context.threads.unwrap_or(run.recipe.threads);
    }
    Ok((experiment, runs))
}

#[cfg(not(feature = "torch"))]
fn carry_out(
    _: &ExperimentArgs,
    _: &Path,
    _: &[Vec<Run>],
    _: &mut Results,
    _: &Context,
) -> Result<(), Failure> {
    Err(super::without_torch::unavailable("experiment").hint("--tables and --dry-run work here"))
}

#[cfg(feature = "torch")]
use torch::carry_out;

#[cfg(feature = "torch")]
mod torch {
    use indicatif::{ProgressBar, ProgressStyle};

    use super::{Context, ExperimentArgs, Failure, Path, Results, Run, Shard, described, make_out};
    use crate::cli::exit::Exit;
    use crate::cli::printer::Printer;
    use crate::cli::progress::Bars;
    use crate::experiment::{Journal, Line, Outcome};
    use crate::pipeline::{self, ExperimentOptions};

    /// Does the runs that have no result yet.
    pub fn carry_out(
        args: &ExperimentArgs,
        out: &Path,
        groups: &[Vec<Run>],
        results: &mut Results,
        context: &Context,
    ) -> Result<(), Failure> {
        let beside = args.file.parent().unwrap_or(Path::new(""));
        let root = args.data.as_deref().unwrap_or(beside);
        let left = left(groups, results);
        check_files(&left, root)?;
        check_out(out)?;
        make_out(args, out)?;
        let file = args.shard.map_or_else(|| "runs.jsonl".to_owned(), Shard::file);
        let mut journal = Journal::open(&out.join(file)).map_err(described)?;
        let bar = bar(left.iter().map(Vec::len).sum::<usize>() as u64, context);
        // Notes on photos and shots would come once per group.
        let mut progress = Bars::new(Printer::new(true, context.bars.clone()), context.bars.clone());
        let options = ExperimentOptions { root, latency: args.latency };
        for group in &left {
            pipeline::experiment(group, &options, &mut progress, &mut |line: Line| {
                journal.append(&line).map_err(described)?;
                tell(&line, group, context);
                results.insert(line);
                bar.inc(1);
                Ok::<(), Failure>(())
            })?;
        }
        bar.finish_and_clear();
        context.printer.note(&format!("runs    {}", journal.path().display()));
        Ok(())
    }

    /// Runs without a result; groups without such a run are left out.
    fn left(groups: &[Vec<Run>], results: &Results) -> Vec<Vec<Run>> {
        let open = |group: &Vec<Run>| -> Vec<Run> {
            group.iter().filter(|run| results.get(&run.key).is_none()).cloned().collect()
        };
        groups.iter().map(open).filter(|group| !group.is_empty()).collect()
    }

    /// A path that is wrong is told before hours of work, not once per run.
    fn check_files(groups: &[Vec<Run>], root: &Path) -> Result<(), Failure> {
        for recipe in groups.iter().flatten().map(|run| run.recipe_in(root)) {
            let optional = [&recipe.labels, &recipe.general, &recipe.unlabelled].map(Option::as_ref);
            let paths = [Some(&recipe.model), Some(&recipe.data)].into_iter().chain(optional);
            if let Some(path) = paths.flatten().find(|path| !path.exists()) {
                let message = format!("there is no {}", path.display());
                let hint = "paths in the file start from --data, else from the file's own folder";
                return Err(Failure::new(Exit::BadInput, message).hint(hint));
            }
        }
        Ok(())
    }

    /// Tables of something else would be replaced.
    fn check_out(out: &Path) -> Result<(), Failure> {
        let tables = out.join("tables.md");
        if !tables.exists() || Results::has_any(out).map_err(described)? {
            return Ok(());
        }
        let message = format!("{} exists, but there are no runs beside it", tables.display());
        Err(Failure::new(Exit::Io, message).hint("choose another --out, or move the file"))
    }

    fn bar(runs: u64, context: &Context) -> ProgressBar {
        let template = "{prefix:<22} {bar:28} {pos}/{len}  {eta:>4} left";
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = context.bars.add(ProgressBar::new(runs).with_style(style).with_prefix("runs"));
        bar.tick();
        bar
    }

    /// A line on a finished run.
    fn tell(line: &Line, group: &[Run], context: &Context) {
        let title = group
            .iter()
            .find(|run| run.key == line.key)
            .map(Run::title)
            .expect("a line is of a run of its group");
        match &line.outcome {
            Outcome::Error(error) => context.printer.warn(&format!("{title}: {error}")),
            Outcome::Measured(measured) => {
                let percent = |top1: Option<f64>| 100.0 * top1.unwrap_or(f64::NAN);
                let [oneshot, top1] = [&measured.oneshot, &measured.specialist].map(|e| percent(e.top1));
                let seconds = measured.seconds.total();
                context.printer.note(&format!("{title}: {oneshot:.1} -> {top1:.1} %, {seconds:.0} s"));
            }
        }
    }
}

/// Writes tables and plots, and prints the tables.
fn publish(args: &ExperimentArgs, out: &Path, summary: &Summary, context: &Context) -> Result<(), Failure> {
    make_out(args, out)?;
    write(&out.join("tables.md"), &markdown(summary, "plots/"), context)?;
    plots(&out.join("plots"), summary, context)?;
    if let Some(path) = &args.splice {
        write(path, &spliced(path, &summary.name, &markdown(summary, "images/"))?, context)?;
        plots(&path.with_file_name("images"), summary, context)?;
    }
    context.printer.show(args.json, summary, |summary| markdown(summary, "plots/"))
}

/// A text with the tables between their marks.
fn spliced(path: &Path, name: &str, tables: &str) -> Result<String, Failure> {
    let text = read_text(path, "could not read the text")?;
    splice(&text, name, tables).map_err(described)
}

fn plots(folder: &Path, summary: &Summary, context: &Context) -> Result<(), Failure> {
    make_folder(folder)?;
    for group in &summary.groups {
        write(&folder.join(slug(summary, group) + ".svg"), &plot(summary, group), context)?;
    }
    Ok(())
}

/// Tables and plots are made of the runs, and made anew with each.
fn write(path: &Path, text: &str, context: &Context) -> Result<(), Failure> {
    OutputFile::write(path, text, true, &context.printer)
}

/// Makes the folder for results. Only that of the default path is made with the folder above it.
fn make_out(args: &ExperimentArgs, out: &Path) -> Result<(), Failure> {
    if args.out.is_none()
        && let Some(parent) = out.parent()
    {
        make_folder(parent)?;
    }
    make_folder(out)
}

/// An experiment's error with its exit code and a hint.
fn described(error: ExperimentError) -> Failure {
    let hint = match &error {
        ExperimentError::Toml(source) | ExperimentError::Recipe { source, .. } => {
            suggestion(source.message())
        }
        ExperimentError::Axis { nearest, .. }
        | ExperimentError::Name { nearest, .. }
        | ExperimentError::Curve { nearest, .. } => {
            nearest.as_ref().map(|near| format!("did you mean `{near}`?"))
        }
        ExperimentError::Marker(mark) => {
            Some(format!("write `{mark}` where the tables go, and its end behind it"))
        }
        ExperimentError::Busy(_) => {
            Some("wait for it, or share the runs with --shard 1/2 and 2/2".to_owned())
        }
        ExperimentError::Line { .. } => Some("remove the line: its run is then done again".to_owned()),
        _ => None,
    };
    let exit = match &error {
        ExperimentError::Io(_) | ExperimentError::Busy(_) => Exit::Io,
        ExperimentError::Line { .. } => Exit::BadInput,
        _ => Exit::Usage,
    };
    Failure { exit, error: error.into(), hint }
}

fn plan_text(plan: &Plan) -> String {
    let mut text = String::new();
    for run in &plan.left {
        let _ = writeln!(text, "{run}");
    }
    let Plan { runs, groups, done, failed, .. } = plan;
    let _ = writeln!(
        text,
        "{runs} runs on {groups} pruned networks: {done} done, {failed} failed, {} left",
        plan.left.len()
    );
    if let Some(seconds) = plan.seconds_left.filter(|_| !plan.left.is_empty()) {
        let _ = writeln!(text, "about {:.1} hours left, going by the runs that are done", seconds / 3600.0);
    }
    text
}
