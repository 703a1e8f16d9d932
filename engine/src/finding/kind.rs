//! What can be found, how bad it is by itself, and what the field calls it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How bad a finding is.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing.
    #[default]
    Info,
    /// Unusual, likely harmless.
    Low,
    /// Unusual, look at it.
    Medium,
    /// Likely an attack or a serious bug.
    High,
    /// An attack, or as good as one.
    Critical,
}

impl Severity {
    /// As printed.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }
}

/// What the field calls it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Taxonomy {
    /// MITRE ATT&CK technique ids.
    pub attack: Vec<String>,
    /// MITRE ATLAS technique ids.
    pub atlas: Vec<String>,
    /// OWASP MCP Top 10 ids.
    pub owasp_mcp: Vec<String>,
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $variant:ident, $id:literal, $severity:ident, [$($attack:literal),*], [$($atlas:literal),*],
        [$($owasp:literal),*];)*) => {
        /// What was found.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
        #[serde(rename_all = "kebab-case")]
        pub enum Kind {
            $($(#[$doc])* $variant,)*
        }

        impl Kind {
            /// All kinds.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// As written in JSON and in rules.
            #[must_use]
            pub fn id(self) -> &'static str {
                match self { $(Self::$variant => $id,)* }
            }

            /// How bad it is when nothing makes it worse.
            #[must_use]
            pub fn severity(self) -> Severity {
                match self { $(Self::$variant => Severity::$severity,)* }
            }

            /// What the field calls it.
            #[must_use]
            pub fn taxonomy(self) -> Taxonomy {
                let own = |ids: &[&str]| ids.iter().map(|&id| id.to_owned()).collect();
                match self {
                    $(Self::$variant => Taxonomy {
                        attack: own(&[$($attack),*]),
                        atlas: own(&[$($atlas),*]),
                        owasp_mcp: own(&[$($owasp),*]),
                    },)*
                }
            }
        }
    };
}

