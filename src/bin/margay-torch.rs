//! The `margay` command with libtorch. Users start `margay`, which starts this where it is needed.

use std::process::ExitCode;

fn main() -> ExitCode {
    margay::cli::torch_main()
}
