//! The `margay` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    margay::cli::main()
}
