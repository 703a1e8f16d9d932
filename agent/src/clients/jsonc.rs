//! JSON with comments and trailing commas, to JSON.

/// Blank out comments and trailing commas. Bytes keep their places, so that an error's line and
/// column stay true; what is inside strings stays as it is.
pub(super) fn to_json(bytes: &[u8]) -> Vec<u8> {
    let mut out = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes).to_vec();
    // Where the last comma stands, if only blanks and comments follow it so far.
    let mut comma = None;
    let mut at = 0;
    while let Some(&byte) = out.get(at) {
        let next = out.get(at + 1).copied();
        match (byte, next) {
            (b'"', _) => {
                comma = None;
                at = string_end(&out, at + 1);
                continue;
            }
            (b'/', Some(b'/')) => {
                at = blank(&mut out, at, |rest| rest.iter().position(|&b| b == b'\n'));
                continue;
            }
            (b'/', Some(b'*')) => {
                at = blank(&mut out, at, |rest| {
                    // `/*/` does not end itself.
                    let end = rest.get(2..)?.windows(2).position(|pair| pair == b"*/")?;
                    Some(end + 4)
                });
                continue;
            }
            (b',', _) => comma = Some(at),
            (b']' | b'}', _) => {
                if let Some(byte) = comma.take().and_then(|comma: usize| out.get_mut(comma)) {
                    *byte = b' ';
                }
            }
            (b' ' | b'\t' | b'\r' | b'\n', _) => {}
            _ => comma = None,
        }
        at += 1;
    }
    out
}

/// Index after the closing quote.
fn string_end(bytes: &[u8], mut at: usize) -> usize {
    while let Some(&byte) = bytes.get(at) {
        at += match byte {
            b'"' => return at + 1,
            b'\\' => 2,
            _ => 1,
        };
    }
    at
}

/// Blank from `at` for as long as `length` says (all the rest if it says nothing), keeping lines.
fn blank(bytes: &mut [u8], at: usize, length: impl Fn(&[u8]) -> Option<usize>) -> usize {
    let Some(rest) = bytes.get_mut(at..) else {
        return at + 1;
    };
    let length = length(rest).unwrap_or(rest.len());
    for byte in rest.iter_mut().take(length).filter(|byte| **byte != b'\n') {
        *byte = b' ';
    }
    at + length.max(1)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(text: &str) -> serde_json::Result<Value> {
        serde_json::from_slice(&to_json(text.as_bytes()))
    }

    #[test]
    fn comments_and_trailing_commas_go() -> serde_json::Result<()> {
        let text = "\u{feff}{ // one\n \"a\": [1, 2, /* three */ ], /*/ odd */\n \"b\": {},,}";
        assert!(read(text).is_err(), "two commas are an error in any dialect");
        assert_eq!(read(&text.replace(",,", ",// end\n"))?, json!({"a": [1, 2], "b": {}}));
        Ok(())
    }

    #[test]
    fn strings_stay() -> serde_json::Result<()> {
        let text = r#"{"u": "http://x/*y*/", "q": "\"// ,]", "c": ",}",}"#;
        assert_eq!(read(text)?, json!({"u": "http://x/*y*/", "q": "\"// ,]", "c": ",}"}));
        Ok(())
    }

    #[test]
    fn cut_text_is_no_trouble() {
        let text = r#"{"a": "b\\", // c
            "d": [1,], /* e */ }"#;
        for end in 0..text.len() {
            let cut = text.as_bytes().get(..end).unwrap_or_default();
            assert_eq!(to_json(cut).len(), cut.len());
        }
    }
}
