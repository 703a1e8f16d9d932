//! A server's own directories, and paths in terms of them.
//!
//! `/srv/repo/src/a.rs` of a server that was given `/srv/repo` is `${root}/src/a.rs`: the same on
//! every host, so that baselines can move between hosts.

use crate::input::Identity;

/// Prefixes that paths are written in terms of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roots {
    /// Prefix and its name, longest prefix first.
    prefixes: Vec<(String, &'static str)>,
}

/// Name of the directories that a server was given on its command line.
pub const ROOT: &str = "${root}";
/// Name of the user's home.
pub const HOME: &str = "${home}";
/// Name of the directory that the server was started in.
pub const CWD: &str = "${cwd}";
/// Name of the server's own package.
pub const PACKAGE: &str = "${package}";

impl Roots {
    /// Those of a server; `cwd`: the directory that it was started in.
    #[must_use]
    pub fn new(identity: &Identity, cwd: Option<&str>) -> Self {
        let mut prefixes: Vec<(String, &'static str)> = Vec::new();
        for root in &identity.roots {
            let root = root.trim_end_matches('/');
            // A prefix that everything shares says nothing.
            if root.len() < 2 || !root.starts_with('/') {
                continue;
            }
            let entry = identity.entry.as_deref().unwrap_or_default();
            let name = if is_home(root) {
                HOME
            } else if Some(root) == cwd {
                CWD
            } else if entry.strip_prefix(root).is_some_and(|rest| rest.starts_with('/')) {
                PACKAGE
            } else {
                ROOT
            };
            if !prefixes.iter().any(|(known, _)| known == root) {
                prefixes.push((root.to_owned(), name));
            }
        }
        prefixes.sort_by(|(a, _), (b, _)| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        Self { prefixes }
    }

    /// The name of the root that a path is under, and the rest without its first slash.
    #[must_use]
    pub fn split<'p>(&self, path: &'p str) -> Option<(&'static str, &'p str)> {
        self.prefixes.iter().find_map(|(prefix, name)| {
            let rest = path.strip_prefix(prefix.as_str())?;
            match rest.as_bytes().first() {
                None => Some((*name, "")),
                Some(b'/') => Some((*name, &rest[1..])),
                Some(_) => None,
            }
        })
    }

    /// Directories with a name.
    pub(crate) fn named(&self, name: &str) -> impl Iterator<Item = &str> {
        self.prefixes.iter().filter(move |(_, own)| *own == name).map(|(prefix, _)| prefix.as_str())
    }

    /// The home directory, if known.
    #[must_use]
    pub fn home(&self) -> Option<&str> {
        self.prefixes.iter().find(|(_, name)| *name == HOME).map(|(prefix, _)| prefix.as_str())
    }

    /// Directories that were given to the server, for rules that speak of `${root}`.
    pub fn given(&self) -> impl Iterator<Item = &str> {
        self.prefixes.iter().filter(|(_, name)| *name == ROOT || *name == CWD).map(|(p, _)| p.as_str())
    }
}

fn is_home(path: &str) -> bool {
    path == "/root"
        || path.strip_prefix("/home/").is_some_and(|user| !user.is_empty() && !user.contains('/'))
        || path.ends_with("/home")
}
