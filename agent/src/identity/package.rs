//! The package that an entry point belongs to.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::inside::Inside;

/// Longest `package.json` looked at.
const MAX_MANIFEST: u64 = 4 << 20;
/// Longest name and version; npm allows 214, PyPI less.
const MAX_NAME: usize = 256;

/// A package, as its own files or its launcher say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Package {
    /// `npm:NAME`, `pypi:NAME`, `docker:IMAGE`.
    pub(super) id: String,
    pub(super) version: Option<String>,
    /// Its directory, if it has one of its own.
    pub(super) dir: Option<PathBuf>,
}

impl Package {
    pub(super) fn named(registry: &str, name: &str, version: Option<String>) -> Self {
        Self { id: format!("{registry}:{name}"), version, dir: None }
    }
}

/// A name that may be shown.
pub(super) fn claim(text: &str) -> Option<String> {
    let fits = !text.is_empty() && text.len() <= MAX_NAME && !text.chars().any(char::is_control);
    fits.then(|| text.to_owned())
}

/// The npm package of a file: the one that `node_modules` was unpacked into, else the nearest
/// `package.json` with a name (`dist/package.json` often holds a module type and nothing else).
/// `entry` is the resolved path: links in `.bin` lead into the package.
pub(super) fn npm(inside: &Inside, entry: &Path, script: bool) -> Option<Package> {
    if let Some(dir) = unpacked(entry) {
        return manifest(inside, &dir);
    }
    // An executable outside node_modules has nothing to do with a package.json further up.
    if !script {
        return None;
    }
    entry.ancestors().skip(1).find_map(|dir| manifest(inside, dir))
}

/// `.../node_modules/@scope/name` of a path below it.
fn unpacked(entry: &Path) -> Option<PathBuf> {
    let parts: Vec<_> = entry.components().collect();
    let at = parts.iter().rposition(|part| part.as_os_str() == "node_modules")?;
    let scoped = parts.get(at + 1)?.as_os_str().to_str()?.starts_with('@');
    let end = at + if scoped { 3 } else { 2 };
    // The file itself is no directory.
    (end < parts.len()).then(|| parts.iter().take(end).collect())
}

fn manifest(inside: &Inside, dir: &Path) -> Option<Package> {
    let text = inside.text(&dir.join("package.json"), MAX_MANIFEST)?;
    let manifest: Value = serde_json::from_str(&text).ok()?;
    let field = |name| manifest.get(name).and_then(Value::as_str).and_then(claim);
    let package = Package::named("npm", &field("name")?, field("version"));
    Some(Package { dir: Some(dir.to_path_buf()), ..package })
}
