//! Which host an event is from.

use std::fmt::Write as _;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// On every event.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Host {
    /// Name: of the configuration, else the kernel's.
    pub(crate) name: String,
    /// Stable for an installation: derived from the machine id, which is not to be told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) id: Option<String>,
    /// Cluster, as configured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cluster: Option<String>,
}

impl Host {
    /// This one.
    pub(crate) fn this(name: Option<String>, cluster: Option<String>) -> Self {
        let name = name.unwrap_or_else(|| rustix::system::uname().nodename().to_string_lossy().into_owned());
        let machine = std::fs::read_to_string("/etc/machine-id").ok();
        let id = machine.as_deref().map(str::trim).filter(|id| !id.is_empty()).map(derived);
        Self { name, id, cluster }
    }
}

/// machine-id(5): "should be considered confidential"; applications are to derive their own from it.
fn derived(machine: &str) -> String {
    let digest = Sha256::digest(format!("toolwarden host {machine}"));
    digest.iter().take(16).fold(String::new(), |mut hex, byte| {
        // Writing into memory cannot fail.
        let _unused = write!(hex, "{byte:02x}");
        hex
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_id_is_not_told() {
        let id = derived("0123456789abcdef0123456789abcdef");
        assert_eq!(id.len(), 32);
        assert_ne!(id, "0123456789abcdef0123456789abcdef");
        assert_eq!(Host::this(Some("a".into()), None).name, "a");
        assert!(!Host::this(None, None).name.is_empty());
    }
}
