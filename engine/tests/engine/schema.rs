//! The published schemas are those of the types.

use engine::output::Line;

/// `TOOLWARDEN_BLESS=1 cargo test -p engine --test engine schema` writes the files anew.
fn compare(schema: &schemars::Schema, path: &str) {
    let text = serde_json::to_string_pretty(schema).expect("a schema is JSON") + "\n";
    let path = format!("{}/../{path}", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("TOOLWARDEN_BLESS").is_some() {
        std::fs::write(&path, &text).expect("its directory is writable");
    }
    let published = std::fs::read_to_string(&path).expect("it is there");
    assert!(published == text, "{path} is out of date: run this test with TOOLWARDEN_BLESS=1");
}

#[test]
fn the_published_schema_is_that_of_the_types() {
    compare(&schemars::schema_for!(Line), "docs/schema/event.schema.json");
}

#[test]
fn the_schema_beside_the_rules_is_that_of_the_types() {
    compare(&engine::rules::schema(), "rules/rule.schema.json");
}
