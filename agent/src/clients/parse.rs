//! A configuration file's bytes to servers.

use std::path::PathBuf;

use serde_json::{Map, Value};

use super::jsonc;

/// How a client writes its servers down.
#[derive(Clone, Copy, Debug)]
pub(super) enum Shape {
    /// JSON; servers under the first of these key paths that exists.
    Json(&'static [&'static [&'static str]]),
    /// JSON of a plugin: `mcpServers`, or the servers themselves.
    Bare,
    /// `~/.claude.json`: `mcpServers` and `projects.PATH.mcpServers`.
    Claude,
    /// TOML: `mcp_servers` as a table or an array of tables, and `projects.PATH`.
    TomlServers,
    /// YAML; servers under this key path.
    Yaml(&'static [&'static str]),
    /// An editor's note of a folder that was opened: no servers, a project.
    Workspace,
}

/// One server.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) project: Option<PathBuf>,
    pub(super) command: String,
    pub(super) args: Vec<String>,
}

/// What a file says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Parsed {
    pub(super) entries: Vec<Entry>,
    /// Directories that have files of their own.
    pub(super) projects: Vec<PathBuf>,
}

/// Parse. The reason of a failure holds a place, never text: the file may be any file.
pub(super) fn parse(shape: Shape, bytes: &[u8]) -> Result<Parsed, String> {
    let mut parsed = Parsed::default();
    match shape {
        Shape::Json(paths) => {
            let value = json(bytes)?;
            let found = paths.iter().find_map(|path| follow(&value, path));
            servers(found, None, &mut parsed.entries);
        }
        Shape::Bare => {
            let value = json(bytes)?;
            servers(value.get("mcpServers").or(Some(&value)), None, &mut parsed.entries);
        }
        Shape::Claude => {
            let value = json(bytes)?;
            servers(value.get("mcpServers"), None, &mut parsed.entries);
            projects(&value, &mut parsed);
        }
        Shape::TomlServers => {
            let text = std::str::from_utf8(bytes).map_err(not_utf8)?;
            let value: Value = toml::from_str(text).map_err(|error| {
                let at = error.span().map_or(0, |span| span.start);
                format!("not TOML, at byte {at}")
            })?;
            servers(value.get("mcp_servers"), None, &mut parsed.entries);
            projects(&value, &mut parsed);
        }
        Shape::Yaml(path) => {
            let text = std::str::from_utf8(bytes).map_err(not_utf8)?;
            // Its message may quote the text.
            let value: Value = serde_saphyr::from_str(text).map_err(|error| {
                let line = error.location().map_or(0, |location| location.line());
                format!("not YAML, at line {line}")
            })?;
            servers(follow(&value, path), None, &mut parsed.entries);
        }
        Shape::Workspace => {
            let value = json(bytes)?;
            let folder = value.get("folder").and_then(Value::as_str).and_then(file_url);
            parsed.projects.extend(folder);
        }
    }
    Ok(parsed)
}

fn not_utf8(error: std::str::Utf8Error) -> String {
    format!("not UTF-8, at byte {}", error.valid_up_to())
}

fn json(bytes: &[u8]) -> Result<Value, String> {
    // A client makes an empty file before it has something to say.
    if bytes.trim_ascii().is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_slice(&jsonc::to_json(bytes))
        .map_err(|error| format!("not JSON, at line {} column {}", error.line(), error.column()))
}

fn follow<'a>(value: &'a Value, path: &[&str]) -> Option<&'a Value> {
    path.iter().try_fold(value, |value, key| value.get(*key))
}

fn projects(value: &Value, parsed: &mut Parsed) {
    let Some(projects) = value.get("projects").and_then(Value::as_object) else {
        return;
    };
    for (dir, project) in projects {
        let dir = PathBuf::from(dir);
        if dir.is_absolute() {
            servers(project.get("mcpServers"), Some(&dir), &mut parsed.entries);
            parsed.projects.push(dir);
        }
    }
}

/// Servers from a map of name to server, or from an array of servers with a name.
fn servers(value: Option<&Value>, project: Option<&PathBuf>, entries: &mut Vec<Entry>) {
    let mut add = |name: &str, server: &Value| {
        let Some(server) = server.as_object() else {
            return;
        };
        if let Some((command, args)) = command(server) {
            let (name, project) = (name.to_owned(), project.cloned());
            entries.push(Entry { name, project, command, args });
        }
    };
    match value {
        Some(Value::Object(map)) => map.iter().for_each(|(name, server)| add(name, server)),
        Some(Value::Array(list)) => list.iter().for_each(|server| {
            if let Some(name) = server.get("name").and_then(Value::as_str) {
                add(name, server);
            }
        }),
        _ => {}
    }
}

/// Command and arguments, in any of the ways they are written. Remote servers have none.
fn command(server: &Map<String, Value>) -> Option<(String, Vec<String>)> {
    let strings = |value: Option<&Value>| -> Vec<String> {
        let items = value.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        items.iter().filter_map(scalar).collect()
    };
    let (command, mut args) = match server.get("command").or_else(|| server.get("cmd"))? {
        Value::String(command) => (command.clone(), Vec::new()),
        // opencode: command and arguments in one array.
        array @ Value::Array(_) => {
            let mut words = strings(Some(array)).into_iter();
            (words.next()?, words.collect())
        }
        // Zed, formerly: {"path": ..., "args": [...]}.
        Value::Object(inner) => (inner.get("path")?.as_str()?.to_owned(), strings(inner.get("args"))),
        _ => return None,
    };
    args.extend(strings(server.get("args")));
    (!command.is_empty()).then_some((command, args))
}

/// YAML and careless JSON write `- 8080` for an argument.
fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        _ => None,
    }
}

/// `file:///a%20b` to `/a b`.
fn file_url(url: &str) -> Option<PathBuf> {
    let mut path = Vec::new();
    let mut rest = url.strip_prefix("file://")?.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        let escaped = (byte == b'%')
            .then(|| tail.get(..2))
            .flatten()
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        path.push(escaped.unwrap_or(byte));
        rest = if escaped.is_some() { tail.get(2..).unwrap_or_default() } else { tail };
    }
    let path = PathBuf::from(String::from_utf8(path).ok()?);
    path.is_absolute().then_some(path)
}
