//! Bytes of any sort: an answer, never a panic.

use std::sync::Arc;

use proptest::prelude::*;

use super::{TODAY, file, person, who};
use crate::{
    act::Access,
    rules::{RuleSet, explain, lint, packs, run_tests},
};

fn all(text: &str) {
    match RuleSet::compile(&[person(text)], TODAY) {
        Ok(set) => {
            let set = Arc::new(set);
            lint(&set).iter().for_each(|p| drop(p.to_string()));
            drop(run_tests(&set));
            drop(explain(&set, &who(), &file(Access::Read, text)));
        }
        Err(problems) => {
            assert!(!problems.is_empty());
            problems.iter().for_each(|p| drop(p.to_string()));
        }
    }
}

proptest! {
    #[test]
    fn any_bytes_are_rules_or_problems(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        all(&String::from_utf8_lossy(&bytes));
    }

    /// Text near to rules goes deeper.
    #[test]
    fn any_words_of_the_language_are_rules_or_problems(words in proptest::collection::vec(
        "rules:|- |id: |a|deny:|allow:|\n|\n  |\n    |files:|read:|\\[|\\]|\\{|\\}|, |\"\\*\"|/\\*\\*|any:53/udp|10.0.0.0/8|&a |\\*a|exceptions:|reason: |expires: |2027-01-01|tests:|name: |expect: |~|null|!!binary |<<: ", 0..60)) {
        all(&words.concat());
    }

    /// One byte of a pack changed, cut or doubled.
    #[test]
    fn damaged_packs_are_rules_or_problems(which in 0usize..5, at in any::<prop::sample::Index>(), byte in any::<char>(), cut in any::<bool>()) {
        let source = &packs()[which];
        let mut chars: Vec<char> = source.text.chars().take(6000).collect();
        let at = at.index(chars.len());
        if cut { chars.truncate(at) } else { chars[at] = byte }
        all(&chars.into_iter().collect::<String>());
    }
}
