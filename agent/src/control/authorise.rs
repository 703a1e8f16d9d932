//! Who may do what. Pure: all that the decision rests on is passed in.

use std::fmt;

use super::{Peer, Verb};

/// What is known besides the peer itself.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    /// The group `toolwarden`, if this host has it.
    pub(crate) group: Option<u32>,
    /// Where the peer comes from.
    pub(crate) lineage: Lineage,
}

/// A process and its ancestors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Lineage {
    /// The peer first, pid 1 last.
    Known(Vec<Ancestor>),
    /// Why it is not known.
    Unreadable(String),
}

/// One process of a lineage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ancestor {
    pub(crate) pid: u32,
    pub(crate) exe: String,
    pub(crate) role: Role,
}

/// What a process is to us.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Role {
    /// Nothing.
    #[default]
    Other,
    /// It is in the tree of this MCP server.
    Server(String),
    /// It is this MCP client.
    Client(String),
}

/// Why not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Neither root nor in the group.
    NotInGroup { group: bool },
    /// Only root changes anything.
    NotRoot,
    /// A server, or what a server started.
    Server { pid: u32, server: String },
    /// What an MCP client started.
    Client { pid: u32, client: String },
    /// Nobody knows where it comes from.
    Unreadable(String),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotInGroup { group: true } => {
                f.write_str("only root and members of the group toolwarden may read this")
            }
            Self::NotInGroup { group: false } => {
                f.write_str("only root may read this: this host has no group toolwarden")
            }
            Self::NotRoot => f.write_str("only root may change this; try it with sudo"),
            Self::Server { pid, server } => write!(
                f,
                "refused: process {pid} belongs to the MCP server {server}, and no server may change what \
                 watches it; use a terminal that no MCP client or server started"
            ),
            Self::Client { pid, client } => write!(
                f,
                "refused: process {pid} is the MCP client {client}, and what a client starts may not change \
                 what watches its servers; use a terminal that no MCP client started"
            ),
            Self::Unreadable(why) => write!(
                f,
                "refused: cannot tell where this request comes from ({why}); ask again from a shell on the host"
            ),
        }
    }
}

