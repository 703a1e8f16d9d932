//! What the field calls it: MITRE ATT&CK and ATLAS.

use serde_json::{Value, json};

use super::super::read::texts;
use crate::commands::technique;

/// Version of ATLAS that the ids are of.
const ATLAS: &str = "5.6.0";

/// Techniques of a finding.
pub(super) fn attacks(finding: &Value) -> Vec<Value> {
    let attack = texts(finding, "/taxonomy/attack").map(|id| attack(id, None));
    let atlas = texts(finding, "/taxonomy/atlas").map(|id| self::attack(id, Some(ATLAS)));
    attack.chain(atlas).collect()
}

fn attack(id: &str, version: Option<&str>) -> Value {
    let name = technique(id).unwrap_or_default();
    match parent(id) {
        // Names of parts are written `Whole: Part`, where the whole has no id of its own here.
        Some(whole) => {
            let (of_whole, of_part) = name.split_once(": ").unwrap_or(("", name));
            json!({
                "version": version,
                "technique": { "uid": whole, "name": of_whole },
                "sub_technique": { "uid": id, "name": of_part },
            })
        }
        None => json!({ "version": version, "technique": { "uid": id, "name": name } }),
    }
}

/// `T1071` of `T1071.004`, `AML.T0034` of `AML.T0034.002`.
fn parent(id: &str) -> Option<&str> {
    let (whole, part) = id.rsplit_once('.')?;
    part.bytes().all(|b| b.is_ascii_digit()).then_some(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_have_a_whole() {
        assert_eq!(parent("T1071.004"), Some("T1071"));
        assert_eq!(parent("AML.T0034.002"), Some("AML.T0034"));
        assert_eq!((parent("T1071"), parent("AML.T0050")), (None, None));
        let dns = attack("T1071.004", None);
        assert_eq!(dns["sub_technique"], json!({ "uid": "T1071.004", "name": "DNS" }));
        assert_eq!(dns["technique"]["name"], "Application Layer Protocol");
    }
}
