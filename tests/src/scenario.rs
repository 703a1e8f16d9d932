//! An oracle server with its world, called by name.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::{
    client::{Client, Manner, Reply},
    truth::Truth,
    world::World,
};

/// A program of this package, next to the test that runs.
///
/// # Errors
/// When it was not built.
pub fn program(name: &str) -> Result<PathBuf> {
    let exe = std::env::current_exe()?;
    let near = exe.ancestors().skip(1).take(2).map(|dir| dir.join(name));
    near.into_iter()
        .find(|path| path.is_file())
        .with_context(|| format!("{name} is not built: cargo build -p e2e --bins"))
}

/// A running oracle.
pub struct Oracle {
    /// Its client.
    pub client: Client,
    truth: PathBuf,
}

impl Oracle {
    /// Starts one. `name` tells several in one world apart.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start(world: &World, name: &str, manner: Manner) -> Result<Self> {
        let (command, truth) = Self::command(world, name, &program("oracle")?)?;
        let client = Client::start(command, manner)?;
        Ok(Self { client, truth })
    }

    /// The command line, and where the truth goes.
    ///
    /// # Errors
    /// When its directory cannot be made.
    pub fn command(world: &World, name: &str, program: &Path) -> Result<(Command, PathBuf)> {
        let dir = world.dir().join(name);
        std::fs::create_dir_all(&dir)?;
        let truth = world.dir().join(format!("{name}.truth"));
        let mut command = Command::new(program);
        command.arg("--truth").arg(&truth).arg("--dir").arg(&dir);
        world.introduce(&mut command);
        Ok((command, truth))
    }

    /// Calls a tool that must succeed.
    ///
    /// # Errors
    /// When it does not.
    pub fn call(&mut self, tool: &str) -> Result<(Value, Reply)> {
        let (id, reply) = self.client.call(tool, &json!({}))?;
        let expected = !matches!(tool, "error_tool" | "fail");
        ensure!(reply.is_ok() == expected, "{tool}: {}", reply.body);
        Ok((id, reply))
    }

    /// Names of its tools.
    ///
    /// # Errors
    /// When it does not say.
    pub fn tools(&mut self) -> Result<Vec<String>> {
        let list = self.client.list()?;
        let tools = list.body["result"]["tools"].as_array();
        let tools = tools.with_context(|| format!("no tools: {}", list.body))?;
        Ok(tools.iter().filter_map(|t| t["name"].as_str().map(str::to_owned)).collect())
    }

    /// What it has written down so far, in order of time.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn truths(&self) -> Result<Vec<Truth>> {
        read_truths(&self.truth)
    }

    /// Where the truth goes.
    #[must_use]
    pub fn truth_file(&self) -> &Path {
        &self.truth
    }
}

/// Reads a truth log, in order of time.
///
/// # Errors
/// When it cannot be read.
pub fn read_truths(path: &Path) -> Result<Vec<Truth>> {
    let text = std::fs::read_to_string(path)?;
    let mut truths: Vec<Truth> = text
        .lines()
        .map(|line| serde_json::from_str(line).with_context(|| format!("truth: {line}")))
        .collect::<Result<_>>()?;
    truths.sort_by_key(|t| t.at_boot_ns);
    Ok(truths)
}
