//! The published schema of what sinks write in format `json`: docs/schema/sink.schema.json.

use engine::{finding::Finding, respond::ResponseLine};
use schemars::JsonSchema;

use super::json::Envelope;
use crate::{
    desk::{Acted, Life},
    store::Gap,
};

/// One line of a sink in format `json`.
#[derive(JsonSchema)]
#[schemars(title = "SinkLine")]
#[expect(dead_code, reason = "only its schema is used")]
struct Line {
    #[serde(flatten)]
    told: Told,
    #[serde(flatten)]
    envelope: Envelope<'static>,
}

/// What it tells.
#[derive(JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
#[expect(dead_code, reason = "only its schema is used")]
enum Told {
    /// Something is out of line.
    Finding(Box<Finding>),
    /// Something was done about it.
    Response(Box<ResponseLine>),
    /// What a server did, for sinks that ask for it.
    Effect(Acted<'static>),
    /// The agent itself.
    Agent(Life),
    /// Events that a sink will never get.
    Gap(Gap),
}

#[test]
fn the_published_schema_is_that_of_the_types() {
    let text = serde_json::to_string_pretty(&schemars::schema_for!(Line)).expect("JSON") + "\n";
    let path = format!("{}/../docs/schema/sink.schema.json", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("TOOLWARDEN_BLESS").is_some() {
        std::fs::write(&path, &text).expect("its directory is writable");
    }
    let published = std::fs::read_to_string(&path).expect("it is there");
    assert!(published == text, "{path} is out of date: run this test with TOOLWARDEN_BLESS=1");
}
