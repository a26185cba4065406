//! `margay-torch`: the same command line in a program that links libtorch.
//!
//! Loading libtorch takes half a second and 120 MB, which `margay predict` would pay at every start for nothing.

use std::path::PathBuf;
use std::process::Command;

use super::exit::{Exit, Failure, OrFail};

/// Runs `margay-torch` with this process's arguments in its place; returns only if that fails.
pub fn replace_this() -> Result<Exit, Failure> {
    let program = beside_this()?;
    let mut arguments = std::env::args_os();
    let name = arguments.next();
    let mut command = Command::new(&program);
    command.args(arguments);
    instead(command, name).or_bad_input(&format!("could not start {}", program.display()))
}

#[cfg(unix)]
fn instead(mut command: Command, name: Option<std::ffi::OsString>) -> std::io::Result<Exit> {
    use std::os::unix::process::CommandExt;
    if let Some(name) = name {
        command.arg0(name);
    }
    Err(command.exec())
}

/// Where a process cannot become another one, it waits for it and ends as that ended.
#[cfg(not(unix))]
fn instead(mut command: Command, _name: Option<std::ffi::OsString>) -> std::io::Result<Exit> {
    let status = command.status()?;
    std::process::exit(status.code().unwrap_or(Exit::Interrupted as i32))
}

fn beside_this() -> Result<PathBuf, Failure> {
    let this = std::env::current_exe().or_bad_input("could not find the program itself")?;
    let program = this.with_file_name(format!("margay-torch{}", std::env::consts::EXE_SUFFIX));
    if program.is_file() {
        return Ok(program);
    }
    let message = format!("this command needs libtorch, and {} is not there", program.display());
    Err(Failure::new(Exit::BadInput, message)
        .hint("`make build` builds margay and margay-torch: keep both in one folder"))
}
