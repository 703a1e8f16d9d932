//! What servers do to the agent's files where nothing denies it. What they do to its processes and its BPF objects the kernel
//! programs tell as such.

use super::effects::Found;
use crate::{
    finding::{Kind, Origin},
    judge::words,
    output::{Effect, EffectLine, PathOpKind},
};

/// Why it was only told.
pub(super) const NOT_DENIED: &str =
    "It was not denied: for that BPF LSM is needed, as `toolwarden doctor` says.";

/// An act against the agent, as a finding.
pub(super) fn tampered(object: String, sentence: String) -> Found {
    Found {
        kind: Kind::Tampering,
        severity: Kind::Tampering.severity(),
        origin: Origin::Detector,
        object,
        sentence,
        permit: String::new(),
        baseline: None,
        whole: false,
    }
}

/// What of the agent's no server may change.
#[derive(Clone, Debug, Default)]
pub(super) struct Guarded {
    files: Vec<String>,
    inside: Vec<String>,
}

/// Whether a path is another one or below it.
fn is_within(path: &str, dir: &str) -> bool {
    path.strip_prefix(dir.trim_end_matches('/')).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

impl Guarded {
    pub(super) fn new(files: &[String], inside: &[String]) -> Self {
        Self { files: files.to_vec(), inside: inside.to_vec() }
    }

    /// Its bytes, its mode, what is in it.
    fn has(&self, path: &str) -> bool {
        let inside = |dir: &String| path.rsplit_once('/').is_some_and(|(parent, _)| parent == dir);
        self.files.iter().any(|f| is_within(path, f)) || self.inside.iter().any(inside)
    }

    /// The same, or it holds such: then its name is guarded.
    fn holds(&self, path: &str) -> bool {
        self.has(path) || self.files.iter().any(|f| is_within(f, path))
    }

    /// The path of the agent's that an effect changes.
    fn changed<'a>(&self, effect: &'a Effect) -> Option<&'a str> {
        match effect {
            Effect::Open { path, write, create, truncate, .. } => {
                ((*write || *create || *truncate) && self.has(path)).then_some(path.as_str())
            }
            Effect::PathOp { op, path, to, .. } => {
                let to = to.as_deref();
                match op {
                    PathOpKind::Rename => {
                        let new = || to.filter(|to| self.holds(to));
                        Some(path.as_str()).filter(|path| self.holds(path)).or_else(new)
                    }
                    PathOpKind::Symlink | PathOpKind::Link => to.filter(|to| self.has(to)),
                    PathOpKind::Unlink | PathOpKind::Rmdir => {
                        Some(path.as_str()).filter(|path| self.holds(path))
                    }
                    _ => Some(path.as_str()).filter(|path| self.has(path)),
                }
            }
            _ => None,
        }
    }

    pub(super) fn found(&self, line: &EffectLine) -> Option<Found> {
        let path = self.changed(&line.effect)?;
        let (when, server) = (words::when(&line.scope), &line.server.name);
        let sentence = format!(
            "{when}, server `{server}` altered `{path}`, which no server may: it is the agent's. {NOT_DENIED}"
        );
        Some(tampered(path.to_owned(), sentence))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Source;

    fn open(path: &str, write: bool) -> Effect {
        Effect::Open {
            path: path.into(),
            truncated: false,
            source: Source::FdAtExit,
            read: !write,
            write,
            create: false,
            truncate: false,
            directory: false,
            deleted: false,
        }
    }

    fn op(op: PathOpKind, path: &str, to: Option<&str>) -> Effect {
        Effect::PathOp {
            op,
            path: path.into(),
            to: to.map(Into::into),
            arg: None,
            group: None,
            truncated: false,
            source: Source::Argument,
        }
    }

    #[test]
    fn what_is_the_agents_is_told_and_nothing_else() {
        let guarded = Guarded::new(
            &["/var/lib/toolwarden".into(), "/run/agent.lock".into()],
            &["/sys/fs/cgroup/system.slice/toolwarden.service".into()],
        );
        let own = [
            open("/var/lib/toolwarden/state.db", true),
            open("/run/agent.lock", true),
            open("/sys/fs/cgroup/system.slice/toolwarden.service/cgroup.freeze", true),
            op(PathOpKind::Unlink, "/var/lib/toolwarden/key", None),
            op(PathOpKind::Rename, "/var/lib", Some("/var/old")),
            op(PathOpKind::Rename, "/tmp/x", Some("/var/lib/toolwarden/disarm")),
            op(PathOpKind::Symlink, "/tmp/x", Some("/var/lib/toolwarden/disarm")),
            op(PathOpKind::Chmod, "/var/lib/toolwarden", None),
            op(PathOpKind::Mkdir, "/var/lib/toolwarden/x", None),
        ];
        for effect in &own {
            assert!(guarded.changed(effect).is_some(), "{effect:?}");
        }
        let others = [
            open("/var/lib/toolwarden/state.db", false),
            open("/var/lib/toolwarden-other/x", true),
            open("/sys/fs/cgroup/system.slice/toolwarden.service/x/cgroup.freeze", true),
            op(PathOpKind::Mkdir, "/var/lib/x", None),
            op(PathOpKind::Rename, "/var/lib/x", Some("/var/lib/y")),
            op(PathOpKind::Symlink, "/var/lib/toolwarden/key", Some("/tmp/key")),
            op(PathOpKind::Chmod, "/var/lib", None),
        ];
        for effect in &others {
            assert_eq!(guarded.changed(effect), None, "{effect:?}");
        }
    }
}
