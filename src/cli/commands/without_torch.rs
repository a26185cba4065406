//! What the torch commands say in a build without libtorch.

use crate::cli::exit::Failure;

/// The command exists, but this build cannot run it.
pub fn unavailable(command: &str) -> Failure {
    Failure::usage(format!("`margay {command}` needs libtorch, and this build has none"))
        .hint("build with `make build` (the default features) to compress and train; predict, eval, bench, inspect and report work here")
}