kinds! {
    /// A server that was never seen on this host.
    NewServer, "new-server", Low, [], ["AML.T0103"], ["MCP09:2025"];
    /// A known server with another version or entry point.
    ServerChanged, "server-changed", Medium, ["T1195"], ["AML.T0109"], ["MCP04:2025"];
    /// A tool that the server did not have before.
    NewTool, "new-tool", Low, [], ["AML.T0110"], ["MCP03:2025"];
    /// A program that it never executed.
    NewExec, "new-exec", High, ["T1059"], ["AML.T0050"], ["MCP05:2025"];
    /// A destination that it never connected to.
    NewDestination, "new-destination", Medium, ["T1041", "T1071"], ["AML.T0086"], ["MCP03:2025"];
    /// A name that it never asked for.
    NewName, "new-name", Medium, ["T1071.004"], ["AML.T0086"], ["MCP03:2025"];
    /// A port that it never opened.
    NewListener, "new-listener", High, ["T1571"], ["AML.T0072"], ["MCP03:2025"];
    /// A unix socket that it never talked to.
    NewUnixPeer, "new-unix-peer", Medium, ["T1559"], ["AML.T0053"], ["MCP02:2025"];
    /// A part of the file system that it never read.
    NewFileArea, "new-file-area", Medium, ["T1005"], ["AML.T0086"], ["MCP02:2025"];
    /// A write, delete or change where it never did such a thing.
    NewWrite, "new-write", Medium, ["T1565.001"], ["AML.T0101"], ["MCP02:2025"];
    /// A key, a credential, a start-up file, a client's configuration.
    ProtectedObject, "protected-object", High, ["T1552.001"], ["AML.T0083", "AML.T0098"], ["MCP01:2025"];
    /// A start-up file, key list or client configuration was written.
    Persistence, "persistence", Critical, ["T1547", "T1053", "T1098.004"], ["AML.T0081"], ["MCP03:2025"];
    /// A container or agent socket: another's rights.
    DeputySocket, "deputy-socket", High, ["T1611", "T1559"], ["AML.T0105"], ["MCP02:2025"];
    /// A cloud metadata service.
    MetadataService, "metadata-service", Critical, ["T1552.005"], ["AML.T0098"], ["MCP01:2025"];
    /// An address of a private range that it has no business with.
    PrivateRange, "private-range", Medium, ["T1018", "T1046"], ["AML.T0053"], ["MCP05:2025"];
    /// Data in DNS questions.
    DnsTunnel, "dns-tunnel", High, ["T1071.004", "T1048"], ["AML.T0025"], ["MCP03:2025"];
    /// A TLS server name that no answer of a trusted resolver binds to this address.
    SniUnbound, "sni-unbound", Medium, ["T1090.004"], ["AML.T0086"], ["MCP03:2025"];
    /// Regular connections while no call runs.
    Beacon, "beacon", High, ["T1071", "T1029"], ["AML.T0072"], ["MCP03:2025"];
    /// Network use while no call runs.
    AmbientNetwork, "ambient-network", Medium, ["T1071"], ["AML.T0086"], ["MCP03:2025"];
    /// Far more bytes sent than ever before.
    Volume, "volume", High, ["T1030", "T1041"], ["AML.T0086"], ["MCP10:2025"];
    /// Little by little, far more than ever before.
    SlowExfiltration, "slow-exfiltration", High, ["T1030", "T1029"], ["AML.T0025"], ["MCP10:2025"];
    /// Far more of a resource than ever before, or than a limit allows.
    Exhaustion, "exhaustion", Medium, ["T1496", "T1499"], ["AML.T0034.002"], ["MCP02:2025"];
    /// A process that a call started still works after the reply.
    Outlived, "outlived", Medium, ["T1543"], ["AML.T0053"], ["MCP03:2025"];
    /// The server writes calls to itself.
    ForgedCall, "forged-call", Critical, ["T1565.002"], ["AML.T0053"], ["MCP06:2025"];
    /// A system call that it never used.
    UnusualSyscall, "unusual-syscall", Low, ["T1106"], [], ["MCP02:2025"];
    /// The 32-bit system call table.
    Compat, "compat", High, ["T1106", "T1562"], [], ["MCP02:2025"];
    /// io_uring: operations that most sensors do not see.
    IoUring, "io-uring", Medium, ["T1106", "T1562"], [], ["MCP02:2025"];
    /// A program that has no file.
    MemfdExec, "memfd-exec", Critical, ["T1620"], ["AML.T0050"], ["MCP05:2025"];
    /// Another process's memory or execution.
    Injection, "injection", Critical, ["T1055"], [], ["MCP05:2025"];
    /// Namespaces and mounts.
    Namespace, "namespace", High, ["T1611"], ["AML.T0105"], ["MCP02:2025"];
    /// Other rights than it had.
    Privilege, "privilege", High, ["T1548"], ["AML.T0105"], ["MCP02:2025"];
    /// Something was not seen while a call ran.
    Blinded, "blinded", Medium, ["T1562"], [], ["MCP08:2025"];
    /// A baseline has no room for what it should learn.
    TooLarge, "too-large", Medium, ["T1562"], [], ["MCP08:2025"];
    /// A server that was killed is started again and again.
    RespawnLoop, "respawn-loop", Medium, ["T1543"], ["AML.T0081"], ["MCP03:2025"];
    /// A person's rule denies it.
    RuleHit, "rule-hit", Medium, [], [], [];
    /// A person's limit is exceeded.
    LimitHit, "limit-hit", Medium, ["T1499"], ["AML.T0034.002"], ["MCP02:2025"];
    /// It went for the agent itself: its processes, its files.
    Tampering, "tampering", Critical, ["T1562.001"], [], ["MCP08:2025"];
    /// A hook that worked does not any more: its acts are not seen, or not denied.
    CoverageLost, "coverage-lost", High, ["T1562.001"], [], ["MCP08:2025"];
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_those_of_the_json() {
        for kind in Kind::ALL {
            let json = serde_json::to_value(kind).expect("a string");
            assert_eq!(json, kind.id());
        }
    }
}
