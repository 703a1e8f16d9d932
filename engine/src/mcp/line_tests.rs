//! Lines, batches, gaps, and what must not blow up.

use super::{Frame, Framer, Id, Message, tests::frames};

enum Piece<'a> {
    Bytes(&'a str),
    Gap(u64),
}

fn pieces(pieces: &[Piece<'_>]) -> Vec<Frame> {
    let mut framer = Framer::new(false);
    let mut out = Vec::new();
    for piece in pieces {
        match piece {
            Piece::Bytes(bytes) => framer.push(bytes.as_bytes(), &[], &mut out),
            Piece::Gap(n) => framer.gap(*n, &mut out),
        }
    }
    out
}

/// In short: `id method cut` of messages, `g<bytes>` of garbage.
fn short(frames: &[Frame]) -> Vec<String> {
    frames
        .iter()
        .map(|frame| match frame {
            Frame::NotJson => "not json".into(),
            Frame::Garbage { bytes } => format!("g{bytes}"),
            Frame::Message(message) => {
                let Message { id, method, cut, batch, .. } = &**message;
                let id = id.as_ref().map_or("-".into(), Id::to_string);
                let method = method.as_deref().unwrap_or("-");
                let flag = |set, text| if set { text } else { "" };
                format!("{id} {method}{}{}", flag(*cut, " cut"), flag(*batch, " batch"))
            }
        })
        .collect()
}

#[test]
fn lines() {
    for (bytes, expected) in [
        ("{}\n{\"id\":1}\n", &["- -", "1 -"][..]),
        ("\n\r\n  \n{\"id\":1}\r\n", &["1 -"]),
        ("{\"id\":1}", &[]),
        ("hello\n{\"id\":1}\n", &["not json", "g5", "1 -"]),
        ("{\"id\":1}\nhello\n", &["1 -", "g5"]),
        ("Content-Length: 2\r\n\r\n{}", &["not json", "g18"]),
        ("[INFO] hi\n{\"id\":1}\n", &["g9", "1 -"]),
        ("{\"id\":1}{\"id\":2}\n", &["g16"]),
        ("{\"id\":1},\n", &["g9"]),
        ("{\"id\":1\n}\n", &["g7", "g1"]),
        ("{\"id\":\"a\nb\"}\n", &["g8", "g3"]),
        ("{\"a\":\"\\\n{\"id\":1}\n", &["g7", "1 -"]),
        ("{\"id\":1]\n", &["g8"]),
        ("{\"a\":[1}}\n", &["g9"]),
        ("{\"id\" 1}\n", &["g8"]),
        ("{\"id\":1,}\n", &["g9"]),
        ("{\"id\":,}\n", &["g8"]),
        ("{id:1}\n", &["g6"]),
        ("{\"id\":truer}\n", &["g12"]),
        ("{\"id\":nul}\n", &["g10"]),
        ("{\"a\":[1,]}\n", &["g10"]),
        ("{\"a\":1 2}\n", &["g9"]),
        ("\0{\"id\":1}\n", &["not json", "g9"]),
        ("{\"id\":1\0}\n", &["g9"]),
        ("{\"a\":\"\0\",\"id\":1}\n", &["1 -"]),
        ("3\ntrue\n\"x\"\n", &["not json", "g1", "g4", "g3"]),
    ] {
        assert_eq!(short(&frames(bytes.as_bytes())), expected, "{bytes:?}");
    }
    let invalid = b"{\"a\":\"\xff\xfe\\\xff\",\"id\":\"\xff\"}\n";
    assert_eq!(short(&frames(invalid)), ["\u{fffd} -"]);
}

#[test]
fn batches() {
    for (bytes, expected) in [
        (
            r#"[{"id":1,"method":"a"}, {"method":"b"} ,{"id":"c","result":[{"id":9}]}]"#,
            &["1 a batch", "- b batch", "c - batch"][..],
        ),
        (r#"[1,"x",[{"id":1}],{"id":2},null]"#, &["2 - batch"]),
        ("[]", &["g2"]),
        ("[1]", &["g3"]),
        (r#"[{"id":1},{"id":2]"#, &["1 - batch", "g18"]),
    ] {
        assert_eq!(short(&frames(format!("{bytes}\n").as_bytes())), expected, "{bytes:?}");
    }
    let line = br#" [ {"id":1} , {"id":2,"x":""}]"#;
    for size in [1, 100] {
        let mut framer = Framer::new(false);
        let mut out = Vec::new();
        line.chunks(size).for_each(|piece| framer.push(piece, &[], &mut out));
        for (frame, raw) in out.iter().zip([&line[3..11], &line[14..29]]) {
            let Frame::Message(message) = frame else { unreachable!("{frame:?}") };
            assert_eq!(message.bytes, raw.len() as u64);
            assert_eq!(message.line_hash, blake3::hash(raw).as_bytes()[..16]);
        }
        assert_eq!((out.len(), framer.pending()), (2, 30));
    }
}

#[test]
fn gaps() {
    use Piece::{Bytes, Gap};
    let request = "{\"id\":1,\"method\":\"a\"}\n";
    for (given, expected) in [
        // Between lines: what follows is whole, or the rest of something.
        (&[Bytes(request), Gap(5), Bytes(request)][..], &["1 a", "1 a"][..]),
        (&[Gap(0), Bytes(request)], &["1 a"]),
        (&[Gap(0), Bytes("hello\n"), Bytes("hello\n")], &["- - cut", "g5"]),
        (&[Gap(9), Bytes("{\"x\":1}],\"id\":7}\n"), Bytes(request)], &["7 - cut", "1 a"]),
        (&[Gap(9), Bytes("[{\"id\":1}]\n")], &["- - cut"]),
        (&[Gap(9), Bytes("\n"), Bytes(request)], &["1 a"]),
        (&[Gap(9), Bytes("{\"id\":1\n"), Bytes(request)], &["- - cut", "1 a"]),
        // What only looks like a beginning after a gap is forgotten at the next one.
        (&[Gap(9), Bytes("{\"id\":1,\"p\":["), Gap(9), Bytes("]}\n")], &["- - cut"]),
        // Inside: head and tail are joined.
        (
            &[Bytes("{\"method\":\"a\",\"params\":{\"x\":\""), Gap(9), Bytes("y\"},\"id\":7}\r\n")],
            &["7 a cut"],
        ),
        (&[Bytes("{\"id\":1,\"method\":\"a\",\"p\":["), Gap(9), Bytes("]}\n")], &["1 a cut"]),
        (&[Bytes("{\"id\":1,\"p\":["), Gap(9), Bytes("],\"id\":1}\n")], &["1 - cut"]),
        (&[Bytes("{\"id\":1,\"p\":["), Gap(9), Bytes("],\"id\":2}\n")], &["1 - cut", "2 - cut"]),
        (&[Bytes("{\"p\":["), Gap(9), Bytes("2,"), Gap(3), Bytes("],\"id\":2}\n")], &["2 - cut"]),
        (&[Bytes("{\"p\":["), Gap(9), Bytes("],\"id\":2"), Gap(3), Bytes("}\n")], &["- - cut"]),
        (&[Bytes("{\"p\":[\"\\"), Gap(9), Bytes("\"id\":2}\n"), Bytes(request)], &["2 - cut", "1 a"]),
        // Nobody knows how much: told at once, not joined.
        (&[Bytes("{\"id\":1,\"p\":["), Gap(0)], &["1 - cut"]),
        (&[Bytes("{\"method\":\"a\",\"p\":["), Gap(0), Bytes("],\"id\":2}\n")], &["- a cut", "2 - cut"]),
        (&[Bytes("{\"id\":1,\"p\":["), Gap(0), Bytes("]}\n"), Bytes(request)], &["1 - cut", "1 a"]),
        // The newline itself is lost.
        (&[Bytes("{\"id\":1}"), Gap(1), Bytes(request)], &["1 -", "1 a"]),
        (&[Bytes("[{\"id\":1}]"), Gap(1), Bytes(request)], &["1 - batch", "1 a"]),
        // Batches and garbage.
        (
            &[Bytes("[{\"id\":1},{\"id\":2,\"p\":"), Gap(9), Bytes("},{\"id\":3}]\n"), Bytes(request)],
            &["1 - batch", "2 - cut batch", "1 a"],
        ),
        (&[Bytes("{}\nhel"), Gap(9), Bytes("lo\n"), Bytes(request)], &["- -", "g14", "1 a"]),
        (&[Bytes("{}\nhel"), Gap(9), Bytes("lo,\"id\":4}\n")], &["- -", "4 - cut"]),
    ] {
        let frames = pieces(given);
        assert_eq!(short(&frames), expected);
    }
}

#[test]
fn ids_at_the_end_of_cut_lines() {
    let recovered = |tail: &str| {
        let frames = pieces(&[Piece::Bytes("{\"result\":["), Piece::Gap(9), Piece::Bytes(tail)]);
        match frames.as_slice() {
            [Frame::Message(message)] => message.id.clone(),
            other => unreachable!("{other:?}"),
        }
    };
    let text = |text: &str| Some(Id::Text(text.into()));
    for (tail, id) in [
        ("],\"id\":0}\n", Some(Id::Number(0))),
        ("] , \"id\" : -7 } \r\n", Some(Id::Number(-7))),
        ("],\"id\":1.5}\n", Some(Id::Raw("1.5".into()))),
        ("],\"id\":\"a\\\"\\u0062}\"}\n", text("a\"b}")),
        ("],\"id\":\"\"}\n", text("")),
        ("\"id\":1}\n", Some(Id::Number(1))),
        ("\"\"id\":1}\n", Some(Id::Number(1))),
        ("\"i\"id\":1}\n", Some(Id::Number(1))),
        ("\"id\":1}},\"id\":2}\n", Some(Id::Number(2))),
        ("\\\"id\":1}\n", None),
        ("\\\"id\\\":1}\n", None),
        ("],\"id\":1}}\n", None),
        ("],\"id\":1]\n", None),
        ("],\"id\":null}\n", None),
        ("],\"xid\":1}\n", None),
        ("],\"id\":1,\"a\":2}\n", None),
        ("],\"id\":\"a\n", None),
        ("],\"id\":1} x\n", None),
    ] {
        assert_eq!(recovered(tail), id, "{tail:?}");
    }
    let long = "z".repeat(200);
    assert!(matches!(recovered(&format!("\"id\":\"{long}\"}}\n")), Some(Id::Hash(_))));
    assert_eq!(recovered(&format!("\"id\":\"{long}{long}\"}}\n")), None);
}

#[test]
fn bytes_pending_and_lost() {
    let mut framer = Framer::new(false);
    let mut out = Vec::new();
    framer.push(b"{}\n{\"a\":\"", &[], &mut out);
    assert_eq!(framer.pending(), 6);
    framer.gap(1000, &mut out);
    framer.push(b"x", &[], &mut out);
    assert_eq!(framer.pending(), 1007);
    framer.push(b"\"}\n", &[], &mut out);
    assert_eq!(framer.pending(), 0);
    let Some(Frame::Message(message)) = out.pop() else { unreachable!() };
    assert_eq!((message.bytes, message.line_hash), (1009, [0; 16]));
    framer.push(b"{\"params\":{\"arguments\":{\"a\":1,\"b\":[", &[], &mut out);
    framer.gap(u64::MAX, &mut out);
    framer.gap(u64::MAX, &mut out);
    framer.push(b"{}]}}}\n{}\n", &[], &mut out);
    let Some(Frame::Message(message)) = out.get(1) else { unreachable!("{out:?}") };
    assert_eq!((message.arguments.len(), message.arguments_dropped), (1, 1));
    assert_eq!(out.len(), 3);
}

#[test]
fn long_and_deep_lines_need_no_memory() {
    let mut framer = Framer::new(true);
    let mut out = Vec::new();
    let mut pushed = 0;
    let mut push = |framer: &mut Framer, bytes: &[u8], times: usize| {
        for _ in 0..times {
            framer.push(bytes, &[], &mut out);
            assert!(framer.held() < 16 << 10, "{}", framer.held());
            pushed += bytes.len();
        }
        std::mem::take(&mut out)
    };
    let block = [b'a'; 1 << 16];
    push(&mut framer, b"{\"id\":\"", 1);
    push(&mut framer, &block, 64);
    push(&mut framer, b"\",\"", 1);
    push(&mut framer, &block, 64);
    push(&mut framer, b"\":", 1);
    push(&mut framer, &[b'['; 1000], 1000);
    push(&mut framer, &[b']'; 1000], 1000);
    push(&mut framer, b",\"params\":{\"name\":\"", 1);
    push(&mut framer, &block, 64);
    push(&mut framer, b"\",\"arguments\":{\"x\":", 1);
    push(&mut framer, &[b'1'; 1000], 1000);
    let frames = push(&mut framer, b"}},\"method\":\"m\"}\n", 1);
    let [Frame::Message(message)] = frames.as_slice() else { unreachable!("{frames:?}") };
    assert!(matches!(message.id, Some(Id::Hash(_))));
    assert_eq!(message.method.as_deref(), Some("m"));
    let [argument] = &message.arguments[..] else { unreachable!() };
    assert_eq!((argument.bytes, argument.value.as_ref().map(|v| v.len())), (1_000_000, Some(4096)));
    // One bracket too few, far below the levels that are known one by one.
    push(&mut framer, b"{\"a\":", 1);
    push(&mut framer, &[b'['; 1000], 1000);
    push(&mut framer, &[b']'; 999], 1000);
    assert_eq!(push(&mut framer, b"}\n", 1).len(), 1);
    // Down there, too, values follow each other.
    for inner in ["{\"a\":1,\"b\":[2,3],\"c\":{}}", "[1,{\"a\":\"b\"},[],true,null]"] {
        for (open, close) in [("[", "]"), ("{\"x\":", "}"), ("[{\"x\":", "}]")] {
            let line = format!("{{\"a\":{}{inner}{},\"id\":1}}\n", open.repeat(70), close.repeat(70));
            assert_eq!(short(&push(&mut framer, line.as_bytes(), 1)), ["1 -"]);
        }
    }
    // And what follows is framed as ever.
    assert_eq!(short(&push(&mut framer, b"{\"id\":1}\n", 1)), ["1 -"]);
}
