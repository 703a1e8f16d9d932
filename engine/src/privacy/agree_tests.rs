//! Framer and masker agree: masking changes nothing but values.

use proptest::prelude::*;

use super::{Masker, tests::KEY};
use crate::mcp::{
    Frame, Framer,
    prop_tests::{cut, cuts, message, noise},
};

/// Frames of the raw bytes, frames of the masked bytes, and those, cut and lost in the same way.
fn both(bytes: &[u8], cuts: &[(usize, Option<u64>)]) -> (Vec<Frame>, Vec<Frame>, Vec<u8>) {
    let (mut raw, mut masked, mut all) = (Vec::new(), Vec::new(), Vec::new());
    let (mut on_raw, mut on_masked) = (Framer::new(false), Framer::new(false));
    let mut masker = Masker::new(&KEY, false);
    cut(bytes, cuts, |piece, gap| {
        let mut digests = Vec::new();
        let mut hidden = piece.to_vec();
        masker.mask(&mut hidden, &mut digests);
        on_raw.push(piece, &digests, &mut raw);
        on_masked.push(&hidden, &digests, &mut masked);
        all.extend(hidden);
        if let Some(n) = gap {
            masker.gap();
            on_raw.gap(n, &mut raw);
            on_masked.gap(n, &mut masked);
        }
    });
    (raw, masked, all)
}

/// Only this may differ: masked bytes have another hash.
fn comparable(mut frames: Vec<Frame>) -> Vec<Frame> {
    for frame in &mut frames {
        if let Frame::Message(message) = frame {
            message.line_hash = [0; 16];
        }
    }
    frames
}

/// Every string and number of `words` is in `bytes`.
fn contains(bytes: &[u8], word: &str) -> bool {
    bytes.windows(word.len()).any(|window| window == word.as_bytes())
}

proptest! {
    #[test]
    fn masking_changes_no_frames(bytes in noise(), cuts in cuts()) {
        let (raw, masked, all) = both(&bytes, &cuts);
        prop_assert_eq!(all.len(), bytes.len());
        prop_assert_eq!(comparable(raw), comparable(masked), "{}", String::from_utf8_lossy(&all));
    }

    #[test]
    fn masking_is_the_same_however_bytes_are_split(bytes in noise(), mut cuts in cuts()) {
        cuts.iter_mut().for_each(|(_, gap)| *gap = None);
        prop_assert_eq!(both(&bytes, &cuts).2, both(&bytes, &[]).2);
    }

    #[test]
    fn arguments_are_found_with_their_digests(message in message()) {
        let line = format!("{message}\n").into_bytes();
        let (_, masked, _) = both(&line, &[]);
        let arguments = message.pointer("/params/arguments").and_then(|a| a.as_object());
        let arguments = arguments.cloned().unwrap_or_default();
        let [Frame::Message(got)] = masked.as_slice() else { unreachable!() };
        prop_assert_eq!(got.arguments.len(), arguments.len());
        for argument in &got.arguments {
            let value = arguments.get(&*argument.name).map(ToString::to_string).unwrap_or_default();
            let digest = blake3::keyed_hash(&KEY, value.as_bytes());
            prop_assert_eq!(&argument.digest, &digest.as_bytes()[..16]);
            prop_assert_eq!(argument.bytes, value.len() as u64);
        }
    }

    #[test]
    fn values_do_not_survive(message in message(), secret in "[A-Z]{12}", number in 222_222_222..999_999_999_u32) {
        let mut message = message;
        let Some(root) = message.as_object_mut() else { unreachable!() };
        root.insert("error".into(), serde_json::json!({"data": {"a": [&secret, number], "k": {&secret: number}}}));
        root.insert("params".into(), serde_json::json!({"arguments": {"a": &secret, "b": number}, "uri": &secret}));
        let line = format!("{message}\n{secret} {number}\n").into_bytes();
        let (_, _, masked) = both(&line, &[]);
        prop_assert!(!contains(&masked, &secret) && !contains(&masked, &number.to_string()));
        // Nor when the beginning is lost.
        let lost = [(1, Some(9)), (line.len() / 2, Some(9))];
        let (_, _, masked) = both(&line, &lost);
        prop_assert!(!contains(&masked, &secret) && !contains(&masked, &number.to_string()));
    }
}