/// Decides. Who may change something may be root and yet not be a person: servers run under sudo,
/// in terminals of editors, and below clients. So whoever descends from one is refused, and whoever
/// cannot be told apart from one too.
pub(crate) fn authorise(peer: &Peer, verb: &Verb, facts: &Facts) -> Result<(), Refusal> {
    let root = peer.uid == 0;
    if !root && !facts.group.is_some_and(|group| peer.in_group(group)) {
        return Err(Refusal::NotInGroup { group: facts.group.is_some() });
    }
    if !verb.changes() {
        return Ok(());
    }
    if !root {
        return Err(Refusal::NotRoot);
    }
    match &facts.lineage {
        Lineage::Unreadable(why) => Err(Refusal::Unreadable(why.clone())),
        Lineage::Known(ancestors) if ancestors.is_empty() => Err(Refusal::Unreadable("no process".into())),
        Lineage::Known(ancestors) => ancestors.iter().try_for_each(|ancestor| match &ancestor.role {
            Role::Other => Ok(()),
            Role::Server(server) => Err(Refusal::Server { pid: ancestor.pid, server: server.clone() }),
            Role::Client(client) => Err(Refusal::Client { pid: ancestor.pid, client: client.clone() }),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::verb::{CallFilter, FindingFilter, Mode};

    const GROUP: u32 = 777;

    fn reads() -> Vec<Verb> {
        let id = || "x".to_owned();
        vec![
            Verb::Status,
            Verb::Servers,
            Verb::Tools { server: None },
            Verb::Calls(CallFilter::default()),
            Verb::Findings(FindingFilter::default()),
            Verb::Finding { id: id() },
            Verb::Baselines,
            Verb::Baseline { identity: id() },
            Verb::BaselineDiff { a: id(), b: id() },
            Verb::BaselineExport { identity: id() },
            Verb::Rules,
            Verb::Mode,
            Verb::Audit { limit: None },
            Verb::Responses { server: None, limit: None },
            Verb::Response { id: id() },
        ]
    }

    fn changes() -> Vec<Verb> {
        let id = || "x".to_owned();
        vec![
            Verb::Reload { wait: true },
            Verb::Ack { id: id(), note: None, expected: true },
            Verb::Permit { id: id(), reason: id(), expires: None },
            Verb::Ratify { identity: id() },
            Verb::Reset { identity: id() },
            Verb::Import { name: id(), text: id() },
            Verb::SetMode { server: id(), tool: None, mode: Mode::Enforce, strict: false },
            Verb::Purge { before_days: 0 },
            Verb::Respond {
                server: id(),
                action: engine::respond::Action::Release,
                for_ns: None,
                dry_run: true,
            },
            Verb::Disarm,
            Verb::Arm,
        ]
    }

    fn lineage(roles: &[Role]) -> Lineage {
        let one = |(at, role): (usize, &Role)| Ancestor {
            pid: u32::try_from(100 - at).unwrap_or_default(),
            exe: "/bin/x".into(),
            role: role.clone(),
        };
        Lineage::Known(roles.iter().enumerate().map(one).collect())
    }

    #[test]
    fn the_table() {
        let server = || Role::Server("git".into());
        let client = || Role::Client("claude".into());
        let plain = lineage(&[Role::Other, Role::Other]);
        let root = Peer::made_up(0, 0, &[]);
        let primary = Peer::made_up(1000, GROUP, &[]);
        let supplementary = Peer::made_up(1000, 1000, &[4, GROUP]);
        let stranger = Peer::made_up(1000, 1000, &[4, 27]);
        let not_root = Some(Refusal::NotRoot);
        let no_group = Some(Refusal::NotInGroup { group: true });
        let by_server = |pid| Some(Refusal::Server { pid, server: "git".into() });
        let by_client = |pid| Some(Refusal::Client { pid, client: "claude".into() });
        let unreadable = |why: &str| Some(Refusal::Unreadable(why.into()));
        let cases = [
            (&root, plain.clone(), None, None),
            (&primary, plain.clone(), None, not_root.clone()),
            (&supplementary, plain.clone(), None, not_root.clone()),
            (&stranger, plain, no_group.clone(), no_group),
            // Servers and what they start read what their user may read, and change nothing.
            (&root, lineage(&[server()]), None, by_server(100)),
            (&root, lineage(&[Role::Other, Role::Other, server(), client()]), None, by_server(98)),
            (&root, lineage(&[Role::Other, client(), Role::Other]), None, by_client(99)),
            (&root, lineage(&[client()]), None, by_client(100)),
            (&supplementary, lineage(&[server()]), None, not_root),
            (&root, lineage(&[]), None, unreadable("no process")),
            (&root, Lineage::Unreadable("gone".into()), None, unreadable("gone")),
        ];
        for (peer, lineage, read, change) in cases {
            let facts = Facts { group: Some(GROUP), lineage };
            for verb in reads() {
                assert_eq!(authorise(peer, &verb, &facts).err(), read, "{verb:?} {facts:?}");
            }
            for verb in changes() {
                assert_eq!(authorise(peer, &verb, &facts).err(), change, "{verb:?} {facts:?}");
            }
        }
    }

    #[test]
    fn without_the_group_only_root_reads() {
        let facts = Facts { group: None, lineage: lineage(&[Role::Other]) };
        // A user whose groups happen to be anything at all.
        let user = Peer::made_up(1000, 0, &[0, GROUP]);
        let refused = authorise(&user, &Verb::Status, &facts).expect_err("refused");
        assert_eq!(refused, Refusal::NotInGroup { group: false });
        assert!(authorise(&Peer::made_up(0, 0, &[]), &Verb::Status, &facts).is_ok());
    }
}
