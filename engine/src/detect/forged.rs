//! The server writes calls to itself (ATT&CK T1565.002). The engine sees it: the tree opens its own
//! request channel for writing, or writes into it. No honest server does. There is no threshold.

use super::Hit;
use crate::{
    finding::Kind,
    output::{ServerEvent, ServerLine},
};

pub(super) fn server(line: &ServerLine, hits: &mut Vec<Hit>) {
    if line.event != ServerEvent::Forging {
        return;
    }
    hits.push(Hit {
        kind: Kind::ForgedCall,
        severity: None,
        object: "request channel".into(),
        why: line.detail.clone().unwrap_or_else(|| "it wrote into its own request channel".into()),
    });
}

#[cfg(test)]
mod tests {
    use super::{super::testing, *};
    use crate::output::Startup;

    #[test]
    fn forging_is_critical_and_nothing_else_is() {
        let mut hits = Vec::new();
        for event in [ServerEvent::Found, ServerEvent::Identified, ServerEvent::Ended, ServerEvent::Forging] {
            server(&testing::server(event, Startup::default()), &mut hits);
        }
        assert_eq!(hits.len(), 1);
        assert_eq!(
            (hits[0].kind, hits[0].kind.severity()),
            (Kind::ForgedCall, crate::finding::Severity::Critical)
        );
    }
}
