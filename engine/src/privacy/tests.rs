//! What is masked on channels, and that it changes nothing but values.

use super::Masker;
use crate::input::Digest;

pub(super) const KEY: [u8; 32] = [7; 32];

fn mask(raw: &str) -> (String, Vec<Digest>) {
    let mut bytes = raw.as_bytes().to_vec();
    let mut digests = Vec::new();
    Masker::new(&KEY, false).mask(&mut bytes, &mut digests);
    (String::from_utf8_lossy(&bytes).into(), digests)
}

fn digest(value: &str) -> Digest {
    let mut first = [0; 16];
    first.copy_from_slice(&blake3::keyed_hash(&KEY, value.as_bytes()).as_bytes()[..16]);
    first
}

#[test]
fn values_are_masked_and_the_protocol_is_not() {
    for (raw, masked) in [
        (
            r#"{"method":"tools/call","params":{"name":"t","arguments":{"path":"/etc\n\"","n":-1.50e3,"b":true,"o":{"k":[null,"v",12]}},"_meta":{"progressToken":12}},"jsonrpc":"2.0","id":20}"#,
            r#"{"method":"tools/call","params":{"name":"t","arguments":{"path":"xxxxxxxx","n":-1.11e1,"b":true,"o":{"x":[null,"x",11]}},"_meta":{"progressToken":11}},"jsonrpc":"2.0","id":20}"#,
        ),
        (
            r#"{"id":"s","result":{"isError":false,"content":[{"type":"text","text":"ü secret"}],"tools":[{"name":"t","description":"d"}],"resultType":"complete"}}"#,
            r#"{"id":"s","result":{"isError":false,"content":[{"xxxx":"xxxx","xxxx":"xxxxxxxxx"}],"tools":[{"name":"t","description":"x"}],"resultType":"complete"}}"#,
        ),
        (
            r#"[{"id":1,"error":{"code":-32601,"message":"no"}}, {"method":"m","name":"n"},5]"#,
            r#"[{"id":1,"error":{"xxxx":-11111,"xxxxxxx":"xx"}}, {"method":"m","name":"x"},1]"#,
        ),
        ("Server started: 42\r", "Sxxxxxxxxxxxxxxxxx\r"),
        (r#"{"id":1} and more"#, r#"{"id":1} xxxxxxxx"#),
        (r#"{"a":"b"}}"#, r#"{"a":"x"}x"#),
        (
            r#"{"params":{"name":{"deep":"v"},"arguments":"text"}}"#,
            r#"{"params":{"name":{"xxxx":"x"},"arguments":"xxxx"}}"#,
        ),
    ] {
        assert_eq!(mask(&format!("{raw}\n")).0, format!("{masked}\n"));
        // Byte by byte, too.
        let mut masker = Masker::new(&KEY, false);
        let mut bytes = raw.as_bytes().to_vec();
        let mut digests = Vec::new();
        bytes.chunks_mut(1).for_each(|byte| masker.mask(byte, &mut digests));
        assert_eq!(String::from_utf8_lossy(&bytes), masked);
        assert_eq!(digests, mask(raw).1);
    }
}

#[test]
fn digests_are_those_of_the_raw_values() {
    let raw =
        r#"{"params":{"arguments":{"a": "x\ty" ,"b":[1, {"c":2}],"d":12,"e":null},"arguments":{"f":0}}}"#;
    let values = [r#""x\ty""#, r#"[1, {"c":2}]"#, "12", "null", "0"];
    assert_eq!(mask(raw).1, values.map(digest));
    // The same without masking.
    let mut bytes = raw.as_bytes().to_vec();
    let mut digests = Vec::new();
    Masker::new(&KEY, true).mask(&mut bytes, &mut digests);
    assert_eq!((bytes.as_slice(), digests), (raw.as_bytes(), values.map(digest).to_vec()));
    // A value longer than what is copied at a time.
    let long = format!("\"{}\"", "v".repeat(200_000));
    let (masked, digests) = mask(&format!(r#"{{"params":{{"arguments":{{"a":{long}}}}}}}"#));
    assert_eq!(digests, [digest(&long)]);
    assert!(!masked.contains('v'));
}

#[test]
fn digests_of_lines_that_break_off_are_not_given() {
    for raw in [r#"{"params":{"arguments":{"a":12"#, r#"{"params":{"arguments":{"a":[1}"#] {
        let (_, digests) = mask(&format!("{raw}\n{{\"params\":{{\"arguments\":{{\"b\":3}}}}}}\n"));
        assert_eq!(digests, [digest("3")], "{raw}");
    }
}

fn after_gap(before: &str, after: &[&str]) -> String {
    let mut masker = Masker::new(&KEY, false);
    let mut digests = Vec::new();
    masker.mask(&mut before.as_bytes().to_vec(), &mut digests);
    masker.gap();
    let mut text = String::new();
    for part in after {
        let mut bytes = part.as_bytes().to_vec();
        masker.mask(&mut bytes, &mut digests);
        text.push_str(&String::from_utf8_lossy(&bytes));
    }
    text
}

#[test]
fn after_a_gap_only_the_last_id_stays() {
    let head = r#"{"result":{"content":["#;
    for (before, after, masked) in [
        (head, r#"cret"}]},"jsonrpc":"2.0","id":57}"#, r#"xxxx"xxxx"xxxxxxx"x"xxx"x"id":57}"#),
        (head, r#"t"}]},"id":"s\"5" }"#, r#"x"xxxx"id":"s\"5" }"#),
        // Not the last, not of the message, not a key.
        (head, r#","id":57,"a":5}"#, r#"x"id":11x"x"xxx"#),
        (head, r#","id":"secret","a":5}"#, r#"x"id":"xxxxxx"x"x"xxx"#),
        (head, r#","id":57}}"#, r#"x"id":11}x"#),
        (head, r#"\"id":57}"#, r#"xxxx"xxxx"#),
        // A whole object after a gap between lines is a message.
        ("", r#"{"id":57,"method":"m","params":{"a":"b"}}"#, r#"{"id":57,"method":"m","params":{"a":"x"}}"#),
        ("", r#"{"text":"a"}],"id":5}"#, r#"{"text":"x"}xx"id":5}"#),
        ("", r#"[{"id":1}]"#, r#"xx"id":1}x"#),
        (head, r#"{"id":57,"method":"m"}"#, r#"x"id":11x"xxxxxx"x"x"x"#),
    ] {
        let line = format!("{after}\n");
        assert_eq!(after_gap(before, &[&line]), format!("{masked}\n"));
    }
}

#[test]
fn an_id_that_is_split_stays_as_far_as_it_must() {
    let head = r#"{"result":{"content":["#;
    let whole = "x\"},\"id\":\"abc\"}\n";
    for at in 0..whole.len() {
        let (a, b) = whole.split_at(at);
        assert!(after_gap(head, &[a, b]).ends_with("\"id\":\"abc\"}\n"), "{at}");
    }
    assert_eq!(after_gap(head, &[r#""id":"ab"#, "cd\",1}\n"]), "\"id\":\"abxx\"xxx\n");
}
