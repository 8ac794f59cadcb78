#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tokentape_fuzz::tape_reader(data));
