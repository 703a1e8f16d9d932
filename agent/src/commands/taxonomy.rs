//! Names of the ids that findings carry; an id without a name here is shown alone.

const NAMES: &[(&str, &str)] = &[
    ("T1005", "Data from Local System"),
    ("T1018", "Remote System Discovery"),
    ("T1029", "Scheduled Transfer"),
    ("T1030", "Data Transfer Size Limits"),
    ("T1041", "Exfiltration Over C2 Channel"),
    ("T1046", "Network Service Discovery"),
    ("T1048", "Exfiltration Over Alternative Protocol"),
    ("T1053", "Scheduled Task/Job"),
    ("T1055", "Process Injection"),
    ("T1059", "Command and Scripting Interpreter"),
    ("T1071", "Application Layer Protocol"),
    ("T1071.004", "Application Layer Protocol: DNS"),
    ("T1090.004", "Proxy: Domain Fronting"),
    ("T1098.004", "Account Manipulation: SSH Authorized Keys"),
    ("T1106", "Native API"),
    ("T1195", "Supply Chain Compromise"),
    ("T1496", "Resource Hijacking"),
    ("T1499", "Endpoint Denial of Service"),
    ("T1543", "Create or Modify System Process"),
    ("T1547", "Boot or Logon Autostart Execution"),
    ("T1548", "Abuse Elevation Control Mechanism"),
    ("T1552.001", "Unsecured Credentials: Credentials In Files"),
    ("T1552.005", "Unsecured Credentials: Cloud Instance Metadata API"),
    ("T1559", "Inter-Process Communication"),
    ("T1562", "Impair Defenses"),
    ("T1562.001", "Impair Defenses: Disable or Modify Tools"),
    ("T1565.001", "Data Manipulation: Stored Data"),
    ("T1565.002", "Data Manipulation: Transmitted Data"),
    ("T1571", "Non-Standard Port"),
    ("T1611", "Escape to Host"),
    ("T1620", "Reflective Code Loading"),
    ("AML.T0025", "Exfiltration via Cyber Means"),
    ("AML.T0034.002", "Agentic Resource Consumption"),
    ("AML.T0050", "Command and Scripting Interpreter"),
    ("AML.T0053", "AI Agent Tool Invocation"),
    ("AML.T0072", "Reverse Shell"),
    ("AML.T0081", "Modify AI Agent Configuration"),
    ("AML.T0083", "Credentials from AI Agent Configuration"),
    ("AML.T0086", "Exfiltration via AI Agent Tool Invocation"),
    ("AML.T0098", "AI Agent Tool Credential Harvesting"),
    ("AML.T0101", "Data Destruction via AI Agent Tool Invocation"),
    ("AML.T0103", "Deploy AI Agent"),
    ("AML.T0105", "Escape to Host"),
    ("AML.T0109", "AI Supply Chain Rug Pull"),
    ("AML.T0110", "AI Agent Tool Poisoning"),
    ("MCP01:2025", "Token Mismanagement & Secret Exposure"),
    ("MCP02:2025", "Privilege Escalation via Scope Creep"),
    ("MCP03:2025", "Tool Poisoning"),
    ("MCP04:2025", "Supply Chain & Dependency Tampering"),
    ("MCP05:2025", "Command Injection & Execution"),
    ("MCP06:2025", "Intent Flow Subversion"),
    ("MCP07:2025", "Insufficient Authentication & Authorization"),
    ("MCP08:2025", "Lack of Audit & Telemetry"),
    ("MCP09:2025", "Shadow MCP Servers"),
    ("MCP10:2025", "Context Injection & Over-Sharing"),
];

/// What an id is called.
pub(crate) fn name(id: &str) -> Option<&'static str> {
    NAMES.iter().find(|(known, _)| *known == id).map(|(_, name)| *name)
}

#[cfg(test)]
mod tests {
    use engine::finding::Kind;

    use super::*;

    #[test]
    fn what_kinds_carry_has_a_name() {
        let unnamed: Vec<_> = Kind::ALL
            .iter()
            .flat_map(|kind| {
                let t = kind.taxonomy();
                [t.attack, t.atlas, t.owasp_mcp].concat()
            })
            .filter(|id| name(id).is_none())
            .collect();
        assert!(unnamed.is_empty(), "{unnamed:?}");
    }
}
