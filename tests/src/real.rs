//! MCP servers that we did not write, as `cargo xtask setup --tests` installs them.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::world::World;

/// One server: how to start it, and what to call.
pub struct Plan {
    /// Name for people.
    pub name: &'static str,
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Environment.
    pub env: Vec<(&'static str, String)>,
    /// Calls, in order.
    pub calls: Vec<(&'static str, Value)>,
    /// It installs things at its first call ever: call it once before watching it.
    pub installs: bool,
}

impl Plan {
    /// As a command.
    #[must_use]
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.argv[0]);
        command.args(&self.argv[1..]);
        command.envs(self.env.iter().map(|(k, v)| (k, v)));
        command
    }
}

/// Where they are installed.
fn installed(path: &str) -> Result<String> {
    let path = crate::workspace().join("target/e2e").join(path);
    ensure!(path.exists(), "{} is not installed: cargo xtask setup --tests", path.display());
    Ok(path.display().to_string())
}

fn npm(package: &str) -> Result<Vec<String>> {
    let script = format!("npm/node_modules/@modelcontextprotocol/{package}/dist/index.js");
    Ok(vec!["node".into(), installed(&script)?])
}

fn pypi(script: &str) -> Result<Vec<String>> {
    Ok(vec![installed(&format!("venv/bin/{script}"))?])
}

fn git(dir: &Path, arguments: &[&str]) -> Result<()> {
    let run = Command::new("git")
        .arg("-C")
        .arg(dir)
        .args(["-c", "user.name=e2e", "-c", "user.email=e2e@localhost"])
        .args(arguments)
        .output()?;
    ensure!(run.status.success(), "{run:?}");
    Ok(())
}

fn fresh(dir: PathBuf) -> Result<String> {
    std::fs::create_dir_all(&dir)?;
    Ok(dir.canonicalize()?.display().to_string())
}

/// npm: filesystem.
///
/// # Errors
/// When it is not installed.
pub fn filesystem(world: &World) -> Result<Plan> {
    let dir = fresh(world.dir().join("filesystem"))?;
    let at = |name: &str| format!("{dir}/{name}");
    std::fs::write(at("a.txt"), "alpha\nbeta\n")?;
    std::fs::write(at("b.txt"), "gamma\n")?;
    let mut argv = npm("server-filesystem")?;
    argv.push(dir.clone());
    let edit = json!([{"oldText": "beta", "newText": "delta"}]);
    Ok(Plan {
        name: "filesystem",
        argv,
        env: Vec::new(),
        calls: vec![
            ("list_allowed_directories", json!({})),
            ("read_text_file", json!({"path": at("a.txt")})),
            ("read_multiple_files", json!({"paths": [at("a.txt"), at("b.txt")]})),
            ("write_file", json!({"path": at("c.txt"), "content": "new\n"})),
            ("write_file", json!({"path": at("c.txt"), "content": "newer\n"})),
            ("edit_file", json!({"path": at("a.txt"), "edits": edit})),
            ("create_directory", json!({"path": at("d/e")})),
            ("move_file", json!({"source": at("b.txt"), "destination": at("d/b.txt")})),
            ("list_directory", json!({"path": dir})),
            ("directory_tree", json!({"path": dir})),
            ("search_files", json!({"path": dir, "pattern": "*.txt"})),
            ("get_file_info", json!({"path": at("a.txt")})),
        ],
        installs: false,
    })
}

/// npm: everything.
///
/// # Errors
/// When it is not installed.
pub fn everything(_world: &World) -> Result<Plan> {
    Ok(Plan {
        name: "everything",
        argv: npm("server-everything")?,
        env: Vec::new(),
        calls: vec![
            ("echo", json!({"message": "hello"})),
            ("get-sum", json!({"a": 1, "b": 2})),
            ("get-env", json!({})),
            ("get-tiny-image", json!({})),
            ("trigger-long-running-operation", json!({"duration": 1, "steps": 3})),
        ],
        installs: false,
    })
}

/// npm: memory.
///
/// # Errors
/// When it is not installed.
pub fn memory(world: &World) -> Result<Plan> {
    let dir = fresh(world.dir().join("memory"))?;
    let one = json!([{"name": "Ada", "entityType": "person", "observations": ["counts"]}]);
    Ok(Plan {
        name: "memory",
        argv: npm("server-memory")?,
        env: vec![("MEMORY_FILE_PATH", format!("{dir}/memory.json"))],
        calls: vec![
            ("create_entities", json!({"entities": one})),
            ("read_graph", json!({})),
            ("search_nodes", json!({"query": "Ada"})),
            ("delete_entities", json!({"entityNames": ["Ada"]})),
        ],
        installs: false,
    })
}

/// PyPI: git.
///
/// # Errors
/// When it or git is not installed.
pub fn git_server(world: &World) -> Result<Plan> {
    let dir = fresh(world.dir().join("repository"))?;
    let path = Path::new(&dir);
    git(path, &["init", "-q"])?;
    std::fs::write(path.join("one"), "1\n")?;
    git(path, &["add", "one"])?;
    git(path, &["commit", "-q", "-m", "one"])?;
    std::fs::write(path.join("two"), "2\n")?;
    let mut argv = pypi("mcp-server-git")?;
    argv.extend(["--repository".into(), dir.clone()]);
    let at = json!({"repo_path": dir});
    Ok(Plan {
        name: "git",
        argv,
        env: Vec::new(),
        calls: vec![
            ("git_status", at.clone()),
            ("git_log", at.clone()),
            ("git_diff_unstaged", at.clone()),
            ("git_add", json!({"repo_path": dir, "files": ["two"]})),
            ("git_diff_staged", at.clone()),
            ("git_status", at),
        ],
        installs: false,
    })
}

/// PyPI: fetch, against a web server of ours. Its HTML reader runs `npm install` at the first call
/// ever, and `node` at every call.
///
/// # Errors
/// When it is not installed.
pub fn fetch(world: &World) -> Result<Plan> {
    let mut argv = pypi("mcp-server-fetch")?;
    argv.extend(["--allow-private-ips".into(), "--ignore-robots-txt".into()]);
    let url = |host: &str| json!({"url": format!("http://{host}:{}/page", world.web())});
    Ok(Plan {
        name: "fetch",
        argv,
        env: Vec::new(),
        calls: vec![("fetch", url("127.0.0.1")), ("fetch", url("localhost")), ("fetch", url("127.0.0.1"))],
        installs: true,
    })
}

/// PyPI: time.
///
/// # Errors
/// When it is not installed.
pub fn time(_world: &World) -> Result<Plan> {
    let convert = json!({"source_timezone": "Europe/Berlin", "time": "12:30",
        "target_timezone": "Asia/Tokyo"});
    Ok(Plan {
        name: "time",
        argv: pypi("mcp-server-time")?,
        env: Vec::new(),
        calls: vec![
            ("get_current_time", json!({"timezone": "Europe/Berlin"})),
            ("get_current_time", json!({"timezone": "America/New_York"})),
            ("convert_time", convert),
        ],
        installs: false,
    })
}

/// Whether what [`fetch`] installs by itself is there.
#[must_use]
pub fn fetch_is_warm() -> bool {
    let lib = crate::workspace().join("target/e2e/venv/lib");
    std::fs::read_dir(lib).is_ok_and(|mut dir| {
        dir.any(|python| {
            let site = python.map(|p| p.path().join("site-packages"));
            site.is_ok_and(|s| s.join("readabilipy/javascript/node_modules").exists())
        })
    })
}
