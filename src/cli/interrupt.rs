//! Ctrl-C and its kin: remove what is half-written, then end the process with 128 and the signal's number.
//!
//! Outputs are written under temporary names that are known to [`margay_core::output`], which removes them.

use std::io::Write as _;

use margay_core::output;

use super::exit::Exit;

/// Installs the handler for SIGINT, SIGTERM and SIGHUP. One that is ignored when the process starts stays so, as under
/// `nohup`.
#[cfg(unix)]
pub fn install() {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};

    // Where a file may not grow further, the write fails and is reported.
    ignore(SIGXFSZ);
    let heeded = [SIGINT, SIGTERM, SIGHUP].into_iter().filter(|signal| !is_ignored(*signal));
    // Fails only where threads or pipes have run out; the signals then end the process as they do any other.
    let Ok(mut signals) = signal_hook::iterator::Signals::new(heeded) else { return };
    let wait = move || match signals.forever().next() {
        Some(SIGTERM) => stop(Exit::Terminated),
        Some(SIGHUP) => stop(Exit::HungUp),
        Some(_) => stop(Exit::Interrupted),
        None => {}
    };
    let _ = std::thread::Builder::new().name("signals".to_owned()).spawn(wait);
}

/// Installs the handler for Ctrl-C.
#[cfg(not(unix))]
pub fn install() {
    // Fails only if a handler is there already, which then stays.
    let _ = ctrlc::try_set_handler(|| stop(Exit::Interrupted));
}

fn stop(exit: Exit) -> ! {
    output::discard_all();
    // The terminal may be gone.
    let _ = writeln!(std::io::stderr(), "\ninterrupted");
    end(exit as i32)
}

#[cfg(unix)]
fn end(code: i32) -> ! {
    // SAFETY: `_exit` takes no pointers and may be called from any thread; it skips the destructors of
    // libtorch, which must not run while its threads still compute.
    unsafe { libc::_exit(code) }
}

#[cfg(not(unix))]
fn end(code: i32) -> ! {
    std::process::exit(code)
}

#[cfg(unix)]
fn is_ignored(signal: libc::c_int) -> bool {
    let mut action = std::mem::MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: a null action changes nothing; the other pointer is valid for writing one `sigaction`, of which any bits,
    // zeros included, are a value.
    let action = unsafe {
        libc::sigaction(signal, std::ptr::null(), action.as_mut_ptr());
        action.assume_init()
    };
    action.sa_sigaction == libc::SIG_IGN
}

#[cfg(unix)]
fn ignore(signal: libc::c_int) {
    // SAFETY: ignoring a signal runs no code of ours, and no other thread has been started yet.
    unsafe { libc::signal(signal, libc::SIG_IGN) };
}
