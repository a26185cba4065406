//! Exit codes and how an error finds its own.

use std::error::Error;
use std::io::ErrorKind;

use margay_core::output::OutputError;

/// How the process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Everything went well.
    Success = 0,
    /// The result misses a bar that was asked for.
    GateFailed = 1,
    /// The command line or the recipe is wrong.
    Usage = 2,
    /// A model, a data folder or another input cannot be used.
    BadInput = 3,
    /// Finished, but some photos were unreadable; only with `--strict`.
    BadPhotos = 4,
    /// Output could not be written.
    Io = 5,
    /// The terminal has gone (SIGHUP).
    #[cfg(unix)]
    HungUp = 129,
    /// Ctrl-C.
    Interrupted = 130,
    /// SIGTERM.
    #[cfg(unix)]
    Terminated = 143,
}

/// The section on exit codes of `margay --help`.
pub const HELP: &str = "Exit codes:
  0    success
  1    a quality gate failed (--min-top1, parity), or a run of an experiment failed
  2    wrong usage or recipe
  3    a model, data folder or other input cannot be used
  4    finished, but some photos were unreadable (with --strict; else 0 and a warning)
  5    output could not be written (disk full, OUT exists, ...), or has another name than asked for
  130  interrupted (143 by SIGTERM, 129 by SIGHUP); nothing half-written is left behind";

/// Why a command stops: the error, its exit code and what to do about it.
#[derive(Debug)]
pub struct Failure {
    /// How the process ends.
    pub exit: Exit,
    /// What went wrong, outermost first.
    pub error: anyhow::Error,
    /// How to go on.
    pub hint: Option<String>,
}

impl Failure {
    /// A failure with a message of its own.
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, error: anyhow::Error::msg(message.into()), hint: None }
    }

    /// The command line or the recipe is wrong.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    /// Adds what the user can do.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// Gives errors their exit code.
pub trait OrFail<T> {
    /// The error is one of the command line or the recipe.
    fn or_usage(self, context: &str) -> Result<T, Failure>;
    /// The error is one of an input, unless a write failed.
    fn or_bad_input(self, context: &str) -> Result<T, Failure>;
    /// The error is one of writing.
    fn or_io(self, context: &str) -> Result<T, Failure>;
}

impl<T, E: Into<anyhow::Error>> OrFail<T> for Result<T, E> {
    fn or_usage(self, context: &str) -> Result<T, Failure> {
        self.map_err(|error| failure(Exit::Usage, error.into(), context))
    }

    fn or_bad_input(self, context: &str) -> Result<T, Failure> {
        self.map_err(|error| {
            let error = error.into();
            let exit = if is_write_error(error.as_ref()) { Exit::Io } else { Exit::BadInput };
            failure(exit, error, context)
        })
    }

    fn or_io(self, context: &str) -> Result<T, Failure> {
        self.map_err(|error| failure(Exit::Io, error.into(), context))
    }
}

fn failure(exit: Exit, error: anyhow::Error, context: &str) -> Failure {
    Failure { exit, error: error.context(context.to_owned()), hint: None }
}

/// Whether an error or one of its causes can only come from writing.
pub fn is_write_error(error: &(dyn Error + 'static)) -> bool {
    use ErrorKind::{QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    let of_writing =
        |e: &std::io::Error| matches!(e.kind(), StorageFull | QuotaExceeded | ReadOnlyFilesystem);
    std::iter::successors(Some(error), |e| (*e).source())
        .any(|e| OutputError::is_in(e) || e.downcast_ref().is_some_and(of_writing))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_no_bad_input() {
        let full = std::io::Error::from(ErrorKind::StorageFull);
        let missing = std::io::Error::from(ErrorKind::NotFound);
        assert_eq!(Err::<(), _>(full).or_bad_input("x").unwrap_err().exit, Exit::Io);
        assert_eq!(Err::<(), _>(missing).or_bad_input("x").unwrap_err().exit, Exit::BadInput);
    }
}
