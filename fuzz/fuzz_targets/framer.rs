//! The framer holds little, and frames the same however the bytes are split.
#![no_main]

use engine::mcp::{Frame, Framer};
use fuzz::Stream;
use libfuzzer_sys::fuzz_target;

/// What a framer may hold: 512 tool names and 64 arguments, all as long as they may be.
const BOUND: usize = 1 << 20;

fn frames(stream: &Stream<'_>, gaps: bool) -> Vec<Frame> {
    let mut framer = Framer::new(true);
    let mut out = Vec::new();
    stream.pieces(|piece, gap| {
        framer.push(piece, &[], &mut out);
        if let Some(n) = gap.filter(|_| gaps) {
            framer.gap(n, &mut out);
        }
        assert!(framer.held() < BOUND, "{} bytes held", framer.held());
    });
    // Whatever came before: the next line counts.
    framer.push(b"\n{\"id\":1}\n", &[], &mut out);
    assert_eq!(framer.pending(), 0);
    assert!(matches!(out.last(), Some(Frame::Message(message)) if message.bytes == 8));
    out
}

fuzz_target!(|data: &[u8]| {
    let stream = Stream::new(data);
    frames(&stream, true);
    let mut whole = Vec::new();
    let mut framer = Framer::new(true);
    framer.push(stream.bytes, &[], &mut whole);
    framer.push(b"\n{\"id\":1}\n", &[], &mut whole);
    assert_eq!(frames(&stream, false), whole);
});
