//! Records of any bytes are decoded or refused.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(record) = engine::record::decode(data) {
        assert!(!format!("{record:?}").is_empty());
    }
});
