//! The `margay` command, without libtorch: it starts at once, and hands what needs libtorch to `margay-torch`.

use std::process::ExitCode;

fn main() -> ExitCode {
    margay::cli::main()
}
