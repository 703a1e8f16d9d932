//! Names of programs and sockets, without the links in them: the kernel knows a file by where it is, baselines and rules by how it
//! was called. A link that is changed later leads nowhere until the policy is made anew.

use std::{fs, path::Path};

use engine::policy::{PathAccess, PathRight, Span};

/// Rights to what programs and sockets really are, where nothing is said of that.
pub(super) fn resolved(rights: &[PathRight]) -> Vec<PathRight> {
    let named = rights.iter().filter(|r| {
        r.span == Span::Exact
            && matches!(r.access, PathAccess::Exec | PathAccess::Unix)
            && r.path.starts_with('/')
    });
    let mut more: Vec<PathRight> = named
        .filter_map(|r| {
            let real = fs::canonicalize(Path::new(&r.path)).ok()?.into_os_string().into_string().ok()?;
            (real != r.path).then(|| PathRight { path: real, ..r.clone() })
        })
        .filter(|new| {
            !rights.iter().any(|r| (&r.path, r.span, r.access) == (&new.path, new.span, new.access))
        })
        .collect();
    // Of several names of one thing, one that is forbidden counts first.
    more.sort_by(|a, b| (&a.path, a.access, a.mask).cmp(&(&b.path, b.access, b.mask)));
    more.dedup_by(|b, a| {
        let same = a.path == b.path && a.access == b.access;
        if same && a.mask != 0 {
            a.mask |= b.mask;
        }
        same
    });
    more
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_known_by_where_it_is() {
        let dir = tempfile::tempdir().expect("a directory");
        let base = fs::canonicalize(dir.path()).expect("there");
        fs::write(base.join("real"), "").expect("written");
        for link in ["a", "b"] {
            std::os::unix::fs::symlink(base.join("real"), base.join(link)).expect("linked");
        }
        let right = |name: &str, access, mask| PathRight {
            path: base.join(name).display().to_string(),
            span: Span::Exact,
            access,
            mask,
        };
        let exec = PathAccess::Exec;
        let (a, b, real) = (right("a", exec, 1), right("b", exec, 2), right("real", exec, 4));
        assert_eq!(resolved(&[a.clone(), b.clone()]), [right("real", exec, 3)]);
        assert_eq!(resolved(&[a.clone(), right("b", exec, 0)]), [right("real", exec, 0)]);
        assert_eq!(resolved(&[a, b, real]), [], "what is said of it stays");
        assert_eq!(resolved(&[right("a", PathAccess::Read, 1), right("none", exec, 1)]), []);
    }
}
