//! libtorch's CUDA part, which a plain link loses.

use std::path::PathBuf;

/// Loads `libtorch_cuda.so` for the whole process if it lies beside `libtorch_cpu.so`.
///
/// No symbol of ours refers to it, so the linker (`--as-needed`) drops it, and libtorch then reports
/// that there is no CUDA. Its constructors register the CUDA back end. Returns whether it was loaded;
/// call it before the first use of a device.
pub fn load_cuda_part() -> bool {
    library_folder().is_some_and(|folder| load(&folder.join("libtorch_cuda.so")))
}

#[cfg(unix)]
fn load(path: &std::path::Path) -> bool {
    use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};
    if !path.exists() {
        return false;
    }
    // SAFETY: the file comes from the same libtorch as libtorch_cpu.so, which is already loaded; its
    // constructors only register back ends, and it is never unloaded because the handle is leaked.
    match unsafe { Library::open(Some(path), RTLD_NOW | RTLD_GLOBAL) } {
        Ok(library) => {
            let _handle = library.into_raw();
            true
        }
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "libtorch's CUDA part does not load");
            false
        }
    }
}

#[cfg(not(unix))]
fn load(_path: &std::path::Path) -> bool {
    false
}

/// The folder from which this process has mapped `libtorch_cpu.so`.
fn library_folder() -> Option<PathBuf> {
    let maps = fs_err::read_to_string("/proc/self/maps").ok()?;
    let line = maps.lines().find(|line| line.ends_with("/libtorch_cpu.so"))?;
    let path = &line[line.find('/')?..];
    PathBuf::from(path).parent().map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_of_libtorch_is_found() {
        tch::manual_seed(0); // Keeps the library in the link.
        let folder = library_folder().expect("libtorch_cpu.so is mapped");
        assert!(folder.join("libtorch_cpu.so").exists());
        assert_eq!(load_cuda_part(), folder.join("libtorch_cuda.so").exists());
    }
}
