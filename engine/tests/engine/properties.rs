//! Whatever the bytes, the engine does not panic; and the same inputs give the same outputs.

use crate::common::{ROOT, World};
use engine::{Engine, Input, recording};
use proptest::prelude::*;

/// A record of any kind, mostly with a plausible header, then anything.
fn record() -> impl Strategy<Value = Vec<u8>> {
    let header = (0_u16..17, 0_u32..16, 98_u32..104, 0_u64..3);
    (header, proptest::collection::vec(any::<u8>(), 0..400)).prop_map(|((kind, flags, tgid, tree), rest)| {
        use zerocopy::IntoBytes as _;
        let header = abi::Header {
            abi: abi::ABI,
            kind,
            flags,
            tgid,
            tree: crate::common::TREE + tree,
            at_ns: 1,
            ..abi::Header::default()
        };
        [header.as_bytes(), &rest].concat()
    })
}

proptest! {
    #[test]
    fn any_records_are_survived(records in proptest::collection::vec(record(), 1..60)) {
        let mut w = World::server();
        w.call(1, "a");
        for r in &records {
            w.feed(r);
        }
        w.wait(30);
    }

    #[test]
    fn any_recording_is_an_error_or_inputs(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let mut file = recording::header();
        file.extend(&bytes);
        let mut reader = recording::Reader::new(&file).expect("the header is right");
        let mut engine = Engine::new();
        let mut out = Vec::new();
        while let Ok(Some(input)) = reader.next() {
            engine.apply(input, &mut out);
        }
    }

    #[test]
    fn replay_gives_the_same_outputs(steps in proptest::collection::vec(0_u8..8, 1..40)) {
        let run = || {
            let mut w = World::server();
            for (i, step) in steps.iter().enumerate() {
                let id = i as u64 + 1;
                match step {
                    0 | 1 => w.call(id, if *step == 0 { "a" } else { "b" }),
                    2 => w.reply(id.saturating_sub(2)),
                    3 => w.fork(ROOT, 200 + i as u32),
                    4 => w.wait(10),
                    5 => w.close(),
                    _ => {
                        w.open(ROOT, "f");
                    }
                }
            }
            w.outputs
        };
        prop_assert_eq!(run(), run());
    }
}

#[test]
fn what_is_written_is_read() {
    let fact = engine::input::Fact::Lost { cause: "x".into(), total: 3 };
    let digests = [[7; 16], [9; 16]];
    let inputs = [
        Input::Record { bytes: b"abc", digests: &digests },
        Input::Tick { now_ns: 5 },
        Input::Fact { now_ns: 6, fact: &fact },
        Input::Record { bytes: b"", digests: &[] },
    ];
    let mut file = recording::header();
    inputs.iter().for_each(|i| recording::write(*i, &mut file));
    let mut reader = recording::Reader::new(&file).expect("a recording");
    for wanted in inputs {
        let got = reader.next().expect("whole").expect("one more");
        assert_eq!(format!("{got:?}"), format!("{wanted:?}"));
    }
    assert!(reader.next().expect("the end").is_none());
    // Cut anywhere within the frames, it says so and where.
    for end in recording::header().len() + 1..file.len() {
        let mut reader = recording::Reader::new(&file[..end]).expect("the header is whole");
        let error = loop {
            match reader.next() {
                Ok(Some(_)) => {}
                Ok(None) => break None,
                Err(e) => break Some(e.to_string()),
            }
        };
        // At a frame's edge nothing is missing.
        assert!(error.is_none_or(|e| e.contains("cut short: the frame at byte")));
    }
    assert!(
        recording::Reader::new(b"TWREC\n\xff\xff")
            .expect_err("another version")
            .to_string()
            .contains("0xffff")
    );
}
