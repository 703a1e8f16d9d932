//! Masking keeps the length, and changes nothing that the framer sees but values.
#![no_main]

use engine::{
    mcp::{Frame, Framer},
    privacy::{Masker, redact_argv},
};
use fuzz::Stream;
use libfuzzer_sys::fuzz_target;

fn comparable(mut frames: Vec<Frame>) -> Vec<Frame> {
    for frame in &mut frames {
        if let Frame::Message(message) = frame {
            message.line_hash = [0; 16];
        }
    }
    frames
}

fuzz_target!(|data: &[u8]| {
    let (mut on_raw, mut on_masked) = (Framer::new(false), Framer::new(false));
    let (mut raw, mut masked) = (Vec::new(), Vec::new());
    let mut masker = Masker::new(&[7; 32], false);
    Stream::new(data).pieces(|piece, gap| {
        let mut digests = Vec::new();
        let mut hidden = piece.to_vec();
        masker.mask(&mut hidden, &mut digests);
        for (raw, masked) in piece.iter().zip(&hidden) {
            assert!(raw == masked || matches!(masked, b'x' | b'1') && *raw != b'\n');
        }
        on_raw.push(piece, &digests, &mut raw);
        on_masked.push(&hidden, &digests, &mut masked);
        if let Some(n) = gap {
            masker.gap();
            on_raw.gap(n, &mut raw);
            on_masked.gap(n, &mut masked);
        }
    });
    assert_eq!(comparable(raw), comparable(masked));
    redact_argv(&mut data.to_vec());
});
