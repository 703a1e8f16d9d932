//! The oracle itself: every tool does what it says, in every manner of talking.

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Result, ensure};
use e2e::{scenario::Oracle, world::World};

#[test]
fn oracle_alone() -> Result<()> {
    let world = World::new()?;
    for (n, manner) in super::spaced::manners().into_iter().enumerate() {
        let mut oracle = Oracle::start(&world, &format!("alone{n}"), manner)?;
        let tools = oracle.tools()?;
        ensure!(tools.len() > 60, "only {} tools", tools.len());
        for tool in &tools {
            oracle.call(tool)?;
        }
        std::thread::sleep(Duration::from_millis(250));
        let truths = oracle.truths()?;
        let kinds: BTreeSet<_> = truths.iter().map(|t| t.act.kind()).collect();
        println!("{manner:?}: {} tools, {} acts", tools.len(), truths.len());
        ensure!(kinds.len() == 17, "kinds: {kinds:?}");
    }
    Ok(())
}
