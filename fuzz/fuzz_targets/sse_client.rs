#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tokentape_fuzz::sse_client(data));
