//! `margay completions`: shell completions on stdout.

use clap_complete::Shell;

use crate::cli::Context;
use crate::cli::exit::{Exit, Failure};

/// Prints completions for a shell
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  margay completions bash > ~/.local/share/bash-completion/completions/margay"
)]
pub struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

pub fn run(args: &CompletionsArgs, command: &mut clap::Command, context: &Context) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, command, "margay", &mut script);
    context.printer.data(&String::from_utf8_lossy(&script))?;
    Ok(Exit::Success)
}
