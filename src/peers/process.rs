use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde::Deserialize;

use super::{Engine, PeerError};

const SCRIPT: &str = include_str!("engine.py");
/// Of what an engine says before it gives up, the end is shown.
const TOLD: usize = 300;

/// An engine in a process of its own that has its network in memory.
#[derive(Debug)]
pub(super) struct Process {
    python: PathBuf,
    child: Child,
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
    version: String,
    logits: Vec<f64>,
}

#[derive(Deserialize)]
struct Ready {
    version: String,
    logits: Vec<f64>,
}

impl Process {
    /// Starts the script with these arguments and waits until the engine has run once.
    pub fn start(python: &Path, arguments: &[String]) -> Result<Self, PeerError> {
        let failed = |source| PeerError::Process { python: python.to_owned(), source };
        let mut child = Command::new(python)
            .args(["-c", SCRIPT])
            .args(arguments)
            // DeepSparse reports home unless it is told not to.
            .env("NM_DISABLE_ANALYTICS", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        let talk = child.stderr.take();
        // A full pipe would stop the engine.
        let talk = std::thread::spawn(move || {
            let mut text = Vec::new();
            talk.map(|mut talk| talk.read_to_end(&mut text));
            String::from_utf8_lossy(&text).into_owned()
        });
        let (Some(requests), Some(answers)) = (child.stdin.take(), child.stdout.take()) else {
            unreachable!("both were asked for")
        };
        let mut answers = BufReader::new(answers);
        let mut line = String::new();
        answers.read_line(&mut line).map_err(failed)?;
        let Ok(Ready { version, logits }) = serde_json::from_str(&line) else {
            let _ = child.kill();
            let _ = child.wait();
            return Err(PeerError::Engine(last_words(&talk.join().unwrap_or_default())));
        };
        Ok(Self { python: python.to_owned(), child, requests, answers, version, logits })
    }
}

impl Engine for Process {
    fn version(&self) -> &str {
        &self.version
    }

    fn logits(&self) -> &[f64] {
        &self.logits
    }

    fn run(&mut self) -> Result<f64, PeerError> {
        let failed = |source| PeerError::Process { python: self.python.clone(), source };
        let mut line = String::new();
        self.requests.write_all(b"run\n").and_then(|()| self.requests.flush()).map_err(failed)?;
        self.answers.read_line(&mut line).map_err(failed)?;
        line.trim().parse().map_err(|_| PeerError::Engine("it stopped answering".to_owned()))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The last line of what a process said, where Python puts the error.
fn last_words(talk: &str) -> String {
    let last = talk.lines().rev().map(str::trim).find(|line| !line.is_empty());
    let last = last.unwrap_or("it ended without a word");
    last.chars().take(TOLD).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_went_wrong_is_the_last_line() {
        let talk =
            "Traceback (most recent call last):\n  File\nModuleNotFoundError: No module named 'openvino'\n\n";
        assert_eq!(last_words(talk), "ModuleNotFoundError: No module named 'openvino'");
        assert_eq!(last_words(""), "it ended without a word");
    }

    #[test]
    fn an_interpreter_that_is_not_there_is_named() {
        let error = Process::start(Path::new("/nowhere/python"), &[]).unwrap_err();
        assert_eq!(error.to_string(), "could not run /nowhere/python");
    }
}
