//! A session recorded on a real kernel (a small Perl server; one tool reads a file three times, one runs
//! a program, one leaves a child behind), and what it said. Inputs carry their own times and pids.

use engine::{Engine, Output, recording::Reader};

/// `TOOLWARDEN_BLESS=1` writes the expectation anew; read the difference before committing it.
#[test]
fn a_recorded_session_gives_the_same_lines() {
    let recording = include_bytes!("golden/example.twrec");
    let mut reader = Reader::new(recording).expect("a recording of this version");
    let (mut engine, mut outputs) = (Engine::new(), Vec::new());
    while let Some(input) = reader.next().expect("whole") {
        engine.apply(input, &mut outputs);
    }
    let mut text = String::new();
    for output in &outputs {
        if let Output::Line(line) = output {
            text += &serde_json::to_string(line).expect("a line is JSON");
            text.push('\n');
        }
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/engine/golden/example.ndjson");
    if std::env::var_os("TOOLWARDEN_BLESS").is_some() {
        std::fs::write(path, &text).expect("the golden file is writable");
    }
    let wanted = std::fs::read_to_string(path).expect("the golden file is there");
    for (n, (got, wanted)) in text.lines().zip(wanted.lines()).enumerate() {
        assert_eq!(got, wanted, "line {}", n + 1);
    }
    assert_eq!(text.lines().count(), wanted.lines().count());
    // The child that outlived its call was charged to it by lineage, and to nothing else.
    assert!(text.contains("/tmp/example.late"));
}
