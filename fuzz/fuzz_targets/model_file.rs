//! What reads as a model must write back to a model that is equal.
//!
//! The checksum would stop every change; so each input is tried as it is and with its length and
//! checksum made right.
#![no_main]

use libfuzzer_sys::fuzz_target;
use margay_core::SparseModel;
use margay_core::model::seal;

fuzz_target!(|bytes: &[u8]| {
    let mut sealed = bytes.to_vec();
    seal(&mut sealed);
    for bytes in [bytes, &sealed] {
        if let Ok(model) = SparseModel::from_bytes(bytes) {
            let written = model.to_bytes().expect("a model that was read can be written");
            assert!(SparseModel::from_bytes(&written).is_ok_and(|again| again == model));
        }
    }
});
