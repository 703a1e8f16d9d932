//! Text of others on the terminal.

/// Control characters come from hostile names: they are shown, never sent to the terminal.
pub(crate) fn safe(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        // Bidirectional overrides can make a path read as another one.
        let turns = matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}');
        if c.is_control() || turns {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

/// As [`safe`], for text that has lines of its own: YAML, a list of errors.
pub(crate) fn safe_lines(text: &str) -> String {
    text.lines().map(safe).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_names_cannot_move_the_cursor_or_turn_text() {
        assert_eq!(safe("a\u{1b}[2Jb"), "a\\u{1b}[2Jb");
        assert_eq!(safe("a\nb"), "a\\nb");
        assert_eq!(safe("\u{202e}exe.txt"), "\\u{202e}exe.txt");
        assert_eq!(safe("grün"), "grün");
        assert_eq!(safe_lines("a:\n  b\u{9b}2J\r\n"), "a:\n  b\\u{9b}2J");
    }
}
