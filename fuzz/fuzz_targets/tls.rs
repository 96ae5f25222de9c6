#![no_main]

#[path = "../../tls/tests/body/mod.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|data: &[u8]| body::machine(data));
