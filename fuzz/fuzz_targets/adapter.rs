#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| margay_fuzz::adapter(bytes));
