//! What `compress`, `train` and `demo` share: the pipeline's errors and the end of a run.

use std::path::Path;

use margay_core::FormatError;

use crate::checkpoint::CheckpointError;
use crate::cli::Context;
use crate::cli::exit::{Exit, Failure, is_write_error};
use crate::pipeline::PipelineError;
use crate::record::RunRecord;
use crate::report::table;
use crate::world::WorldError;

/// What a run must reach.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bar {
    /// Least fraction of val that the specialist must get right.
    pub min_top1: Option<f64>,
    /// Whether unreadable photos count as a failure.
    pub strict: bool,
}

/// Gives the pipeline's errors their exit codes.
pub trait PipelineResult<T> {
    /// The value, or a failure with the exit code that fits.
    fn or_failure(self) -> Result<T, Failure>;
}

impl<T> PipelineResult<T> for Result<T, PipelineError> {
    fn or_failure(self) -> Result<T, Failure> {
        self.map_err(|error| Failure { exit: exit_of(&error), hint: None, error: error.into() })
    }
}

fn exit_of(error: &PipelineError) -> Exit {
    match error {
        PipelineError::Unknown { .. } | PipelineError::Device(_) => Exit::Usage,
        PipelineError::Parity { .. } => Exit::GateFailed,
        PipelineError::Text(_) => Exit::Io,
        error if is_write_error(error) || io_cause(error).is_some_and(|e| is_write_error(e)) => Exit::Io,
        _ => Exit::BadInput,
    }
}

/// The I/O error in an error that shows it as its own.
fn io_cause(error: &PipelineError) -> Option<&std::io::Error> {
    match error {
        PipelineError::Io(e)
        | PipelineError::Checkpoint(CheckpointError::Io(e))
        | PipelineError::Format(FormatError::Io(e))
        | PipelineError::World(WorldError::Io(e)) => Some(e),
        _ => None,
    }
}

/// Prints the outcome and holds it against the bar.
pub fn finish(
    record: &RunRecord,
    folder: &Path,
    bar: &Bar,
    json: bool,
    context: &Context,
) -> Result<Exit, Failure> {
    context.printer.show(json, record, table)?;
    context.printer.note(&format!("model   {}", folder.join("specialist.margay").display()));
    context.printer.note(&format!("report  {}", folder.join("report.html").display()));
    let bad = record.bad_photos.len();
    tell_photos(bad, record.noted_photos.len(), context);
    let top1 = record.specialist.top1.unwrap_or(0.0);
    if let Some(least) = bar.min_top1.filter(|least| top1 < *least) {
        context.printer.warn(&format!("top-1 {:.1} % is below {:.1} %", 100.0 * top1, 100.0 * least));
        return Ok(Exit::GateFailed);
    }
    Ok(if bar.strict && bad > 0 { Exit::BadPhotos } else { Exit::Success })
}

/// Warns of photos that are missing from a run, and of those that are in it as they are.
pub fn tell_photos(bad: usize, noted: usize, context: &Context) {
    if bad > 0 {
        context.printer.warn(&format!("{bad} photos could not be read; run.json lists them"));
    }
    if noted > 0 {
        let text = format!("{noted} photos are truncated or damaged and were used; run.json lists them");
        context.printer.warn(&text);
    }
}
