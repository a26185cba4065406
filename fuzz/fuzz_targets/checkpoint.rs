//! No file makes the reader of checkpoints panic. `tests/golden` is a good corpus.
#![no_main]

use libfuzzer_sys::fuzz_target;
use margay::checkpoint::Checkpoint;

fuzz_target!(|bytes: &[u8]| {
    let Ok(folder) = tempfile::tempdir() else { return };
    let path = folder.path().join("input");
    if std::fs::write(&path, bytes).is_ok() {
        if let Ok(checkpoint) = Checkpoint::open(&path) {
            let _ = checkpoint.into_model([32, 32]);
        }
    }
});
