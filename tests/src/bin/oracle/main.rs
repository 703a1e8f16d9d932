//! The oracle server: an MCP server whose tools have known effects and log the truth.
//!
//! # Layout
//! - [`ready`]: what acts need and must not fetch while they act
//! - [`log`]: the truth log
//! - [`tools`]: the tools by name
//! - [`files`], [`process`], [`network`], [`kernel`], [`timing`]: the acts
//! - [`server`][]: MCP

mod files;
mod kernel;
mod log;
mod network;
mod process;
mod ready;
mod server;
mod timing;
mod tools;

use std::{path::PathBuf, sync::Arc};

use anyhow::{Context as _, bail};
use e2e::sys;

fn main() -> anyhow::Result<()> {
    sys::one_arena();
    let mut truth = None;
    let mut dir = None;
    let mut pipes = false;
    let mut peers = log::Peers::default();
    let mut args = std::env::args().skip(1);
    while let Some(flag) = args.next() {
        if flag == "--pipes" {
            pipes = true;
            continue;
        }
        let value = args.next().with_context(|| format!("{flag} needs a value"))?;
        match flag.as_str() {
            "--truth" => truth = Some(value),
            "--dir" => dir = Some(PathBuf::from(value)),
            "--sink4" => peers.sink4 = value.parse()?,
            "--sink6" => {
                peers.sink6 = value.split(',').map(str::parse).collect::<Result<_, _>>()?;
            }
            "--resolver" => peers.resolvers = list(&value),
            "--unix" => peers.unix = list(&value),
            "--abstract" => peers.names = list(&value),
            _ => bail!("unknown option {flag}"),
        }
    }
    let dir = dir.context("--dir DIR")?.canonicalize()?;
    let env = Arc::new(log::Env {
        log: log::Log::open(&truth.context("--truth FILE")?)?,
        ready: ready::Ready::new(&dir)?,
        peers,
        dir,
    });
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(2).enable_all().build()?;
    let served = runtime.block_on(server::serve(env, pipes));
    // Threads that still sleep must not hold the process after its client has gone.
    runtime.shutdown_background();
    served
}

fn list(value: &str) -> Vec<String> {
    value.split(',').map(str::to_owned).collect()
}
