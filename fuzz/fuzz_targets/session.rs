#![no_main]

#[path = "../../core/tests/world/mod.rs"]
mod world;

libfuzzer_sys::fuzz_target!(|data: &[u8]| world::bodies::session(data));
