//! Lets binaries and tests find libtorch without `LD_LIBRARY_PATH`.

use std::path::PathBuf;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    let torch = std::env::var_os("CARGO_FEATURE_TORCH").is_some();
    let linux = std::env::var("CARGO_CFG_TARGET_OS").is_ok_and(|os| os == "linux");
    if !(torch && linux) {
        return;
    }
    // `margay` calls nothing of libtorch. Inline functions of its headers, which the program and libtorch both define, would
    // still keep it in the link unless they are the program's own business.
    println!("cargo:rustc-link-arg-bin=margay=-Wl,--exclude-libs,ALL");
    // A moved clone still works: target/release/margay and target/debug/deps/it-… look beside target/.
    println!("cargo:rustc-link-arg=-Wl,-rpath,$ORIGIN/../../.libtorch/lib");
    println!("cargo:rustc-link-arg=-Wl,-rpath,$ORIGIN/../../../.libtorch/lib");
    if let Some(root) = std::env::var_os("LIBTORCH") {
        let root = PathBuf::from(root);
        let lib = root.canonicalize().unwrap_or(root).join("lib");
        println!("cargo:rustc-link-arg=-Wl,-rpath,{}", lib.display());
    }
}
