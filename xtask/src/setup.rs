//! Which parts a machine needs, which are there, and making the rest.

use std::time::Instant;

use anyhow::{Result, bail};

use crate::{
    apt, operations, receivers, servers,
    steps::{Steps, seconds},
    toolchain, tools, vm,
    workspace::{Workspace, on_path},
};

/// Something that a machine needs once.
pub(crate) struct Part {
    name: &'static str,
    /// How it is there, or `None`. Must be quick: every `cargo xtask test` asks.
    there: fn(&Workspace) -> Option<String>,
    /// How many steps `make` begins.
    steps: usize,
    make: fn(&Workspace, &mut Steps) -> Result<()>,
}

impl Part {
    pub(crate) fn name(&self) -> &'static str {
        self.name
    }
}

const TOOLCHAIN: Part =
    Part { name: "BPF toolchain", there: toolchain::there, steps: toolchain::STEPS, make: toolchain::make };

const CLIPPY: Part = Part {
    name: "lints for the BPF target",
    there: toolchain::clippy_there,
    steps: 1,
    make: toolchain::make_clippy,
};

const DENY: Part = Part {
    name: "cargo-deny",
    there: |workspace| tools::DENY.is_there(workspace).then(|| tools::DENY.version.to_owned()),
    steps: 1,
    make: |workspace, steps| {
        steps.begin("building cargo-deny (minutes, once)");
        tools::DENY.install(workspace, steps, tools::QUICKLY, &[])
    },
};

const FUZZ: Part = Part {
    name: "cargo-fuzz",
    there: |workspace| {
        on_path("c++")?;
        tools::FUZZ.is_there(workspace).then(|| tools::FUZZ.version.to_owned())
    },
    steps: 1,
    make: |workspace, steps| {
        steps.begin("building cargo-fuzz (a minute, once)");
        // libFuzzer is C++ and is compiled with each fuzz target.
        if on_path("c++").is_none() {
            apt::install(steps, &["g++"], "fuzzing")?;
        }
        if tools::FUZZ.is_there(workspace) {
            return Ok(());
        }
        tools::FUZZ.install(workspace, steps, tools::QUICKLY, &[])
    },
};

const OBSERVER: Part = Part {
    name: "git, strace, ip and hostname",
    there: servers::observer_there,
    steps: 1,
    make: servers::make_observer,
};

const OPERATIONS: Part = Part {
    name: "systemd-analyze, setpriv and promtool",
    there: operations::there,
    steps: 1,
    make: operations::make,
};

const PACKAGER: Part = Part {
    name: "cargo-deb",
    there: |workspace| tools::DEB.is_there(workspace).then(|| tools::DEB.version.to_owned()),
    steps: 1,
    make: |workspace, steps| {
        steps.begin("building cargo-deb (minutes, once)");
        tools::DEB.install(workspace, steps, tools::QUICKLY, &[])
    },
};

const LINTIAN: Part = Part {
    name: "strip and lintian",
    there: operations::packaging_there,
    steps: 1,
    make: operations::make_packaging,
};

const NPM: Part =
    Part { name: "MCP servers from npm", there: servers::npm_there, steps: 1, make: servers::make_npm };

const PYPI: Part =
    Part { name: "MCP servers from PyPI", there: servers::pypi_there, steps: 1, make: servers::make_pypi };

const RECEIVERS: Part =
    Part { name: "receivers of events", there: receivers::there, steps: 1, make: receivers::make };

const TENZIR: Part =
    Part { name: "Tenzir", there: receivers::tenzir_there, steps: 1, make: receivers::make_tenzir };

const GUESTS: Part = Part {
    name: "emulated machines with other kernels",
    there: vm::stage::there,
    steps: 1,
    make: vm::stage::make,
};

/// What a build needs.
pub(crate) static BUILD: [Part; 1] = [TOOLCHAIN];
/// What the lint stage needs.
pub(crate) static LINT: [Part; 3] = [TOOLCHAIN, CLIPPY, DENY];
/// What the fuzz stage needs.
pub(crate) static FUZZING: [Part; 1] = [FUZZ];
/// The servers that we did not write.
pub(crate) static SERVERS: [Part; 2] = [NPM, PYPI];
/// What the end-to-end stage needs.
pub(crate) static E2E: [Part; 7] = [TOOLCHAIN, OBSERVER, OPERATIONS, NPM, PYPI, RECEIVERS, TENZIR];
/// What the stage with other kernels needs.
pub(crate) static KERNELS: [Part; 3] = [TOOLCHAIN, PACKAGER, GUESTS];
/// What a guest with systemd needs beside it.
pub(crate) static PACKAGER_ONLY: [Part; 1] = [PACKAGER];
/// What a package needs.
pub(crate) static PACKAGE: [Part; 3] = [TOOLCHAIN, PACKAGER, LINTIAN];
/// All of it.
pub(crate) static ALL: [Part; 13] = [
    TOOLCHAIN, CLIPPY, DENY, FUZZ, OBSERVER, OPERATIONS, NPM, PYPI, RECEIVERS, TENZIR, PACKAGER, LINTIAN,
    GUESTS,
];

/// Makes what is not there. Every part is tried, so that one run names all that is missing.
pub(crate) fn run<'a>(workspace: &Workspace, parts: impl IntoIterator<Item = &'a Part>) -> Result<()> {
    let started = Instant::now();
    let mut lacking = Vec::new();
    for part in parts {
        match (part.there)(workspace) {
            Some(how) => println!("{}: {how}", part.name),
            None => lacking.push(part),
        }
    }
    if lacking.is_empty() {
        println!("set-up: all is there ({})", seconds(started.elapsed()));
        return Ok(());
    }
    for part in &lacking {
        println!("{}: missing", part.name);
    }

    let mut steps = Steps::new(workspace, lacking.iter().map(|part| part.steps).sum())?;
    let mut failed = Vec::new();
    let mut before = 0;
    for part in lacking {
        steps.skip_to(before);
        before += part.steps;
        match (part.make)(workspace, &mut steps) {
            // A package manager may hold a thing for installed that somebody has deleted.
            Ok(()) if (part.there)(workspace).is_none() => {
                failed.push(format!("{}: installing it succeeded, yet it is not there", part.name))
            }
            Ok(()) => {}
            Err(e) => failed.push(format!("{}: {e:#}", part.name)),
        }
    }
    if !failed.is_empty() {
        bail!("set-up is not complete\n\n{}", failed.join("\n\n"));
    }
    println!("set-up: done in {}", seconds(started.elapsed()));
    Ok(())
}
