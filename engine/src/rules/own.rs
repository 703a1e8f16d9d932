//! A process's own entries of `/proc`, by the name that rules know them by.

use std::borrow::Cow;

/// `/proc/PID/...` of the process that acted, as `/proc/self/...`: the kernel resolves `self` before
/// anybody can see it, and reading one's own memory and environment is nothing.
#[must_use]
pub fn own_path(path: &str, pid: u32) -> Cow<'_, str> {
    let own = || {
        let rest = path.strip_prefix("/proc/")?;
        let (number, rest) = rest.split_at_checked(rest.find('/')?)?;
        (number.parse() == Ok(pid) && !number.starts_with(['0', '+'])).then_some(rest)
    };
    match own() {
        Some(rest) => format!("/proc/self{rest}").into(),
        None => path.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_process_itself_is_self() {
        for (path, expected) in [
            ("/proc/47/environ", "/proc/self/environ"),
            ("/proc/47/task/48/mem", "/proc/self/task/48/mem"),
            ("/proc/4/environ", "/proc/4/environ"),
            ("/proc/471/environ", "/proc/471/environ"),
            ("/proc/047/environ", "/proc/047/environ"),
            ("/proc/47", "/proc/47"),
            ("/srv/proc/47/environ", "/srv/proc/47/environ"),
            ("/proc/", "/proc/"),
        ] {
            assert_eq!(own_path(path, 47), expected);
        }
    }
}
