//! The one place that prints: data to stdout, talk to stderr.
//!
//! Names of files, classes and layers come from strangers. So nothing that is printed holds a control character but
//! line breaks and tabs: whoever prints may forget that a name can clear the screen.

use std::io::{self, ErrorKind, Write};

use indicatif::MultiProgress;

use super::exit::{Exit, Failure, OrFail};
use crate::names;

/// Prints for every command.
#[derive(Clone, Debug)]
pub struct Printer {
    quiet: bool,
    bars: MultiProgress,
}

impl Printer {
    /// A printer that leaves out notes if `quiet`; its lines go above `bars`.
    pub fn new(quiet: bool, bars: MultiProgress) -> Self {
        Self { quiet, bars }
    }

    /// Writes data to stdout. A reader that has gone away ends the process without complaint.
    pub fn data(&self, text: &str) -> Result<(), Failure> {
        let text = names::lines(text);
        let mut stdout = io::stdout().lock();
        let written = self.bars.suspend(|| stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()));
        match written {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {
                std::process::exit(Exit::Success as i32);
            }
            other => other.or_io("could not write to stdout"),
        }
    }

    /// Writes a value to stdout as indented JSON.
    fn json(&self, value: &impl serde::Serialize) -> Result<(), Failure> {
        let text = serde_json::to_string_pretty(value).or_io("could not write JSON")?;
        self.data(&(names::json(&text) + "\n"))
    }

    /// Writes a value to stdout, as JSON or as the text that `table` makes of it.
    pub fn show<T: serde::Serialize>(
        &self,
        json: bool,
        value: &T,
        table: impl FnOnce(&T) -> String,
    ) -> Result<(), Failure> {
        if json { self.json(value) } else { self.data(&table(value)) }
    }

    /// Something worth knowing.
    pub fn note(&self, text: &str) {
        if !self.quiet {
            self.talk(text);
        }
    }

    /// Something to worry about; printed even if quiet.
    pub fn warn(&self, text: &str) {
        self.talk(&format!("warning: {text}"));
    }

    /// Why the command stops, as `error:`, `caused by:` and `hint:` lines.
    pub fn failure(&self, failure: &Failure) {
        self.talk(&describe(failure));
    }

    fn talk(&self, text: &str) {
        // There is nobody left to tell if stderr is closed.
        let text = names::lines(text);
        let _ = self.bars.suspend(|| writeln!(io::stderr().lock(), "{text}"));
    }
}

fn describe(failure: &Failure) -> String {
    let mut lines = vec![format!("error: {}", failure.error)];
    let mut last = failure.error.to_string();
    for cause in failure.error.chain().skip(1) {
        let text = cause.to_string().trim_end().to_owned();
        // Wrappers that quote their source would say the same twice.
        if !last.ends_with(&text) {
            lines.push(format!("  caused by: {text}"));
        }
        last = text;
    }
    lines.extend(failure.hint.iter().map(|hint| format!("hint: {hint}")));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_and_hints_have_their_lines() {
        let error = anyhow::anyhow!("inner").context("middle").context("outer");
        let failure = Failure { exit: Exit::BadInput, error, hint: Some("do this".into()) };
        assert_eq!(
            describe(&failure),
            "error: outer\n  caused by: middle\n  caused by: inner\nhint: do this"
        );
    }
}
