//! The published schema is the one of the types.

use engine::output::Line;

/// `TOOLWARDEN_BLESS=1 cargo test -p engine --test engine schema` writes the file anew.
#[test]
fn the_published_schema_is_that_of_the_types() {
    let schema = schemars::schema_for!(Line);
    let text = serde_json::to_string_pretty(&schema).expect("a schema is JSON") + "\n";
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/schema/event.schema.json");
    if std::env::var_os("TOOLWARDEN_BLESS").is_some() {
        std::fs::write(path, &text).expect("docs/schema is writable");
    }
    let published = std::fs::read_to_string(path).expect("docs/schema/event.schema.json is there");
    assert!(
        published == text,
        "docs/schema/event.schema.json is out of date: run this test with TOOLWARDEN_BLESS=1"
    );
}
