//! `margay report`: the HTML page of a run again, from its record.

use std::path::PathBuf;

use margay_core::input;

use crate::cli::Context;
use crate::cli::exit::{Exit, Failure, OrFail};
use crate::cli::output::OutputFile;
use crate::record::RunRecord;
use crate::report::{render, table};
use crate::thumbnails::thumbnails;

/// A record of this length has hundreds of thousands of photos.
const MAX_RECORD_BYTES: u64 = 1 << 30;

/// Renders the report of a run again from its run.json
///
/// Pictures are taken from the data folder of the run if it is still there.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  margay report out\n  margay report out --data photos-moved/ --out page.html"
)]
pub struct ReportArgs {
    /// Record written by `margay compress`, or the folder with it
    #[arg(value_name = "RUN")]
    run: PathBuf,
    /// Page to write [default: report.html beside the record, which is replaced]
    #[arg(short, long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Replace that page if it exists
    #[arg(long)]
    force: bool,
    /// Data folder of the run, if it has moved
    #[arg(short, long, value_name = "FOLDER")]
    data: Option<PathBuf>,
    /// Print the table instead of writing a page
    #[arg(long)]
    table: bool,
}

pub fn run(args: &ReportArgs, context: &Context) -> Result<Exit, Failure> {
    let path = if args.run.is_dir() { args.run.join("run.json") } else { args.run.clone() };
    let text = input::read_to_string(&path, MAX_RECORD_BYTES).or_bad_input("could not read the record")?;
    let record = RunRecord::from_json(&text).or_bad_input(&format!("{} is no run record", path.display()))?;
    if args.table {
        context.printer.data(&table(&record))?;
        return Ok(Exit::Success);
    }
    let root = args.data.clone().unwrap_or_else(|| PathBuf::from(&record.data.path));
    let pictures = thumbnails(&record, &root);
    if pictures.is_empty() && !record.changed.is_empty() {
        context.printer.note(&format!("no photos are found in {}: the page has none", root.display()));
    }
    let goal = args.out.clone().unwrap_or_else(|| path.with_file_name("report.html"));
    // The page beside the record is made of it, so nothing is lost.
    let replace = args.force || args.out.is_none();
    OutputFile::write(&goal, &render(&record, &pictures), replace, &context.printer)?;
    context.printer.note(&format!("report  {}", goal.display()));
    Ok(Exit::Success)
}
