//! Every line is as docs/schema says, and the schema is no rubber stamp.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, Result, ensure};
use e2e::{agent::Agent, client::Manner, scenario::Oracle, world::World};
use serde_json::{Value, json};

#[test]
fn schema() -> Result<()> {
    let file = e2e::workspace().join("docs/schema/event.schema.json");
    let text = std::fs::read_to_string(&file).with_context(|| file.display().to_string())?;
    let schema: Value = serde_json::from_str(&text)?;
    let validator = jsonschema::validator_for(&schema).map_err(|e| anyhow::anyhow!("{e}"))?;
    let world = World::new()?;
    let mut agent = Agent::start(&[])?;
    let mut oracle = Oracle::start(&world, "schema", Manner::default())?;
    for tool in oracle.tools()? {
        oracle.call(&tool)?;
    }
    drop(oracle);
    agent.settle(Duration::from_millis(500));
    agent.stop(libc::SIGINT)?;
    let lines = agent.lines()?;
    let mut types: BTreeMap<String, usize> = BTreeMap::new();
    let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
    for printed in &lines {
        let line: Value = serde_json::from_str(&printed.text)?;
        let errors: Vec<_> = validator.iter_errors(&line).map(|e| e.to_string()).collect();
        ensure!(errors.is_empty(), "{errors:?}\n{line:#}");
        let name = |v: &Value| v.as_str().unwrap_or("?").to_owned();
        *types.entry(name(&line["type"])).or_default() += 1;
        if line["type"] == "effect" {
            *kinds.entry(name(&line["effect"]["kind"])).or_default() += 1;
        }
    }
    println!("{} valid lines: {types:?}; effects: {kinds:?}", lines.len());
    for wanted in ["server", "call", "effect", "coverage"] {
        ensure!(types.contains_key(wanted), "no {wanted} line to validate");
    }
    ensure!(kinds.len() >= 14, "kinds of effects: {kinds:?}");
    // Broken in every way that matters.
    let mut refused = 0;
    let good = lines.iter().find(|p| p.text.contains("\"type\":\"effect\""));
    let good: Value = serde_json::from_str(&good.context("an effect line")?.text)?;
    let breaks: [(&str, Value); 5] = [
        ("/type", json!("effekt")),
        ("/time/boot_ns", json!("soon")),
        ("/scope/certainty", json!("sure")),
        ("/effect/kind", json!("unheard_of")),
        ("/count", json!(-1)),
    ];
    for (at, value) in breaks {
        let mut broken = good.clone();
        *broken.pointer_mut(at).with_context(|| at.to_owned())? = value;
        ensure!(!validator.is_valid(&broken), "passes although broken at {at}");
        refused += 1;
    }
    for key in ["server", "scope", "process", "effect", "uid"] {
        let mut broken = good.clone();
        let object = broken.as_object_mut().context("an object")?;
        object.remove(key).with_context(|| key.to_owned())?;
        ensure!(!validator.is_valid(&broken), "passes without {key}");
        refused += 1;
    }
    println!("{refused} broken lines refused");
    Ok(())
}
