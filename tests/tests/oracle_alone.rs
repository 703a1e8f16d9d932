//! The oracle itself: every tool does what it says, in every manner of talking.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use e2e::{
    client::{Era, Link, Manner, Order},
    scenario::Oracle,
    world::World,
};
use serde_json::json;

#[test]
fn every_tool_succeeds_and_logs() -> Result<()> {
    let world = World::new()?;
    let manners = [
        Manner::default(),
        Manner {
            link: Link::Sockets,
            order: Order::Python,
            era: Era::Stateless,
            text_ids: true,
        },
        Manner {
            order: Order::ArgumentsFirst,
            ..Manner::default()
        },
    ];
    for (n, manner) in manners.into_iter().enumerate() {
        let mut oracle = Oracle::start(&world, &format!("alone{n}"), manner)?;
        let meta = json!({"_meta": {
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientInfo": {"name": "e2e", "version": "1"},
            "io.modelcontextprotocol/clientCapabilities": {},
        }});
        let params = match manner.era {
            Era::Handshake => json!({}),
            Era::Stateless => meta,
        };
        let list = oracle.client.request("tools/list", &params.to_string())?;
        let tools = list.body["result"]["tools"].as_array().cloned();
        let tools = tools.unwrap_or_default();
        ensure!(tools.len() > 60, "only {} tools", tools.len());
        let mut called = BTreeSet::new();
        for tool in &tools {
            let tool = tool["name"].as_str().unwrap_or_default().to_owned();
            oracle.call(&tool)?;
            called.insert(tool);
        }
        std::thread::sleep(std::time::Duration::from_millis(250));
        let truths = oracle.truths()?;
        let kinds: BTreeSet<_> = truths.iter().map(|t| t.act.kind()).collect();
        println!(
            "{manner:?}: {} tools, {} truths, kinds {kinds:?}",
            called.len(),
            truths.len()
        );
        ensure!(kinds.len() == 17, "kinds: {kinds:?}");
    }
    Ok(())
}
