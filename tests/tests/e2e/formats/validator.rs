//! Schemas of OCSF classes, strict at every level, made by `ocsf-json-schema` from the official export.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write as _,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

const VERSION: &str = "1.8.0";
/// Reads a list of class and profiles, writes a list of schemas.
const SCRIPT: &str = "
import json, sys
from ocsf_json_schema import OcsfJsonSchemaEmbedded, get_ocsf_schema
ocsf = OcsfJsonSchemaEmbedded(get_ocsf_schema(sys.argv[1]))
def schema(uid, profiles):
    return ocsf.get_class_schema(ocsf.lookup_class_name_from_uid(uid), profiles)
json.dump([schema(*wanted) for wanted in json.load(sys.stdin)], sys.stdout)
";

type Class = (u64, Vec<String>);

/// What an event says that it is.
fn class(event: &Value) -> Result<Class> {
    ensure!(event["metadata"]["version"] == VERSION, "not OCSF {VERSION}: {event}");
    let profiles = event["metadata"]["profiles"].as_array().cloned().unwrap_or_default();
    let mut profiles: Vec<String> = profiles.iter().filter_map(Value::as_str).map(str::to_owned).collect();
    profiles.sort();
    Ok((event["class_uid"].as_u64().with_context(|| format!("no class: {event}"))?, profiles))
}

/// Validates events.
pub(super) struct Ocsf {
    classes: BTreeMap<Class, jsonschema::Validator>,
}

impl Ocsf {
    pub(super) fn new() -> Self {
        Self { classes: BTreeMap::new() }
    }

    /// Gets the schemas of the classes that these are of.
    pub(super) fn learn(&mut self, events: &[Value]) -> Result<()> {
        let mut wanted: BTreeSet<Class> = events.iter().map(class).collect::<Result<_>>()?;
        wanted.retain(|class| !self.classes.contains_key(class));
        if wanted.is_empty() {
            return Ok(());
        }
        let python = e2e::workspace().join("target/e2e/venv/bin/python");
        ensure!(python.exists(), "{} is missing: run `cargo xtask setup`", python.display());
        let mut child = Command::new(python)
            .args(["-c", SCRIPT, VERSION])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut stdin = child.stdin.take().context("a pipe")?;
        stdin.write_all(serde_json::to_string(&wanted)?.as_bytes())?;
        drop(stdin);
        let done = child.wait_with_output()?;
        ensure!(done.status.success(), "ocsf-json-schema: {}", done.status);
        let schemas: Vec<Value> = serde_json::from_slice(&done.stdout)?;
        for (class, schema) in wanted.into_iter().zip(schemas) {
            let validator =
                jsonschema::validator_for(&schema).map_err(|e| anyhow::anyhow!("{class:?}: {e}"))?;
            self.classes.insert(class, validator);
        }
        Ok(())
    }

    pub(super) fn errors(&self, event: &Value) -> Result<Vec<String>> {
        let validator = self.classes.get(&class(event)?).context("a class that was not learned")?;
        Ok(validator.iter_errors(event).map(|e| format!("{}: {e}", e.instance_path())).collect())
    }
}
