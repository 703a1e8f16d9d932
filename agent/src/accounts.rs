//! Local users and groups, from `/etc`: what runs before networks must not ask them.

use std::{fs, io};

/// Number of a group; `None` when there is none, or nobody can say.
pub(crate) fn group(name: &str) -> Option<u32> {
    number(&fs::read_to_string("/etc/group").ok()?, name, 1)
}

/// Numbers of a user and of its first group.
pub(crate) fn user(name: &str) -> io::Result<Option<(u32, u32)>> {
    let text = fs::read_to_string("/etc/passwd")?;
    Ok(number(&text, name, 1).zip(number(&text, name, 2)))
}

/// A field after the name, of the line with this name.
fn number(text: &str, name: &str, field: usize) -> Option<u32> {
    let fields = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    fields.split(':').nth(field)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_the_whole_name() {
        let groups = "root:x:0:\ntoolwarden-x:x:5:\ntoolwarden:x:998:ann,bob\n";
        assert_eq!(number(groups, "toolwarden", 1), Some(998));
        assert_eq!(number("root:x:0:\n", "toolwarden", 1), None);
        assert_eq!(number("toolwarden:x:many:\n", "toolwarden", 1), None);
        let users = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65533::/:/bin/false\n";
        assert_eq!(number(users, "nobody", 1).zip(number(users, "nobody", 2)), Some((65534, 65533)));
    }
}
